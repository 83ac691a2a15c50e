"""What a user's images may be: pixels that are missing, any layout, number and order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seamo_fast.model.backbone import SeaMoBackbone
from tests.factories import make_batch
from tests.model.test_backbone import CONFIG, S1, S2, images, twins

NOISE = torch.randint(200, 9000, (2, 12, 32, 32), generator=torch.Generator().manual_seed(0))


def backbone() -> SeaMoBackbone:
    """One with all modalities, non-trivial weights and the pooled features, in float64."""
    _, made = twins()
    made.output = "pooled"
    return made


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["s2l2a", "s1grd"])
def test_what_is_not_finite_equals_the_mean_of_its_band(name: str, lost: float) -> None:
    model, modality = backbone(), {"s2l2a": S2, "s1grd": S1}[name]
    x = {key: image.double() for key, image in images(make_batch([S2, S1], size=32)).items()}
    holes = torch.rand(x[name].shape) < 0.1
    means = torch.tensor(modality.mean, dtype=torch.float64)[:, None, None].expand_as(holes)
    filled = {**x, name: torch.where(holes, means, x[name])}
    lacking = {**x, name: torch.where(holes, lost, x[name])}
    assert not torch.allclose(model(filled), model(x))
    torch.testing.assert_close(model(lacking), model(filled))


@pytest.mark.parametrize("size", [(32, 32), (16, 40), (8, 64)])
def test_an_order_of_bands_changes_no_feature(size: tuple[int, int]) -> None:
    model = backbone()
    order = torch.randperm(12).tolist()
    image = torch.randint(200, 9000, (2, 3, 12, *size)).float()
    expected = model({"s2l2a": image})
    model.adapt("s2l2a", S2.subset([S2.band_names[channel] for channel in order]))
    torch.testing.assert_close(model({"s2l2a": image[:, :, order]}), expected)


@pytest.mark.parametrize("seasons", range(1, 13))
def test_one_to_twelve_seasons(seasons: int) -> None:
    """Features are finite, depend on each season, and not on the batch around a place."""
    model = backbone()
    batch = make_batch([S2, S1], batch=3, seasons=seasons, size=16)
    x = {name: image.double() for name, image in images(batch).items()}
    features = model(x, batch.dates)
    assert features.shape == (3, 32)
    assert features.isfinite().all()
    for b in range(3):
        own = {name: image[b : b + 1] for name, image in x.items()}
        torch.testing.assert_close(model(own, batch.dates[b : b + 1])[0], features[b])
    x["s2l2a"][:, seasons - 1] += 500
    assert not torch.allclose(model(x, batch.dates), features)


@pytest.mark.parametrize("value", [0, 1, 752.4, 20_000])
def test_constant_tiles_have_finite_features_and_gradients(value: float) -> None:
    model = backbone()
    features = model({"s2l2a": torch.full((2, 2, 12, 16, 16), float(value))})
    features.square().sum().backward()
    torch.testing.assert_close(features[0], features[1])
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in [features, *gradients])


@pytest.mark.parametrize("output", ["tokens", "map", "pooled"])
@pytest.mark.parametrize("batch", [0, 1])
def test_batches_of_none_and_one(output: str, batch: int) -> None:
    model = backbone()
    model.output = output  # type: ignore[assignment]
    x = {"s2l2a": NOISE[:, None].double(), "s1grd": -12 + NOISE[:, None, :2].double() / 1000}
    whole = model(x)
    part = model({name: image[:batch] for name, image in x.items()})
    assert part.shape == (batch, *whole.shape[1:])
    torch.testing.assert_close(part, whole[:batch])


def every_other(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return wide[..., ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every other": every_other,
    "part of a larger image": lambda x: torch.nn.functional.pad(x, (3, 5, 2, 4))[..., 2:-4, 3:-5],
    "bands of a larger image": lambda x: torch.cat([x, x], 1)[:, :12],
    "one image expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.float32])
def test_layouts_in_memory_give_the_same_bits(dtype: torch.dtype, layout: str) -> None:
    torch.manual_seed(0)
    model = SeaMoBackbone(CONFIG, [S2], output="pooled")
    # torch pads and concatenates no uint16 on the CPU: their bits travel as int16
    bits = torch.int16 if dtype == torch.uint16 else dtype
    strided = LAYOUTS[layout](NOISE.to(bits)).view(dtype)
    image = strided.view(bits).contiguous().view(dtype)
    assert layout == "bands of a larger image" or not strided.is_contiguous()
    assert torch.equal(model({"s2l2a": strided}), model({"s2l2a": image}))


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_a_compiled_backbone_takes_any_layout(layout: str) -> None:
    model = backbone()
    model({"s2l2a": NOISE.double()})
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    image = LAYOUTS[layout](NOISE.double())
    torch.testing.assert_close(compiled({"s2l2a": image}), model({"s2l2a": NOISE.double()}))
