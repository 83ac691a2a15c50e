"""What a place gives depends on its valid groups alone, and what is not valid poisons nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.modalities import MISSING_DATE, get_modality
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.model.backbone import Output, SeaMoBackbone
from seamo_fast.model.config import FusionMode
from seamo_fast.tiles import TileBatch
from tests.factories import make_batch, make_views

MODALITIES = tuple(get_modality(name).on_one_grid(10) for name in ("s2l2a", "s1grd", "s2l1c"))
NAMES = tuple(modality.name for modality in MODALITIES)
SIZE = 16
MODES: tuple[FusionMode, ...] = ("tm", "cascade", "concat", "temporal", "modal", "none")
OUTPUTS: tuple[Output, ...] = ("tokens", "map", "pooled")
POISON = (float(np.finfo("f4").min), -9999.0, 1e30, float("nan"), float("inf"), float("-inf"))
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SEEDS = st.integers(0, 2**16)

Place = tuple[dict[str, Tensor], Tensor, Tensor]  # images, dates and valid groups


def backbone(mode: FusionMode, window: int | None = None) -> SeaMoBackbone:
    config = ModelConfig(
        width=16, depth=2, heads=2, image_size=SIZE, fusion=mode, fusion_depth=2,
        fusion_window=window,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SeaMoBackbone(config, MODALITIES).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def places(valid: Tensor, seed: int) -> Place:
    """Noise in every group, those that are not valid included."""
    batch, seasons, count = valid.shape
    made = make_batch(MODALITIES[:count], batch=batch, seasons=seasons, size=SIZE, seed=seed)
    images = {name: grids[0].float() for name, grids in made.bands.items()}
    return images, made.dates, valid


def alone(place: Place, b: int) -> tuple[Place, list[int], list[int]]:
    """One place without the seasons and modalities of which it has nothing."""
    images, dates, valid = place
    seasons = valid[b].any(1).nonzero().flatten().tolist()
    columns = valid[b].any(0).nonzero().flatten().tolist()
    kept = {NAMES[m]: images[NAMES[m]][b : b + 1, seasons] for m in columns}
    return (kept, *(x[b : b + 1, seasons][..., columns] for x in (dates, valid))), seasons, columns


def padded(place: Place, value: float) -> Place:
    """A season and a modality more, of which no place has anything."""
    images, dates, valid = place
    missing = [name for name in NAMES if name not in images][:1]
    batch, seasons = dates.shape[:2]
    bands = {m.name: len(m.bands) for m in MODALITIES}
    more = {
        name: torch.cat([x, torch.full_like(x[:, :1], value)], 1) for name, x in images.items()
    } | {name: torch.full((batch, seasons + 1, bands[name], SIZE, SIZE), value) for name in missing}
    wide = (batch, seasons + 1, len(more))
    new_dates, new_valid = dates.new_full(wide, MISSING_DATE), valid.new_zeros(wide)
    new_dates[:, :seasons, : dates.shape[2]] = dates
    new_valid[:, :seasons, : valid.shape[2]] = valid
    return more, new_dates, new_valid


def features(model: SeaMoBackbone, place: Place) -> dict[str, Tensor]:
    """Every output, and the maps after each block."""
    images, dates, valid = place
    found = {}
    with torch.inference_mode():
        for output in OUTPUTS:
            model.output = output
            found[output] = model(images, dates, valid)
        for norm in (False, True):
            maps = model.forward_intermediates(images, dates=dates, valid=valid, norm=norm)
            found |= {f"block {i}, norm {norm}": each for i, each in enumerate(maps)}
    return found


def by_place(found: dict[str, Tensor], b: int) -> Iterator[tuple[str, Tensor]]:
    return ((name, each[b]) for name, each in found.items() if name != "tokens")


@st.composite
def valid_groups(draw: st.DrawFn) -> Tensor:
    """bool [B, T, M], at least one group a place."""
    shape = [draw(st.integers(1, most)) for most in (3, 4, 3)]
    bits = draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    valid = torch.tensor(bits).view(shape)
    for b in range(shape[0]):
        t, m = draw(st.integers(0, shape[1] - 1)), draw(st.integers(0, shape[2] - 1))
        valid[b, t, m] = True
    return valid


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None)
@given(valid=valid_groups(), seed=SEEDS)
def test_a_place_gives_the_same_alone_and_among_others(
    mode: FusionMode, valid: Tensor, seed: int
) -> None:
    model = backbone(mode)
    batch = places(valid, seed)
    together = features(model, batch)
    for b in range(len(valid)):
        place, seasons, columns = alone(batch, b)
        expected = features(model, place)
        for name, found in by_place(together, b):
            torch.testing.assert_close(found, expected[name][0], **TOLERANCE)
        tokens = together["tokens"][b]
        kept = tokens[seasons][:, columns]
        there = valid[b]
        torch.testing.assert_close(
            kept[there[seasons][:, columns]], expected["tokens"][0][place[2][0]], **TOLERANCE
        )
        assert not tokens[~there].any()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10, deadline=None)
@given(valid=valid_groups(), value=st.sampled_from([0.0, 123.0, *POISON]), seed=SEEDS)
def test_padding_changes_nothing(mode: FusionMode, value: float, valid: Tensor, seed: int) -> None:
    model = backbone(mode)
    batch = places(valid, seed)
    before, after = features(model, batch), features(model, padded(batch, value))
    for name, expected in before.items():
        found = after[name]
        if name == "tokens":
            found = found[:, : valid.shape[1], : valid.shape[2]]
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
def test_one_image_gives_what_it_gives_as_one_of_two_seasons_and_modalities(
    mode: FusionMode,
) -> None:
    """The commonest call of all, without a mask, against the padded one."""
    model = backbone(mode)
    images, dates, _ = places(torch.ones(3, 1, 1, dtype=torch.bool), 0)
    valid = torch.zeros(3, 2, 2, dtype=torch.bool)
    valid[:, 1, 1] = True
    both, moved, _ = places(torch.ones(3, 2, 2, dtype=torch.bool), 1)
    order = {"s1grd": both["s1grd"], "s2l2a": both["s2l2a"]}
    order["s2l2a"][:, 1], moved[:, 1, 1] = images["s2l2a"][:, 0], dates[:, 0, 0]
    for output in OUTPUTS:
        model.output = output
        single, among = model(images, dates), model(order, moved, valid)
        if output == "tokens":
            single, among = single[:, 0, 0], among[:, 1, 1]
        torch.testing.assert_close(among, single, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
def test_order_chunks_and_threads_change_nothing(mode: FusionMode) -> None:
    model = backbone(mode)
    valid = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.6
    batch = places(valid, 0)
    order = [4, 2, 0, 5, 1, 3]
    images, dates, _ = batch
    shuffled = ({name: x[order] for name, x in images.items()}, dates[order], valid[order])
    expected = features(model, batch)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        on_others = features(model, batch)
    finally:
        torch.set_num_threads(threads)
    halves = [
        features(model, ({n: x[rows] for n, x in images.items()}, dates[rows], valid[rows]))
        for rows in (slice(0, 1), slice(1, 6))
    ]
    for name, each in expected.items():
        torch.testing.assert_close(features(model, shuffled)[name], each[order], **TOLERANCE)
        torch.testing.assert_close(on_others[name], each, **TOLERANCE)
        torch.testing.assert_close(torch.cat([h[name] for h in halves]), each, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
def test_seasons_at_the_end_do_not_move_a_window(mode: FusionMode) -> None:
    model = backbone(mode, window=1)
    valid = torch.ones(2, 3, 2, dtype=torch.bool)
    valid[0, 2] = valid[1, 1, 0] = False
    batch = places(valid, 0)
    before, after = features(model, batch), features(model, padded(batch, 0.0))
    torch.testing.assert_close(after["pooled"], before["pooled"], **TOLERANCE)
    expected = features(model, alone(batch, 0)[0])["pooled"][0]
    torch.testing.assert_close(before["pooled"][0], expected, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10, deadline=None)
@given(valid=valid_groups(), poison=st.sampled_from(POISON), seed=SEEDS)
def test_gradients_are_those_of_the_places_alone_whatever_invalid_groups_hold(
    mode: FusionMode, valid: Tensor, poison: float, seed: int
) -> None:
    model = backbone(mode)
    model.output = "pooled"
    images, dates, _ = batch = places(valid, seed)
    for m, name in enumerate(images):
        images[name][~valid[:, :, m]] = poison
    model(images, dates, valid).square().sum().backward()
    together = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    for b in range(len(valid)):
        place, _, _ = alone(batch, b)
        model(*place).square().sum().backward()
    for name, parameter in model.named_parameters():
        grad = together[name]
        if parameter.grad is None:  # of a modality that no place has
            assert grad is None or not grad.any(), name
            continue
        assert grad is not None
        assert grad.isfinite().all(), name
        scale = float(parameter.grad.abs().max().clamp(min=1.0))
        torch.testing.assert_close(grad / scale, parameter.grad / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("poison", POISON)
def test_pretraining_loses_nothing_to_what_is_not_valid(mode: FusionMode, poison: float) -> None:
    """Losses and gradients of a batch whose invalid groups hold anything, to the bit."""
    config = ModelConfig(
        width=32, depth=1, heads=2, image_size=SIZE, decoder_width=16, decoder_depth=1,
        decoder_heads=2, fusion=mode,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SeaMo(config, MODALITIES)
    missing = [(0, 0, 1), (1, 1, 0), (1, 1, 1), (1, 1, 2)]
    batch = make_batch(MODALITIES, size=SIZE, dtype=torch.float32, missing=missing)
    expected = loss_and_gradients(model, batch)
    bands = {name: [grids[0].clone()] for name, grids in batch.bands.items()}
    for b, t, m in missing:
        bands[NAMES[m]][0][b, t] = poison
    found = loss_and_gradients(model, replace(batch, bands=bands))
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert each.isfinite().all(), name
        assert torch.equal(found[name], each), name


def loss_and_gradients(model: SeaMo, batch: TileBatch) -> dict[str, Tensor]:
    model.zero_grad()
    total, by_modality = model(batch, make_views(batch, model.config))
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"total": total.detach(), **by_modality, **gradients}
