"""The judgement of units: silent for right values of any scene, clear where they are impossible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from seamo_fast.modalities import Modality, get_modality
from seamo_fast.units import Look, complaint, doubt_unit, doubt_values

V10, V11 = "ssl4eo-s12-v1.0", "ssl4eo-s12-v1.1"
L2A, L1C = get_modality("s2l2a"), get_modality("s2l1c")
DN = {f"{name} {release}": get_modality(name, release) for name in ("s2l2a", "s2l1c")
      for release in (V10, V11)}  # fmt: skip
DB = {f"s1grd {release}": get_modality("s1grd", release) for release in (V10, V11)}
RGB = get_modality("rgb").with_statistics((90.0, 95.0, 100.0), (40.0, 30.0, 20.0), "test")
REFLECTANCE = replace(L2A, unit="reflectance", scale=1.0, nodata=None).with_statistics(
    [m / 1e4 for m in L2A.mean or ()], [s / 1e4 for s in L2A.std or ()], "test"
)
RADAR = get_modality("s1grd")
LANDSAT = get_modality("landsat89").with_statistics(
    (8000.0, 8300.0, 9300.0, 9600.0, 15500.0, 13000.0, 11000.0), (1200.0,) * 7, "test"
)
ALL = {**DN, **DB, "rgb": RGB, "reflectance": REFLECTANCE, "landsat": LANDSAT}


def drawn(modality: Modality, seed: int = 0, count: int = 400) -> np.ndarray:
    """Values [C, count], normal with the modality's statistics."""
    assert modality.mean is not None
    assert modality.std is not None
    rng = np.random.default_rng(seed)
    mean, std = (np.array(each)[:, None] for each in (modality.mean, modality.std))
    return rng.normal(mean, std, (len(mean), count))


def stored(modality: Modality, seed: int = 0) -> np.ndarray:
    """As `drawn`, but as a product has them: digital numbers are whole and above 0."""
    values = drawn(modality, seed)
    limits = {"dn": (1, 65535), "uint8": (0, 255), "reflectance": (0.0001, 2), "db": (-60, 30)}
    values = values.clip(*limits[modality.unit])
    return values.round() if modality.unit in ("dn", "uint8") else values


def look(values: np.ndarray) -> Look:
    """What values [C, n] look like; NaN are not measured."""
    measured = np.isfinite(values)
    known = np.ma.array(values, mask=~measured)
    return Look(
        count=measured.sum(1),
        low=known.min(1).filled(np.inf),
        high=known.max(1).filled(-np.inf),
        mean=known.mean(1).filled(0),
        std=known.std(1).filled(0),
        whole=bool((known == known.round()).all()),
        lost=int((~measured).sum()),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("modality", ALL.values(), ids=ALL)
def test_a_modalitys_own_values_are_right(modality: Modality, seed: int) -> None:
    assert doubt_values(modality, look(drawn(modality, seed))) is None
    assert doubt_values(modality, look(drawn(modality, seed, count=16))) is None
    assert doubt_unit(modality, look(stored(modality, seed))) is None


def normalised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)


Change = Callable[[np.ndarray], np.ndarray]
WRONG: dict[str, tuple[dict[str, Modality], Change, str]] = {
    "reflectance for dn": (DN, lambda v: v / 1e4, "look like reflectance"),
    "less than 1 for dn": (DN, lambda v: v / v.max(), "look like reflectance"),
    "uint8 for dn": (DN, lambda v: (v / 1e4 * 255).clip(0, 255).round(), "scaled to 0 to 255"),
    "stretched uint8 for dn": (DN, lambda v: v / v.max() * 255, "scaled to 0 to 255"),
    "normalised for dn": (DN, normalised, "look normalised already"),
    "decibels for dn": (DN, lambda v: v * 0 + drawn(RADAR, 1)[:1], "look like decibels"),
    "NaN for dn": (DN, lambda v: v * np.nan, "are NaN or infinite"),
    "dn for reflectance": ({"": REFLECTANCE}, lambda v: v * 1e4, "look like digital numbers"),
    "normalised for reflectance": ({"": REFLECTANCE}, normalised, "look normalised already"),
    "linear for db": (DB, lambda v: 10 ** (v / 10), "look like linear backscatter"),
    "amplitude for db": (DB, lambda v: 1e4 * 10 ** (v / 20), "digital numbers or amplitudes"),
    "hundredfold for db": (DB, lambda v: (v * 100).round(), "look like decibels times 100"),
    "whole db": (DB, np.trunc, "are decibels cut to whole numbers"),
    "normalised for db": (DB, normalised, "look normalised already"),
    "NaN for db": (DB, lambda v: v * np.nan, "are NaN or infinite"),
    "0 to 1 for uint8": ({"": RGB}, lambda v: v / 255, "look like numbers from 0 to 1"),
    "normalised for uint8": ({"": RGB}, normalised, "look normalised already"),
    "dn for uint8": ({"": RGB}, lambda v: v * 30, "do not fit"),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", WRONG)
def test_another_unit_is_named(case: str, seed: int) -> None:
    modalities, change, looks = WRONG[case]
    for modality in modalities.values():
        found = doubt_values(modality, look(change(stored(modality, seed))))
        assert found is not None, modality
        assert looks in found.looks


TURBID = np.array([0.7, 0.9, 1.4, 2.2, 2.5, 2, 2, 1.7, 1.6, 1.3, 1, 1])[:, None]


def water(seed: int, level: float | np.ndarray = 1.0) -> np.ndarray:
    """Open water in Sentinel-2 L2A: dark, the darker the longer the wave."""
    rng = np.random.default_rng(seed)
    bands = np.array([210, 190, 140, 80, 60, 40, 40, 35, 30, 30, 20, 15])[:, None] * level
    return rng.normal(bands, 0.1 * bands + 3, (12, 400)).clip(1).round()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("modality", "scene"),
    [
        (L2A, water),
        (L2A, lambda seed: water(seed, 0.6)),
        (L2A, lambda seed: water(seed, TURBID)),
        (L2A.subset(["B4", "B3", "B2"]), lambda seed: water(seed)[[3, 2, 1]]),
        (L2A.subset(["B8", "B11", "B12"]), lambda seed: water(seed)[[7, 10, 11]]),
        (L2A.subset(["B8"]), lambda seed: water(seed)[[7]]),
        (get_modality("s2l2a", V11), lambda seed: water(seed) + 1000),
        (get_modality("s2l2a", V11), lambda seed: stored(L2A, seed)),  # without the offset
        (L2A, lambda seed: stored(get_modality("s2l2a", V11), seed)),  # with it
        (L2A, lambda seed: 8 * stored(L2A, seed)),  # clouds
        (L2A, lambda seed: np.full((12, 400), 65535.0) - water(seed)),  # saturated snow
        (RADAR, lambda seed: drawn(RADAR, seed) / 3 - 15),  # calm water
        (RADAR, lambda seed: drawn(RADAR, seed) / 2 + 12),  # a town
        (REFLECTANCE, lambda seed: drawn(REFLECTANCE, seed).clip(-0.03) * 3),
        (RGB, lambda seed: drawn(RGB, seed).clip(0, 2).round()),  # night
    ],
)
def test_unusual_scenes_are_right(
    modality: Modality, scene: Callable[[int], np.ndarray], seed: int
) -> None:
    assert doubt_values(modality, look(scene(seed))) is None


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3, -1.0, 5000.0])
@pytest.mark.parametrize("modality", ALL.values(), ids=ALL)
def test_one_number_says_nothing(modality: Modality, value: float) -> None:
    assert doubt_values(modality, look(np.full((len(modality.bands), 50), value))) is None


def test_nothing_measured_says_nothing_unless_it_is_nan() -> None:
    nothing = look(np.full((12, 9), np.nan))
    assert not replace(nothing, lost=0).says_something
    assert doubt_values(L2A, replace(nothing, lost=0)) is None
    assert nothing.says_something


def test_a_description_that_is_wrong_alike_is_left_to_stats() -> None:
    """Features are right where the statistics are, whatever the unit is called."""
    called_dn = replace(REFLECTANCE, unit="dn", scale=1e4)
    values = look(stored(REFLECTANCE))
    assert doubt_values(called_dn, values) is None
    found = doubt_unit(called_dn, values)
    assert found is not None
    assert found.advice == "give unit reflectance"


def test_missing_nodata_is_told_from_decibels_times_100() -> None:
    values = drawn(RADAR)
    values[:, ::30] = -9999
    for modality, numbers in ((RADAR, "decibels"), (replace(RADAR, unit="dn"), "digital numbers")):
        found = doubt_values(modality, look(values))
        assert found is not None
        assert found.looks == f"are no {numbers}"
        assert found.advice == "is a nodata value missing?"


def test_the_complaint_is_one_line_with_the_fix() -> None:
    modality = get_modality("s2l2a", V11)
    values = look(np.tile([0.02, 0.4], (12, 30)))
    found = doubt_values(modality, values)
    assert found is not None
    assert complaint(modality, values, found) == (
        "s2l2a: values 0.02 to 0.4, mean 0.21 look like reflectance, but the modality says unit "
        "dn, offset 1000, mean 1793.24 to 3711.07 by band, standard deviation 1160.14 to 1652.7 by "
        "band. Multiply by 10000 and add 1000; or describe the values as they are, in a Modality "
        "with their unit and statistics (SeaMoBackbone.adapt)"
    )
    values = look(np.full((12, 4), np.inf))
    found = doubt_values(replace(L2A, mean=None, std=None), values)
    assert found is not None
    assert complaint(replace(L2A, mean=None, std=None), values, found).startswith(
        "s2l2a: all 48 values looked at are NaN or infinite, but the modality says unit dn, "
        "offset 0. Look at how they are read and divided; or describe"
    )


BEYOND = {"dn": "digital numbers", "db": "decibels", "reflectance": "reflectance",
          "uint8": "numbers from 0 to 255"}  # fmt: skip


@pytest.mark.parametrize("fill", [-3.4028235e38, 9.97e36, 1e30])
@pytest.mark.parametrize("modality", ALL.values(), ids=ALL)
def test_values_that_no_unit_can_have_are_named(modality: Modality, fill: float) -> None:
    values = stored(modality)
    values[:, ::2] = fill
    for found in (
        doubt_unit(modality, look(values)),
        doubt_values(modality, look(values * 0 + fill)),
    ):
        assert found is not None
        assert found.looks == f"are no {BEYOND[modality.unit]}"
        assert found.advice == "is a nodata value missing?"


@pytest.mark.parametrize("modality", ALL.values(), ids=ALL)
def test_few_that_were_left_out_are_none_of_the_judgement(modality: Modality) -> None:
    seen = look(stored(modality))
    total = int(seen.count.sum())
    assert doubt_values(modality, replace(seen, absurd=total // 100)) is None
    found = doubt_values(modality, replace(seen, absurd=total // 50))
    assert found is not None
    assert found.looks == (
        f"leave out {total // 50} of {total + total // 50} that are no {BEYOND[modality.unit]}"
    )
