"""Pixels that no value can have, through the whole pretraining model, by every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.ops import gather_patches as OP
from seamo_fast import kernels
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.seamo import SeaMo
from seamo_fast.tiles import TileBatch
from tests.factories import S1, S2, make_batch, make_views, whole_tiles
from tests.kernels.contract import Subject

SMALL = ModelConfig(
    width=16, depth=1, heads=2, image_size=16, patch_size=4, decoder_width=16, decoder_depth=1,
    decoder_heads=2,
)  # fmt: skip
FILLS = (-3.4028234663852886e38, 9.969209968386869e36, 1e30, -1e30, torch.nan, -torch.inf)
INVALID = ((0, 0, 0), (0, 1, 1), (1, 0, 1))


def spoilt(dtype: torch.dtype) -> TileBatch:
    """Tiles of which some pixels of valid groups, and all of the invalid ones, are fill values."""
    batch = make_batch(dtype=dtype, size=24, missing=INVALID, holes=[(1, 1, 0)])
    fills = torch.tensor(FILLS, dtype=dtype)
    for grid in chain.from_iterable(batch.bands.values()):
        lost = torch.rand(grid.shape) < 0.002
        grid[lost] = fills[torch.randint(len(fills), (int(lost.sum()),))]
    for number, (b, t, m) in enumerate(INVALID):
        for grid in batch.bands[batch.modalities[m]]:
            grid[b, t] = fills[number]
    return batch


def masked(batch: TileBatch) -> TileBatch:
    """The same in float64 with NaN in place of them, and nothing at all in the invalid groups."""
    bands: dict[str, list[Tensor]] = {}
    for m, name in enumerate(batch.modalities):
        groups = batch.valid[:, :, m, None, None, None]
        exact = [grid.double() for grid in batch.bands[name]]
        bands[name] = [
            grid.masked_fill(~(grid.abs() < 1e5), torch.nan).where(groups, 1.0) for grid in exact
        ]
    return replace(batch, bands=bands)


@pytest.fixture
def behind_models(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has models gather patches by the backend; counts how often they do."""
    calls = [0]

    def gather(
        bands: Sequence[Tensor], *tensors: Tensor, order: Any, image_size: Any, **rest: Any
    ) -> Any:
        calls[0] += 1
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        x = OP.Arguments(list(bands), *tensors, list(order), size, **rest)  # type: ignore[arg-type]
        found = subject.guarded.forward(*x)
        assert found is not None
        return found

    monkeypatch.setattr(kernels, "gather_patches", gather)
    return calls


def results(model: SeaMo, batch: TileBatch) -> dict[str, Tensor]:
    """Losses and gradients by name; where pixels are read is exact in binary."""
    views = whole_tiles(batch, make_views(batch, SMALL))
    model.zero_grad()
    losses = model(batch, views)
    losses.total.backward()
    found = {f"loss of {name}": loss.detach() for name, loss in losses.by_modality.items()}
    return found | {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("stored", [torch.float32, torch.float16], ids=str)
def test_pretraining_is_what_it_is_without_them(
    subject: Subject, behind_models: list[int], stored: torch.dtype
) -> None:
    model, batch = SeaMo(SMALL, [S2, S1]), spoilt(stored)
    actual = results(model, batch)
    assert behind_models[0] > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "gather_patches", OP.FUNCTION)
        expected = results(model.double(), masked(batch))
    assert actual.keys() == expected.keys()
    assert all(loss > 0 for name, loss in actual.items() if name.startswith("loss"))
    for name, value in actual.items():
        assert value.isfinite().all(), name
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-3, atol=1e-5, msg=name)
