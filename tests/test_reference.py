"""The reference against hand calculations, and the fast model against the reference."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seamo_fast.modalities import MISSING_DATE, Modality
from seamo_fast.model import SeaMo
from seamo_fast.model.config import PRESETS, ModelConfig
from seamo_fast.reference import (
    CrossAttention,
    DateEmbedding,
    Decoder,
    Encoder,
    FusionBlock,
    ReferenceSeaMo,
    RegionReader,
    key_groups,
    masked_loss,
    patchify,
    sin_cos_positions,
)
from seamo_fast.views import ViewConfig
from tests.factories import MODALITIES, RGB, S1, S2, Group, make_batch, make_views, whole_tiles

SMALL = ModelConfig(
    width=16, depth=1, heads=2, image_size=32, decoder_width=8, decoder_depth=1, decoder_heads=2
)
TINY = replace(PRESETS["tiny"], image_size=32)
SHALLOW = replace(TINY, depth=2)
BASE = replace(PRESETS["base"], image_size=16)


LOSS_TOLERANCE = 1e-11
GRADIENT_TOLERANCE = 1e-9
Net = TypeVar("Net", bound=nn.Module)


def normal(*sizes: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(sizes, generator=rng, dtype=torch.float64)


def spread(module: Net) -> Net:
    """Gives every parameter a value that matters, in float64."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            deviation = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=deviation)
    return module.double()


# --- the reference by hand ---------------------------------------------------------------------


def test_positions_follow_the_formula() -> None:
    width, side = 12, 3
    expected = np.empty((side * side, width))
    for row in range(side):
        for column in range(side):
            for half, position in enumerate((row, column)):
                for i in range(width // 4):
                    angle = position * 10000 ** (-2 * i / (width / 2))
                    start = half * width // 2 + i
                    expected[row * side + column, start] = math.sin(angle)
                    expected[row * side + column, start + width // 4] = math.cos(angle)
    np.testing.assert_allclose(sin_cos_positions(width, side), expected, atol=1e-7)


def test_patchify_goes_row_by_row_with_bands_first() -> None:
    image = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    patches = patchify(torch.from_numpy(image), 2).numpy()
    assert patches.shape == (2, 4, 12)
    for number in range(4):
        top, left = 2 * (number // 2), 2 * (number % 2)
        expected = image[1, :, top : top + 2, left : left + 2]
        np.testing.assert_array_equal(patches[1, number], expected.ravel())


def test_conv_embedding_is_a_product_with_the_patch_vector() -> None:
    model = spread(ReferenceSeaMo(SMALL, [S1]))
    conv: Any = model.patch_embed["s1grd"]
    image = normal(1, 2, 32, 32)
    weight, bias = conv.weight.flatten(1), conv.bias
    expected = patchify(image, 8)[0] @ weight.T + bias
    torch.testing.assert_close(conv(image)[0].flatten(1).T, expected)


def test_decoder_puts_tokens_back_in_image_order() -> None:
    decoder = Decoder(replace(SMALL, width=4, decoder_width=4), bands=1)
    decoder.blocks, decoder.embed = nn.ModuleList(), nn.Identity()  # type: ignore[assignment]
    decoder.norm = decoder.head = nn.Identity()  # type: ignore[assignment]
    nn.init.constant_(decoder.mask_token, -1.0)
    visible, hidden = [1, 4], [0, 2, 3]
    z = torch.tensor([10.0, 40.0])[None, :, None].expand(1, 2, 4)
    restore = torch.tensor([visible + hidden]).argsort()
    positions = torch.arange(5.0)[:, None].expand(5, 4) / 10
    decoded = decoder(z, restore, positions)[0, :, 0]
    torch.testing.assert_close(decoded, torch.tensor([-1.0, 10.1, -0.8, -0.7, 40.4]))


def test_loss_normalises_each_patch_and_averages_the_weighted() -> None:
    pred, target = normal(2, 3, 8).numpy(), 5 + 3 * normal(2, 3, 8, seed=1).numpy()
    weight = np.array([[1, 0, 1], [0, 0, 1]], dtype=np.float64)
    total = 0.0
    for i, n in zip(*weight.nonzero(), strict=True):
        wanted = (target[i, n] - target[i, n].mean()) / math.sqrt(target[i, n].var(ddof=1) + 1e-6)
        total += ((pred[i, n] - wanted) ** 2).mean()
    p, t, w = (torch.from_numpy(x) for x in (pred, target, weight))
    assert masked_loss(p, t, w, normalize=True, bands=1).item() == pytest.approx(
        total / 3, rel=1e-12
    )
    plain = (((pred - target) ** 2).mean(-1) * weight).sum() / 3
    assert masked_loss(p, t, w, normalize=False, bands=1).item() == pytest.approx(plain, rel=1e-12)
    assert masked_loss(p, t, torch.zeros_like(w), normalize=True, bands=1).item() == 0.0


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("tm", [[1, 2], [0, 3], [0, 3], [1, 2]]),
        ("temporal", [[2], [3], [0], [1]]),
        ("modal", [[1], [0], [3], [2]]),
        ("concat", [[0, 1, 2, 3]] * 4),
    ],
)
def test_groups_attend_as_the_mode_says(mode: str, expected: list[list[int]]) -> None:
    assert key_groups(mode, seasons=2, modalities=2, window=None) == expected


def test_window_limits_seasons_only() -> None:
    assert key_groups("tm", 3, 2, 1) == [[1, 2], [0, 3], [0, 3, 4], [1, 2, 5], [2, 5], [3, 4]]
    assert key_groups("temporal", 4, 1, 2)[0] == [1, 2]


def attention_by_hand(attention: CrossAttention, query: Tensor, memory: Tensor) -> np.ndarray:
    """Attention of one query [D] to tokens [L, D], before the output projection."""
    parts = {name: x.detach().numpy() for name, x in attention.named_parameters()}
    q = parts["q.weight"] @ query.numpy() + parts["q.bias"]
    kv = memory.numpy() @ parts["kv.weight"].T + parts["kv.bias"]
    k, v = kv[:, : len(q)], kv[:, len(q) :]
    out = []
    for head in np.split(np.arange(len(q)), attention.heads):
        score = np.exp(k[:, head] @ q[head] / math.sqrt(len(head)))
        out.append((score / score.sum()) @ v[:, head])
    return np.concatenate(out)


def projected(attention: CrossAttention, x: np.ndarray) -> Tensor:
    return torch.from_numpy(x) @ attention.proj.weight.T.detach() + attention.proj.bias.detach()


def test_cross_attention_of_two_groups_by_hand() -> None:
    attention = spread(CrossAttention(8, heads=2))
    query, memory = normal(1, 2, 3, 8), normal(1, 2, 3, 8, seed=1)
    out = attention(query, memory, [[1], [0, 1]], None)
    alone = attention_by_hand(attention, query[0, 0, 2], memory[0, 1])
    both = attention_by_hand(attention, query[0, 1, 0], memory[0].flatten(0, 1))
    torch.testing.assert_close(out[0, 0, 2], projected(attention, alone))
    torch.testing.assert_close(out[0, 1, 0], projected(attention, both))


def test_cross_attention_admits_valid_keys_only() -> None:
    attention = spread(CrossAttention(8, heads=2))
    x = normal(3, 3, 2, 8).requires_grad_()
    valid = torch.tensor([[True, False, True], [True, False, False], [False, True, True]])
    sources = [[1, 2], [0], [0, 1]]
    out = attention(x, x, sources, valid)
    data = x.detach()
    one = attention_by_hand(attention, data[0, 0, 1], data[0, 2])
    torch.testing.assert_close(out[0, 0, 1], projected(attention, one))
    nothing = attention.proj.bias.expand(2, 8)
    torch.testing.assert_close(out[1, 0], nothing)  # no valid key
    torch.testing.assert_close(out[2, 0], nothing)  # the query's group is not valid
    torch.testing.assert_close(attention(x, x, [[], [0], [0]], None)[0, 0], nothing)  # no source
    (out[1, 0].sum() + out[2, 0].sum()).backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_cascade_carries_the_last_valid_season() -> None:
    block = spread(FusionBlock(replace(SMALL, width=8, fusion="cascade")))
    z = normal(1, 4, 2, 3, 8)
    valid = torch.tensor([[[True, True], [False, True], [True, True], [True, False]]])
    out = block(z, valid)

    def season(query: Tensor, now: Tensor, other: Tensor | None) -> Tensor:
        """One modality's u [K, D] from its query, its tokens and the other's."""
        attended = torch.zeros_like(query)
        if other is not None:
            memory = block.norm1(other).detach()
            for n, token in enumerate(block.norm1(query).detach()):
                attended[n] = torch.from_numpy(attention_by_hand(block.attn, token, memory))
        u = query + block.attn.proj(attended)
        return u + block.mlp(block.norm2(u))

    def carry(now: Tensor, previous: Tensor) -> Tensor:
        return block.carry(torch.cat([now, previous], dim=-1))

    first = season(z[0, 0, 0], z[0, 0, 0], z[0, 0, 1])
    torch.testing.assert_close(out[0, 0, 0], first)
    # Season 1 of the first modality does not exist: season 2 carries season 0 on.
    third = season(carry(z[0, 2, 0], first), z[0, 2, 0], z[0, 2, 1])
    torch.testing.assert_close(out[0, 2, 0], third)
    # The second modality has no partner in season 1, and the first none in season 3.
    other = season(z[0, 0, 1], z[0, 0, 1], z[0, 0, 0])
    torch.testing.assert_close(out[0, 1, 1], season(carry(z[0, 1, 1], other), z[0, 1, 1], None))
    torch.testing.assert_close(out[0, 3, 0], season(carry(z[0, 3, 0], third), z[0, 3, 0], None))


def test_cascade_starts_at_the_first_valid_season() -> None:
    block = spread(FusionBlock(replace(SMALL, width=8, fusion="cascade")))
    z = normal(1, 3, 1, 2, 8)
    late = block(z, torch.tensor([[[False], [True], [True]]]))
    torch.testing.assert_close(late[:, 1:], block(z[:, 1:], None))


def test_encoder_looks_at_valid_groups_of_the_season() -> None:
    encoder = spread(Encoder(SMALL))
    z = normal(1, 3, 2, 4, 16)
    valid = torch.tensor([[[True, False], [True, True], [False, False]]])
    out = encoder(z, valid)
    torch.testing.assert_close(out[:, :1, :1], encoder(z[:, :1, :1], None))
    torch.testing.assert_close(out[:, 1:2], encoder(z[:, 1:2], None))
    torch.testing.assert_close(out[:, 2:], encoder(z[:, 2:], None))  # nothing valid, no mask
    assert not torch.allclose(out[:, 1:2, :1], encoder(z[:, 1:2, :1], None))


def test_date_embedding_knows_the_calendar() -> None:
    embedding = DateEmbedding(4).double()
    nn.init.eye_(embedding.weight)
    epoch = datetime.date(1970, 1, 1)
    days = [datetime.date(2020, 12, 31), datetime.date(2021, 3, 1), datetime.date(2000, 3, 1)]
    numbers = torch.tensor([(day - epoch).days for day in days] + [MISSING_DATE], dtype=torch.int32)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for i, day in enumerate(days):
        a = 2 * math.pi * (day.timetuple().tm_yday - 1) / 365.25
        waves = [math.sin(a), math.cos(a), math.sin(2 * a), math.cos(2 * a)]
        expected[i] = torch.tensor(waves)
    torch.testing.assert_close(embedding(numbers), expected)


def taps(start: float, extent: float, side: int, size: int) -> list[dict[int, float]]:
    """Which pixels of a grid each of `size` samples of a region reads, and their weights."""
    numbers = np.arange(size)[::-1] if extent < 0 else np.arange(size)
    read = []
    for i in numbers:
        at = (start + (i + 0.5) / size * abs(extent)) * side - 0.5
        at = min(max(at, 0.0), side - 1.0)
        low = math.floor(at)
        weights = {low: 1 - (at - low), low + 1: at - low}
        read.append({pixel: weight for pixel, weight in weights.items() if weight > 0})
    return read


FEW = S2.subset(("B2", "B5", "B1", "B3"))


def read_by_hand(
    modality: Modality, grids: list[np.ndarray], box: Sequence[float], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image and nodata [C, S, S] of one tile's grids [Cg, H, W], one pixel after the other."""
    image = np.zeros((len(modality.bands), size, size))
    nodata = np.zeros(image.shape, dtype=bool)

    def is_missing(value: float, row: int, column: int, side: int) -> bool:
        if modality.nodata_rule == "band" or not abs(value) <= modality.limit:
            return not abs(value) <= modality.limit or value == modality.nodata
        at = [[int((i + 0.5) / side * len(g[0])) for i in (row, column)] for g in grids]
        pixel = np.concatenate([g[:, y, x] for g, (y, x) in zip(grids, at, strict=True)])
        return all(not abs(each) <= modality.limit or each == modality.nodata for each in pixel)

    for grid, values in zip(modality.grids, grids, strict=True):
        rows, columns = (taps(box[i], box[i + 2], values.shape[-1], size) for i in (0, 1))
        for channel, band in zip(grid.bands, values, strict=True):
            shift, scale = (np.float32(x[channel]) for x in modality.normalization())
            for y, x in np.ndindex(size, size):
                read = {(r, c): u * w for r, u in rows[y].items() for c, w in columns[x].items()}
                bad = any(is_missing(band[place], *place, len(band)) for place in read)
                value = (
                    sum(band[place] * weight for place, weight in read.items()) - shift
                ) * scale
                image[channel, y, x] = 0.0 if bad else value
                nodata[channel, y, x] = bad
    return image, nodata


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.1, 0.2, -0.7, 0.45), (0.05, 0.3, 0.6, -0.7)])
@pytest.mark.parametrize(
    "modality", [FEW, replace(FEW, nodata_rule="band"), S1, replace(S1, nodata_rule="pixel")]
)
def test_regions_are_read_as_defined(modality: Modality, box: tuple[float, ...]) -> None:
    grids = make_batch([modality], batch=1, seasons=1, size=24).bands[modality.name]
    grids[0][0, 0, 0, 8:14, 9:11] = 0
    for grid in grids:  # most of it without any band
        side = grid.shape[-1]
        grid[..., side // 3 : round(0.8 * side), side // 3 : round(0.6 * side)] = 0
    if modality.unit == "db":
        grids[0][0, 0, 1, 12, 10:13] = torch.tensor([torch.nan, -9999, 1e30])
    box = tuple(float(np.float32(x)) for x in box)
    reader = RegionReader(modality, image_size=8).double()
    image, nodata = reader(grids, torch.tensor([[box]]))
    arrays = [grid[0, 0].double().numpy() for grid in grids]
    expected, expected_nodata = read_by_hand(modality, arrays, box, 8)
    np.testing.assert_array_equal(nodata[0], expected_nodata)
    np.testing.assert_allclose(image[0], expected, atol=1e-12)
    assert 0 < nodata.sum() < nodata.numel()


def test_nodata_in_one_band_is_a_value_unless_the_rule_says_band() -> None:
    grids = make_batch([S2], batch=1, seasons=1, size=24).bands["s2l2a"]
    grids[0][0, 0, 0, ::2] = 0
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    image, nodata = RegionReader(S2, image_size=24).double()(grids, box)
    assert not nodata.any()
    expected = -S2.normalization()[0][1] * S2.normalization()[1][1]  # the first of 10 m is B2
    torch.testing.assert_close(image[0, 1, ::2], torch.full((12, 24), expected).double())
    by_band = RegionReader(replace(S2, nodata_rule="band"), image_size=24).double()
    _, nodata = by_band(grids, box)
    assert nodata[0, 1, ::2].all()
    assert nodata.sum() == 12 * 24


def test_whole_tile_is_read_exactly() -> None:
    batch = make_batch([S1], batch=1, seasons=1, size=33, holes=[(0, 0, 0)])
    tile = batch.bands["s1grd"][0][0]
    image, nodata = RegionReader(S1, image_size=33)([tile[None]], torch.tensor([[[0.0, 0, 1, 1]]]))
    assert torch.equal(nodata, tile.isnan() | (tile == 0))
    mean, std = (torch.tensor(x)[:, None, None] for x in (S1.mean, S1.std))
    torch.testing.assert_close(image[~nodata], ((tile - mean) / std)[~nodata], atol=1e-4, rtol=0)


def test_missing_groups_and_nodata_do_not_count() -> None:
    model = spread(ReferenceSeaMo(SMALL, [S2, S1]))
    batch = make_batch(missing=[(0, 1, 1), (1, 0, 0)], holes=[(0, 0, 0)])
    views = make_views(batch, SMALL)
    total, losses = model(batch, views)
    assert total.item() == pytest.approx(sum(loss.item() for loss in losses.values()))
    batch.bands["s1grd"][0][0, 1] = 7.0
    batch.bands["s2l2a"][1][1, 0] = 1234
    torch.testing.assert_close(model(batch, views)[0], total, rtol=0, atol=0)
    batch.bands["s1grd"][0][0, 0] += 7.0
    assert not torch.isclose(model(batch, views)[0], total)


def test_views_must_hold_every_patch() -> None:
    batch = make_batch()
    views = make_views(batch, SMALL)
    views.hidden = views.hidden[..., 1:]
    with pytest.raises(ValueError, match=r"all 16 patches.*hold 15"):
        ReferenceSeaMo(SMALL, [S2, S1])(batch, views)


def test_float32_agrees_with_float64() -> None:
    batch = make_batch(missing=[(0, 1, 1)], holes=[(0, 0, 0)])
    views = make_views(batch, SMALL)
    model = spread(ReferenceSeaMo(SMALL, [S2, S1]))
    expected = model(batch, views)[0].item()
    assert model.float()(batch, views)[0].item() == pytest.approx(expected, rel=1e-5)


# --- the fast model against the reference ------------------------------------------------------


@dataclass
class Case:
    """One comparison: model settings, the batch's make-up, and the views'."""

    config: dict[str, Any] = field(default_factory=dict)
    modalities: tuple[Modality, ...] = (S2, S1)
    shown: tuple[Modality, ...] | None = None
    batch: dict[str, Any] = field(default_factory=dict)
    views: ViewConfig = field(default_factory=ViewConfig)
    whole: bool = False
    fusion: bool = True


def losses_and_gradients(
    model: nn.Module, total: Tensor, losses: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    total.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return {"total": total.detach(), **{k: v.detach() for k, v in losses.items()}}, gradients


def compare(base: ModelConfig, case: Case) -> tuple[float, float]:
    """Returns the largest relative differences of losses and of gradients."""
    config = replace(base, **case.config)
    model = spread(SeaMo(config, case.modalities))
    reference = ReferenceSeaMo(config, case.modalities)
    reference.load_state_dict(model.state_dict(), strict=True, assign=True)
    reference.double()
    batch = make_batch(case.shown or case.modalities, **case.batch)
    views = make_views(batch, config, case.views)
    views = whole_tiles(batch, views) if case.whole else views

    fast = model(batch, views, fusion=case.fusion, counted=True)
    loss, gradient = losses_and_gradients(model, fast.total, fast.by_modality)
    slow_total, slow_losses, counts = reference(batch, views, fusion=case.fusion, counted=True)
    assert torch.equal(fast.counts, counts)
    wanted_loss, wanted = losses_and_gradients(reference, slow_total, slow_losses)

    assert loss.keys() == wanted_loss.keys()
    assert gradient.keys() == wanted.keys()
    off = max(difference(loss[key], wanted_loss[key], 1e-12) for key in loss)
    greatest = max(g.abs().max().item() for g in wanted.values())
    return off, max(difference(gradient[k], wanted[k], 1e-6 * greatest) for k in wanted)


def difference(came: Tensor, wanted: Tensor, floor: float) -> float:
    """Largest difference relative to the tensor's largest value, taken as `floor` at least."""
    return ((came - wanted).abs().max() / wanted.abs().max().clamp(min=floor)).item()


LAST_SEASON: list[Group] = [(0, 2, 0), (0, 2, 1), (0, 2, 2)]
NOTHING: list[Group] = [(1, t, m) for t in range(3) for m in range(3)]
TORN = {
    "batch": 3,
    "seasons": 3,
    "missing": [*LAST_SEASON, *NOTHING, (2, 1, 0), (2, 2, 2)],
    "undated": [(0, 0, 0), (2, 0, 1)],
    "holes": [(0, 0, 0), (0, 1, 1), (2, 0, 0), (2, 2, 1)],
}
MODES = ("tm", "cascade", "concat", "temporal", "modal", "none")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SHALLOW, id="tiny of 2 blocks"),
        pytest.param(TINY, id="tiny", marks=pytest.mark.slow),
        pytest.param(BASE, id="base", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("seasons", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("fusion", MODES)
def test_every_fusion_equals_the_reference(
    fusion: str, count: int, seasons: int, model: ModelConfig
) -> None:
    batch = {"batch": 2, "seasons": seasons, "missing": [(1, seasons - 1, count - 1)]}
    losses, gradients = compare(model, Case({"fusion": fusion}, MODALITIES[:count], batch=batch))
    assert losses < LOSS_TOLERANCE
    assert gradients < GRADIENT_TOLERANCE


@pytest.mark.parametrize("fusion", MODES)
def test_tiny_equals_the_reference(fusion: str) -> None:
    losses, gradients = compare(TINY, Case({"fusion": fusion}, MODALITIES, batch=TORN))
    assert losses < LOSS_TOLERANCE
    assert gradients < GRADIENT_TOLERANCE


CASES = {
    "window": Case({"fusion_window": 1}, batch={"seasons": 4}),
    "temporal window": Case({"fusion": "temporal", "fusion_window": 2}, batch={"seasons": 4}),
    "window of concat": Case({"fusion": "concat", "fusion_window": 1}, batch={"seasons": 3}),
    "window of torn data": Case({"fusion_window": 1}, MODALITIES, batch=TORN),
    "two fusion blocks": Case({"fusion_depth": 2}, MODALITIES, batch=TORN),
    "two cascades": Case({"fusion": "cascade", "fusion_depth": 2}, MODALITIES, batch=TORN),
    "fusion off": Case(fusion=False),
    "fusion off, torn data": Case(modalities=MODALITIES, batch=TORN, fusion=False),
    "no dates": Case({"date_embedding": False}, batch={"undated": [(0, 0, 0)]}),
    "plain pixels": Case({"norm_pix": False}, MODALITIES, batch=TORN),
    "pixels of bands": Case({"norm_pix": "bands"}, MODALITIES, batch=TORN),
    "mlp ratio": Case({"mlp_ratio": 2.0}),
    "modalities left out": Case(modalities=MODALITIES, shown=(RGB, S2)),
    "one modality of three": Case(modalities=MODALITIES, shown=(S1,)),
    "whole tiles": Case(batch={"size": 32, "holes": [(0, 0, 0), (1, 1, 1)]}, whole=True),
    "whole fine tiles": Case(batch={"size": 96, "holes": [(0, 0, 0), (1, 1, 1)]}, whole=True),
    "no flips": Case(views=ViewConfig(flip=False)),
    "shared mask": Case(views=ViewConfig(mask="shared", mask_ratio=0.5)),
    "disjoint regions": Case(views=ViewConfig(mode="disjoint"), batch={"seasons": 4}),
    "16-bit integers": Case(modalities=(S2,), batch={"dtype": torch.int16, "holes": [(0, 0, 0)]}),
    "16-bit floats": Case(modalities=(S1,), batch={"dtype": torch.float16, "holes": [(0, 0, 0)]}),
    "32-bit floats": Case(batch={"dtype": torch.float32, "holes": [(0, 0, 0), (1, 1, 1)]}),
    "64-bit floats": Case(batch={"dtype": torch.float64, "holes": [(0, 0, 0), (1, 1, 1)]}),
    "nodata by band": Case(
        modalities=(replace(S2, nodata_rule="band"), S1), batch={"holes": [(0, 0, 0), (1, 1, 1)]}
    ),
    "nodata by pixel in dB": Case(
        modalities=(S2, replace(S1, nodata_rule="pixel")), batch={"holes": [(0, 0, 0), (1, 1, 1)]}
    ),
    "rounded nodata": Case(
        modalities=(replace(S1, nodata=-9999.1),),
        batch={"dtype": torch.float16, "holes": [(0, 0, 0), (1, 1, 0)]},
    ),
    "one grid": Case(modalities=(S2.on_one_grid(10), S1), batch={"holes": [(0, 0, 0)]}),
    "bands in another order": Case(modalities=(S2.subset(("B5", "B2", "B1", "B8A", "B8")),)),
}


@pytest.mark.parametrize("name", CASES)
def test_fast_model_equals_the_reference_with(name: str) -> None:
    losses, gradients = compare(SHALLOW, CASES[name])
    assert losses < LOSS_TOLERANCE
    assert gradients < GRADIENT_TOLERANCE


def test_base_equals_the_reference() -> None:
    batch = {
        "batch": 1,
        "seasons": 3,
        "missing": [(0, 1, 0), (0, 2, 1)],
        "undated": [(0, 0, 0)],
        "holes": [(0, 0, 1)],
    }
    losses, gradients = compare(BASE, Case({"depth": 2}, batch=batch))
    assert losses < LOSS_TOLERANCE
    assert gradients < GRADIENT_TOLERANCE


def test_nothing_valid_costs_nothing() -> None:
    everything = [(b, t, m) for b in range(2) for t in range(2) for m in range(2)]
    batch = make_batch(missing=everything)
    views = make_views(batch, SMALL)
    for model in (SeaMo(SMALL, [S2, S1]), ReferenceSeaMo(SMALL, [S2, S1])):
        out = model(batch, views)
        total = out.total if isinstance(model, SeaMo) else out[0]
        total.backward()
        assert total.item() == 0.0
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert not any(gradient.any() for gradient in gradients)
