"""Orientation, mixup and cutmix against numpy, and how often each happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Band, Modality
from seamo_fast.randomness import generator
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.augment import Mixing, orientation, oriented

PLAIN = Modality("x", (Band("A", 10), Band("B", 20)), "dn")
ABSENT = Modality("y", (Band("A", 10), Band("B", 10)), "dn", nodata=0.0, nodata_rule="pixel")
BANDED = Modality("z", (Band("A", 10), Band("B", 10)), "dn", nodata=-9999.0)
SYMMETRIES = {
    "none": [lambda a: a],
    "flips": [lambda a: a, np.fliplr, np.flipud, lambda a: np.rot90(a, 2)],
    "turns": [
        lambda a, k=k, f=f: np.rot90(f(a), k) for k in range(4) for f in (np.array, np.fliplr)
    ],
}


@pytest.mark.parametrize(
    ("kind", "square"), [("none", True), ("flips", True), ("turns", True), ("turns", False)]
)
def test_each_symmetry_is_drawn_equally_often(kind: Any, square: bool) -> None:
    image = torch.arange(16 if square else 12).view(4, -1).to(torch.uint16)
    expected = SYMMETRIES[kind if square else "flips"]
    rng = generator(0, "test")
    found = [oriented(image, orientation(rng, kind, square)).tolist() for _ in range(1600)]
    counts = [found.count(np.asarray(each(image.numpy())).tolist()) for each in expected]
    assert sum(counts) == 1600
    assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_leading_axes_are_oriented_alike() -> None:
    image = torch.rand(2, 3, 5, 5)
    for code in range(8):
        for t in range(2):
            for c in range(3):
                assert torch.equal(oriented(image, code)[t, c], oriented(image[t, c], code))


def mix(
    images: dict[str, Tensor],
    modalities: list[Modality],
    partners: list[int],
    valid: Tensor | None = None,
    **strengths: float,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    B, T = next(iter(images.values())).shape[:2]
    valid = torch.ones(B, T, len(images), dtype=torch.bool) if valid is None else valid
    before = {name: image.clone() for name, image in images.items()}
    rngs = [generator(3, "mix", row) for row in range(B)]
    found = Mixing("classes", modalities, **strengths)(images, valid, torch.eye(B), partners, rngs)
    assert all(torch.equal(before[name].nan_to_num(), images[name].nan_to_num()) for name in images)
    return found


def levels(count: int, side: int = 40) -> Tensor:
    """Images [B, 2, 2, side, side] of one value each: 100, 200, ..."""
    return (torch.arange(count) + 1.0)[:, None, None, None, None].expand(-1, 2, 2, side, side) * 100


@pytest.mark.parametrize("a", [0.2, 1.0, 4.0])
def test_mixup_is_a_weighted_sum_whose_weights_are_the_labels(a: float) -> None:
    B = 400
    images = {"x": levels(B, 2) + torch.arange(8.0).view(2, 2, 2, 1).expand(2, 2, 2, 2)}
    partners = [row ^ 1 for row in range(B)]
    found, valid, target = mix(images, [PLAIN], partners, mixup=a)
    own = target.diagonal().double().numpy()
    np.testing.assert_allclose(target.sum(dim=1), 1, rtol=1e-6)
    assert set(np.nonzero(target.numpy())[1].tolist()) <= set(range(B))
    stored = images["x"].double().numpy()
    weight = own[:, None, None, None, None]
    np.testing.assert_allclose(
        found["x"].double().numpy(), weight * stored + (1 - weight) * stored[partners], rtol=1e-5
    )
    assert valid.all()
    assert stats.kstest(own, stats.beta(a, a).cdf).pvalue > 1e-3


def test_cutmix_pastes_a_box_whose_area_is_the_label() -> None:
    B = 400
    partners = [row ^ 1 for row in range(B)]
    images = {"x": levels(B)}
    found, _, target = mix(images, [PLAIN], partners, cutmix=1.0)
    pasted = found["x"] != images["x"]
    assert (pasted == pasted[:, :1, :1]).all()  # in all seasons and bands alike
    for row, other in enumerate(partners):
        box = pasted[row, 0, 0].numpy()
        assert (found["x"][row, 0, 0].numpy()[box] == 100.0 * (other + 1)).all()
        rows, columns = np.nonzero(box.any(axis=1))[0], np.nonzero(box.any(axis=0))[0]
        assert box.sum() == len(rows) * len(columns)
        assert len(rows) == 0 or (np.ptp(rows), np.ptp(columns)) == (
            len(rows) - 1,
            len(columns) - 1,
        )
        assert target[row, other].item() == pytest.approx(box.mean())
        assert target[row, row].item() == pytest.approx(1 - box.mean())
    inside = pasted[:, 0, 0].float().mean(dim=0)
    assert inside[20, 20] > inside[0, 0] > 0  # boxes are cut at the edges
    # sides sqrt(1 - share) around uniform centres, cut at the edges (Yun et al., section 3.1)
    rng = np.random.default_rng(0)
    half, centres = rng.random(100_000) ** 0.5 / 2, rng.random((2, 100_000))
    areas = np.prod(np.minimum(centres + half, 1) - np.maximum(centres - half, 0), axis=0)
    error = areas.std() / B**0.5
    assert pasted[:, 0, 0].float().mean().item() == pytest.approx(areas.mean(), abs=4 * error)


def test_both_are_drawn_equally_often() -> None:
    B = 400
    images = {"x": levels(B, 16)}
    found, _, _ = mix(images, [PLAIN], [row ^ 1 for row in range(B)], mixup=1.0, cutmix=1.0)
    kinds = [len(each.unique()) for each in found["x"]]
    pure = sum(each[0, 0, 0, 0].item() % 100 == 0 for each in found["x"])
    assert 150 < pure < 250
    assert set(kinds) <= {1, 2}


@pytest.mark.parametrize(
    ("modality", "lost"),
    [(BANDED, -9999.0), (BANDED, torch.nan), (PLAIN, torch.nan), (PLAIN, 1e30)],
)
def test_a_pixel_that_either_lacks_is_lacking_in_mixup(modality: Modality, lost: float) -> None:
    images = {"z": levels(2, 4).clone()}
    modality = Modality.from_dict({**modality.to_dict(), "name": "z"})
    images["z"][0, 0, 1, 2, 3] = lost
    images["z"][1, 1, 0, 0, 0] = lost
    found, _, _ = mix(images, [modality], [1, 0], mixup=1.0)
    for row in range(2):
        lacking = found["z"][row].isnan().nonzero().tolist()
        assert lacking == [[0, 1, 2, 3], [1, 0, 0, 0]]


def test_a_band_may_be_nodata_where_the_pixel_is_not() -> None:
    images = {"y": levels(2, 4).clone()}
    images["y"][0, 0, 1, 2, 3] = 0.0  # a value: the other band has one
    images["y"][0, 0, :, 0, 0] = 0.0
    found, _, target = mix(images, [ABSENT], [1, 0], mixup=1.0)
    assert found["y"][0].isnan().nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]
    assert found["y"][0, 0, 1, 2, 3].item() == pytest.approx(200 * target[0, 1].item())


def test_what_was_not_measured_is_pasted_as_it_is() -> None:
    images = {"z": levels(2, 8).clone()}
    images["z"][1] = -9999.0
    found, _, target = mix(images, [Modality.from_dict({**BANDED.to_dict()})], [1, 0], cutmix=1.0)
    assert (found["z"][0] == -9999).float().mean().item() == pytest.approx(target[0, 1].item())
    assert 0 < target[0, 1] < 1


def test_groups_that_either_lacks_are_lacking_and_strangers_stay_apart() -> None:
    images = {"x": levels(4, 4), "y": levels(4, 4)}
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    valid[0, 1, 0] = valid[1, 0, 1] = False
    valid[2, :, 0] = valid[3, :, 1] = False  # nothing in common
    found, mixed, target = mix(images, [PLAIN, ABSENT], [1, 0, 3, 2], valid, mixup=1.0)
    assert mixed[:2].tolist() == [[[True, False], [False, True]]] * 2
    assert torch.equal(mixed[2:], valid[2:])
    assert torch.equal(target[2:], torch.eye(4)[2:])
    assert all(torch.equal(found[name][2:], images[name][2:]) for name in images)
    assert (target[:2].diagonal() < 1).all()


def test_a_window_without_a_partner_stays_as_it_is() -> None:
    images = {"x": levels(3, 4)}
    found, _, target = mix(images, [PLAIN], [1, 0, 2], mixup=1.0)
    assert torch.equal(found["x"][2], images["x"][2])
    assert target[2].tolist() == [0, 0, 1]


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_labels_of_pixels_and_strengths_below_0_are_refused(key: str) -> None:
    tasks: tuple[Task, ...] = ("mask", "change")
    for task in tasks:
        assert not Mixing(task, [PLAIN]).active
        with pytest.raises(ConfigError, match=f"{key} mixes labels of whole images.*leave --{key}"):
            Mixing(task, [PLAIN], **{key: 0.4})
    with pytest.raises(ConfigError, match=f"{key} must be at least 0 and finite, but got -1"):
        Mixing("classes", [PLAIN], **{key: -1})
