"""Which stored values were measured, by the rule of the modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data.checks import contact_sheet
from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.data.checks.suspicions import suspicions
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.measured import count_absurd, measured
from seamo_fast.modalities import Band, Modality, NodataRule

BANDS = (Band("A", 10), Band("B", 20), Band("C", 10))
PIXEL = Modality("x", BANDS, "dn", nodata=0, nodata_rule="pixel", composite=("A", "B", "C"))


def by_hand(modality: Modality, grids: list[np.ndarray]) -> list[np.ndarray]:
    """The definition, one value after the other."""

    def known(value: float) -> bool:
        return bool(abs(float(value)) <= modality.limit) and value != modality.nodata

    found = []
    for grid in grids:
        _, height, width = grid.shape
        result = np.zeros(grid.shape, bool)
        for c, y, x in np.ndindex(grid.shape):
            result[c, y, x] = known(grid[c, y, x])
            if modality.nodata_rule == "pixel" and abs(float(grid[c, y, x])) <= modality.limit:
                for other in grids:
                    row = (2 * y + 1) * other.shape[1] // (2 * height)
                    column = (2 * x + 1) * other.shape[2] // (2 * width)
                    result[c, y, x] |= any(map(known, other[:, row, column]))
        found.append(result)
    return found


@given(
    seed=st.integers(0, 2**31),
    sides=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float16", "float32", "float64"]),
    unit=st.sampled_from(["dn", "db"]),
    nodata=st.sampled_from([None, 0, 1, -1, 0.5, 60000]),
    rule=st.sampled_from(["band", "pixel"]),
)
@settings(max_examples=60, deadline=None)
def test_measured_equals_the_definition(
    seed: int, sides: list[int], dtype: str, unit: str, nodata: float | None, rule: NodataRule
) -> None:
    rng = np.random.default_rng(seed)
    shapes = (2, *sides[:2]), (1, *sides[2:])
    grids = [rng.integers(0, 2, shape).astype(dtype) for shape in shapes]
    if grids[0].dtype.kind == "f":
        for grid in grids:
            grid[rng.random(grid.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
    for grid in grids:  # beyond what decibels can be, or digital numbers too
        fill = {"uint8": 255, "int16": -32768, "uint16": 65535, "float16": -9999}.get(dtype, -3e38)
        grid[rng.random(grid.shape) < 0.2] = fill
    modality = replace(PIXEL, unit=unit, nodata=nodata, nodata_rule=rule)
    absurd = sum(
        int((np.isfinite(grid) & (abs(grid.astype(float)) > modality.limit)).sum())
        for grid in grids
    )
    filled = sum(int((grid == nodata).sum()) for grid in grids if (nodata or 0) > modality.limit)
    assert count_absurd(modality, grids) == absurd - filled
    for found, expected in zip(measured(modality, grids), by_hand(modality, grids), strict=True):
        np.testing.assert_array_equal(found, expected)
    leading = [np.stack([grid, grid])[:, None] for grid in grids]
    for found, expected in zip(measured(modality, leading), by_hand(modality, grids), strict=True):
        np.testing.assert_array_equal(found[1, 0], expected)


@pytest.mark.parametrize("rule", ["band", "pixel"])
def test_statistics_profiles_and_pictures_agree(rule: NodataRule) -> None:
    modality = replace(PIXEL, nodata_rule=rule)
    rng = np.random.default_rng(0)
    grids = [
        rng.integers(0, 4, (3, count, side, side)).astype(np.uint16)
        for count, side in ((2, 8), (1, 4))
    ]
    grids[0][0, :, :4], grids[1][0, :, :2] = 0, 0  # beside a swath
    valid = np.array([True, False, True])
    known = [[by_hand(modality, [grid[t] for grid in grids])[g] for t in (0, 2)] for g in (0, 1)]
    statistics, profile = BandStatistics(3), BandProfile(3)
    statistics.add(modality, grids, valid)
    profile.add(modality, grids, valid)
    for grid, array, there in zip(modality.grids, grids, known, strict=True):
        for position, channel in enumerate(grid.bands):
            values = array[valid, position][np.stack(there)[:, position]].astype(float)
            assert statistics.count[channel] == profile.moments.count[channel] == values.size
            assert statistics.mean[channel] == pytest.approx(values.mean())
            assert profile.minimum[channel] == values.min() == (0 if rule == "pixel" else 1)
            assert profile.unmeasured[channel] == 2 * array[0, 0].size - values.size
    image = contact_sheet.composite(modality, [grid[0] for grid in grids])
    np.testing.assert_array_equal(np.isnan(image[..., 0]), ~known[0][0][0])
    assert np.isnan(image[:4]).all()


@pytest.mark.parametrize("fill", [-3.4028235e38, 1e30, -9999.0])
def test_absurd_values_are_in_no_statistic_and_no_picture(fill: float) -> None:
    radar = Modality("r", (Band("VV", 10), Band("VH", 10)), "db", composite=("VV", "VH"))
    rng = np.random.default_rng(0)
    clean = rng.normal(-12, 4, (2, 2, 16, 16)).astype(np.float32)
    spoilt, lost = clean.copy(), rng.random(clean.shape) < 0.1
    spoilt[lost] = fill
    clean[lost] = np.nan
    both = []
    for values in (spoilt, clean):
        statistics, profile = BandStatistics(2), BandProfile(2)
        statistics.add(radar, [values], np.ones(2, bool))
        profile.add(radar, [values], np.ones(2, bool))
        images = [contact_sheet.composite(radar, [tile]) for tile in values]
        said = contact_sheet.facts(radar, [values[0]])
        both.append(
            (statistics.to_dict(), profile.to_dict(radar), np.stack(images).tobytes(), said)
        )
    assert both[0] == both[1]
    assert both[0][0]["count"] == (~lost).sum((0, 2, 3)).tolist()
    total = BandProfile(2)
    for _ in range(2):
        part = BandProfile(2)
        part.add(radar, [spoilt], np.array([True, False]))
        total.merge(part)
    assert total.absurd == 2 * lost[0].sum()
    (flag,) = suspicions(radar, total)
    assert flag == (
        f"{total.absurd} values ({lost[0].mean():.2%}) are beyond 9000, which no value in db can "
        "be, and count as not measured: is a nodata value missing?"
    )
