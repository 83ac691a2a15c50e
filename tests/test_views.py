"""Regions and masks: bounds, overlap, sharing, and independence from batching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.errors import ConfigError
from seamo_fast.views import ViewConfig, Views, overlap, sample

SIZES = {"seed": 0, "stage": 0, "seasons": 4, "modalities": 2, "num_patches": 64}


def draw(count: int, config: ViewConfig, **sizes: int) -> Views:
    return sample(range(count), [0] * count, config=config, **{**SIZES, **sizes})


def pairwise_overlap(boxes: torch.Tensor) -> np.ndarray:
    """Intersection over smaller area of every two seasons, written out pixel by pixel."""
    size = 400
    centres = (np.arange(size) + 0.5) / size
    results = []
    for sample_boxes in boxes.double().numpy():
        covers = []
        for top, left, height, width in sample_boxes:
            rows = (centres >= top) & (centres < top + abs(height))
            columns = (centres >= left) & (centres < left + abs(width))
            covers.append(rows[:, None] & columns)
        for i in range(len(covers)):
            for j in range(i):
                smaller = min(covers[i].sum(), covers[j].sum())
                results.append((covers[i] & covers[j]).sum() / smaller)
    return np.array(results)


rates = st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)).map(lambda pair: tuple(sorted(pair)))


@settings(max_examples=60, deadline=None)
@given(
    rate=rates,
    least=st.floats(0, 1),
    seasons=st.integers(1, 4),
    seed=st.integers(0, 2**63),
    mode=st.sampled_from(["partial", "same", "disjoint"]),
)
def test_every_region_keeps_its_promises(
    rate: tuple[float, float], least: float, seasons: int, seed: int, mode: str
) -> None:
    config = ViewConfig(mode=mode, crop_rate=rate, min_overlap=least)
    boxes = draw(8, config, seasons=seasons, seed=seed).boxes.double().numpy()
    extent = np.abs(boxes[..., 2:])
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., :2] + extent <= 1 + 1e-6).all()
    cells = np.ceil(np.sqrt(seasons)) if mode == "disjoint" else 1
    area = extent.prod(-1) * cells**2
    assert (area >= rate[0] - 1e-5).all()
    assert (area <= rate[1] + 1e-5).all()
    for first in range(seasons):
        for second in range(first):
            shared = overlap(boxes[:, first], boxes[:, second])
            if mode == "partial":
                assert (shared >= least - 1e-5).all()
            elif mode == "disjoint":
                assert (shared <= 1e-5).all()
            else:
                np.testing.assert_array_equal(boxes[:, first], boxes[:, second])


def test_overlap_equals_counted_pixels() -> None:
    config = ViewConfig(crop_rate=(0.2, 0.6), min_overlap=0.25, flip=True)
    boxes = draw(12, config).boxes
    counted = pairwise_overlap(boxes)
    double = boxes.double().numpy()
    computed = [
        overlap(double[b, i], double[b, j]) for b in range(12) for i in range(4) for j in range(i)
    ]
    np.testing.assert_allclose(counted, computed, atol=0.02)
    assert counted.min() >= 0.25 - 0.02


def test_default_rate_is_drawn_from_all_of_50_to_100_percent() -> None:
    boxes = draw(2000, ViewConfig()).boxes
    area = (boxes[..., 2] * boxes[..., 3]).abs().double().numpy().ravel()
    assert area.min() >= 0.5 - 1e-6
    assert area.max() <= 1 + 1e-6
    # Kolmogorov-Smirnov distance to the uniform distribution on [0.5, 1].
    ranks = np.sort(area)
    distance = np.abs((ranks - 0.5) * 2 - np.arange(1, ranks.size + 1) / ranks.size).max()
    assert distance < 1.95 / np.sqrt(ranks.size)


def test_partial_regions_differ_and_do_not_prefer_the_centre_without_need() -> None:
    boxes = draw(500, ViewConfig(min_overlap=0.3)).boxes.double()
    free = draw(500, ViewConfig(min_overlap=0.0)).boxes.double()
    # Two squares of at least half the area always share 0.34 of the smaller: nothing to move.
    torch.testing.assert_close(boxes, free)
    assert (boxes[:, 0] != boxes[:, 1]).any(-1).all()


def test_regions_are_moved_no_farther_than_needed() -> None:
    least = 0.6
    rate = (0.1, 0.3)
    free = draw(50, ViewConfig(crop_rate=rate, min_overlap=0)).boxes.double().numpy()
    moved = draw(50, ViewConfig(crop_rate=rate, min_overlap=least)).boxes.double().numpy()
    first, second = np.triu_indices(4, 1)
    apart = overlap(free[:, first], free[:, second]).min(axis=1) < least
    assert apart.sum() > 40
    np.testing.assert_array_equal(moved[~apart], free[~apart])
    closest = overlap(moved[:, first], moved[:, second]).min(axis=1)[apart]
    assert (closest < least + 1e-3).all()


def test_flips_are_drawn_per_season_and_axis() -> None:
    signs = draw(1000, ViewConfig()).boxes[..., 2:].sign()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    share = (signs < 0).float().mean((0,))
    assert ((share - 0.5).abs() < 0.06).all()
    assert (draw(100, ViewConfig(flip=False)).boxes[..., 2:] > 0).all()


@settings(max_examples=30, deadline=None)
@given(
    patches=st.integers(4, 80), ratio=st.floats(0.2, 0.8), fraction=st.floats(0.05, 1.0),
    shared=st.booleans(),
)  # fmt: skip
def test_visible_and_hidden_partition_the_patches(
    patches: int, ratio: float, fraction: float, shared: bool
) -> None:
    config = ViewConfig(mask_ratio=ratio, mask="shared" if shared else "independent")
    views = draw(3, config, num_patches=patches)
    both = torch.cat([views.visible, views.hidden], -1)
    assert both.dtype == torch.int32
    assert torch.equal(both.sort(-1).values, torch.arange(patches).int().expand_as(both))
    assert views.visible.shape[-1] == round(patches * (1 - ratio))
    assert (views.visible.diff(dim=-1) > 0).all()
    some = draw(3, replace(config, decode_fraction=fraction), num_patches=patches)
    assert torch.equal(some.visible, views.visible)
    assert some.hidden.shape[-1] == max(1, round(views.hidden.shape[-1] * fraction))
    for part, whole in zip(some.hidden.flatten(0, 2), views.hidden.flatten(0, 2), strict=True):
        assert set(part.tolist()) <= set(whole.tolist())


def test_masks_are_independent_or_shared() -> None:
    independent = draw(50, ViewConfig()).visible
    assert not torch.equal(independent[:, 0, 0], independent[:, 0, 1])
    assert not torch.equal(independent[:, 0, 0], independent[:, 1, 0])
    shared = draw(50, ViewConfig(mask="shared")).visible
    assert torch.equal(shared, shared[:, :1, :1].expand_as(shared))
    assert not torch.equal(shared[0], shared[1])


def test_every_patch_is_visible_equally_often() -> None:
    visible = draw(2000, ViewConfig(), num_patches=16).visible
    counts = torch.bincount(visible.flatten().long(), minlength=16)
    expected = visible.numel() / 16
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 50


def test_views_do_not_depend_on_batching_or_order() -> None:
    config = ViewConfig()
    whole = sample([5, 6, 7, 8], [0, 0, 1, 1], config=config, **SIZES)
    parts = [sample([i], [e], config=config, **SIZES) for i, e in zip([8, 5], [1, 0], strict=True)]
    for field in ("boxes", "visible", "hidden"):
        joined = torch.cat([getattr(part, field) for part in parts])
        assert torch.equal(getattr(whole, field)[[3, 0]], joined)


def test_views_change_with_seed_stage_epoch_and_sample() -> None:
    config = ViewConfig()
    base = sample([5], [0], config=config, **SIZES)
    for other in (
        sample([5], [0], config=config, **{**SIZES, "seed": 1}),
        sample([5], [0], config=config, **{**SIZES, "stage": 1}),
        sample([5], [1], config=config, **SIZES),
        sample([6], [0], config=config, **SIZES),
    ):
        assert not torch.equal(base.boxes, other.boxes)
        assert not torch.equal(base.visible, other.visible)


def test_empty_batch() -> None:
    views = sample([], [], config=ViewConfig(), **SIZES)
    assert views.boxes.shape == (0, 4, 4)
    assert views.visible.shape == (0, 4, 2, 16)
    assert views.hidden.shape == (0, 4, 2, 48)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "apart"}, "views.mode must be one of partial, same, disjoint, but got 'apart'"),
        ({"mask": "none"}, "views.mask must be one of independent, shared, but got 'none'"),
        ({"crop_rate": (0.8, 0.5)}, r"views.crop_rate must be .* but got \(0.8, 0.5\)"),
        ({"crop_rate": (0.0, 0.5)}, "views.crop_rate must be"),
        ({"min_overlap": 1.5}, r"views.min_overlap must be in \[0, 1\], but got 1.5"),
        ({"mask_ratio": 1.0}, r"views.mask_ratio must be in \(0, 1\), but got 1.0"),
        ({"decode_fraction": 0.0}, r"views.decode_fraction must be in \(0, 1\], but got 0.0"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewConfig(**settings)  # type: ignore[arg-type]


def test_a_ratio_that_hides_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves 0 of 4 patches visible"):
        draw(1, ViewConfig(mask_ratio=0.9), num_patches=4)
