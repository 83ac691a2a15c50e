"""Which stored values were measured, by the rule of the modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data.checks import contact_sheet
from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.measured import measured
from seamo_fast.modalities import Band, Modality, NodataRule

BANDS = (Band("A", 10), Band("B", 20), Band("C", 10))
PIXEL = Modality("x", BANDS, "dn", nodata=0, nodata_rule="pixel", composite=("A", "B", "C"))


def by_hand(modality: Modality, grids: list[np.ndarray]) -> list[np.ndarray]:
    """The definition, one value after the other."""

    def known(value: float) -> bool:
        return bool(np.isfinite(value)) and value != modality.nodata

    found = []
    for grid in grids:
        _, height, width = grid.shape
        result = np.zeros(grid.shape, bool)
        for c, y, x in np.ndindex(grid.shape):
            result[c, y, x] = known(grid[c, y, x])
            if modality.nodata_rule == "pixel" and np.isfinite(grid[c, y, x]):
                for other in grids:
                    row = (2 * y + 1) * other.shape[1] // (2 * height)
                    column = (2 * x + 1) * other.shape[2] // (2 * width)
                    result[c, y, x] |= any(map(known, other[:, row, column]))
        found.append(result)
    return found


@given(
    seed=st.integers(0, 2**31),
    sides=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float16", "float32"]),
    nodata=st.sampled_from([None, 0, 1, -1, 0.5, 60000]),
    rule=st.sampled_from(["band", "pixel"]),
)
@settings(max_examples=60, deadline=None)
def test_measured_equals_the_definition(
    seed: int, sides: list[int], dtype: str, nodata: float | None, rule: NodataRule
) -> None:
    rng = np.random.default_rng(seed)
    shapes = (2, *sides[:2]), (1, *sides[2:])
    grids = [rng.integers(0, 2, shape).astype(dtype) for shape in shapes]
    if grids[0].dtype.kind == "f":
        for grid in grids:
            grid[rng.random(grid.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
    modality = replace(PIXEL, nodata=nodata, nodata_rule=rule)
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
