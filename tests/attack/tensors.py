"""Images, dates and groups at the backbone's door."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seamo_fast import SeaMoBackbone
from seamo_fast.modalities import MISSING_DATE
from tests.attack.ground import TINY, Ground
from tests.attack.isolate import Attack

LEAST: Final = float(np.finfo(np.float32).min)  # the usual nodata of GDAL
VALUES: Final = (float("nan"), float("inf"), -float("inf"), LEAST, -LEAST, 1e30, -1e20)
DTYPES: Final = (
    *(torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
)
ROUND: Final = 1e-4


def model(output: str = "pooled") -> SeaMoBackbone:
    torch.manual_seed(0)
    made = SeaMoBackbone(TINY, output=output).eval()  # type: ignore[arg-type]
    for each in made.parameters():
        torch.nn.init.normal_(each, std=0.1)
    return made


def good(rng: np.random.Generator, batch: int = 2, seasons: int = 2) -> dict[str, Tensor]:
    s2 = rng.integers(200, 4000, (batch, seasons, 12, 16, 16)).astype(np.float32)
    s1 = rng.normal(-14, 4, (batch, seasons, 2, 16, 16)).astype(np.float32)
    return {"s2l2a": torch.from_numpy(s2), "s1grd": torch.from_numpy(s1)}


def door(backbone: SeaMoBackbone, x: Any, **more: Any) -> Any:
    def run() -> Tensor:
        with torch.inference_mode():
            return backbone(x, **more)

    return run


def finite(shape: tuple[int, ...]) -> Any:
    def check(z: Tensor) -> str:
        if tuple(z.shape) != shape:
            return f"features {list(z.shape)}"
        return "" if z.isfinite().all() else "features that are not finite"

    return check


def values(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Pixels that no sensor measures, in some groups; they count as missing pixels."""
    x = good(rng)
    name = str(rng.choice(list(x)))
    value = VALUES[int(rng.integers(len(VALUES)))]
    spoilt = {key: image.clone() for key, image in x.items()}
    missing = {key: image.clone() for key, image in x.items()}
    share = float(rng.choice([0.001, 0.1, 1.0]))
    hit = torch.from_numpy(rng.random(x[name].shape) < share)
    hit[0] = False
    spoilt[name][hit], missing[name][hit] = value, float("nan")
    expected = model()(missing).detach()

    def check(z: Tensor) -> str:
        wrong = finite((2, TINY.width))(z)
        near = torch.allclose(z, expected, ROUND, ROUND)
        return wrong or ("" if near else "other features than with missing pixels")

    return Attack(f"{share} of {name} is {value}", door(model(), spoilt), check)


def invalid(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A group that is not valid and holds anything, in training."""
    x = good(rng)
    valid = torch.from_numpy(rng.random((2, 2, 2)) < 0.5)
    valid[:, 0, 0] = True
    value = VALUES[int(rng.integers(len(VALUES)))]
    for m, image in enumerate(x.values()):
        image[~valid[:, :, m]] = value
    backbone = model(str(rng.choice(["pooled", "map", "tokens"]))).train()

    def run() -> SeaMoBackbone:
        backbone(x, valid=valid)[valid if backbone.output == "tokens" else ...].sum().backward()
        return backbone

    def check(trained: SeaMoBackbone) -> str:
        bad = [
            name
            for name, each in trained.named_parameters()
            if each.grad is not None and not each.grad.isfinite().all()
        ]
        return f"gradients of {len(bad)} parameters are not finite, such as {bad[0]}" if bad else ""

    return Attack(f"valid {valid.int().tolist()}, others hold {value}", run, check)


def alone(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Places in a batch, whose features are those of each place alone without what is missing."""
    B, T = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    x = good(rng, B, T)
    valid = torch.from_numpy(rng.random((B, T, 2)) < 0.6)
    days = rng.integers(17_000, 19_000, (B, T, 2))
    dates = torch.from_numpy(days)
    backbone = model()

    def check(z: Tensor) -> str:
        for b in range(B):
            seen = valid[b].any(1).nonzero()[:, 0].tolist()
            names = [m for m in range(2) if valid[b, :, m].any()]
            if not seen:
                if z[b].abs().max() != 0:
                    return "features of nothing are not 0"
                continue
            part = {list(x)[m]: list(x.values())[m][b : b + 1, seen] for m in names}
            kept = valid[b : b + 1, seen][:, :, names]
            with torch.inference_mode():
                own = backbone(part, dates=dates[b : b + 1, seen][:, :, names], valid=kept)[0]
            if not torch.allclose(z[b], own, ROUND, ROUND):
                return f"place {b} differs by {(z[b] - own).abs().max():.1e} from itself alone"
        return ""

    return Attack(
        f"valid {valid.int().tolist()}", door(backbone, x, dates=dates, valid=valid), check
    )


def dates(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Dates of any dtype and range; days since 1970 in int32 or int64 are right."""
    x = good(rng)
    options: list[tuple[Any, bool]] = [
        (torch.tensor([[17000, 18000], [18500, MISSING_DATE]]), True),
        (torch.tensor([[17000, 18000], [18500, 18001]], dtype=torch.int32), True),
        (torch.tensor([[17000, 18000], [18500, 18001]], dtype=torch.int16), False),
        (torch.tensor([[170, 180], [18, 18]], dtype=torch.uint8), False),
        (torch.tensor([[20201231, 20200229], [20200101, 20200102]]), False),
        (torch.tensor([[17000.0, float("nan")], [18500, 18001]]), False),
        (torch.tensor([[17000.0, 17001], [18500, 18001]]), False),
        (torch.tensor([[True, False], [True, True]]), False),
        (torch.tensor([[2**40, 17001], [18500, 18001]]), False),
        (torch.tensor([[17000, 18000]]), False),
        (torch.tensor(17000), False),
        (torch.zeros(2, 2, 3, dtype=torch.int64), False),
        (torch.tensor([[1577836800, 1577836801], [1577836802, 0]]), False),
    ]
    given, right = options[int(rng.integers(len(options)))]

    def check(z: Tensor) -> str:
        return finite((2, TINY.width))(z) if right else "dates that are none"

    return Attack(f"dates {given.dtype} {given.tolist()}", door(model(), x, dates=given), check)


def shapes(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Images of another shape, dtype or layout."""
    x = good(rng)
    name = str(rng.choice(list(x)))
    bands = x[name].shape[2]
    how = str(rng.choice(["dtype", "bands", "size", "season", "batch", "strided", "huge", "name"]))
    right = False
    if how == "dtype":
        dtype = DTYPES[int(rng.integers(len(DTYPES)))]
        x[name], how = x[name].to(dtype), f"{name} as {dtype}"
        right = dtype in (torch.float32, torch.uint16, torch.int16, torch.float64, torch.int32)
        right |= dtype in (torch.int64, torch.float16, torch.bfloat16, torch.uint8)
    elif how == "bands":
        x[name] = x[name][:, :, : int(rng.integers(bands))]
    elif how == "size":
        x[name] = x[name][..., : int(rng.choice([0, 1, 8, 15]))]
    elif how == "season":
        x[name] = x[name][:, :1]
    elif how == "batch":
        x[name] = x[name][:1]
    elif how == "strided":
        x[name], right = x[name].transpose(-1, -2).contiguous().transpose(-1, -2), True
    elif how == "huge":
        x[name] = x[name][:, :, :, :1, :1].expand(-1, -1, -1, 2**20, 2**20)
    else:
        x = {"strange": x[name]}

    def check(z: Tensor) -> str:
        # numbers that a dtype cannot hold were made so before the door
        return finite((2, TINY.width))(z) if right else "a shape or dtype that does not fit"

    return Attack(f"{name}: {how}", door(model(), x), check)
