"""Values that no unit can have: every source packs, counts and leaves them out of statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing import radiometry
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.rules.lost import any_measured, check_bands, fullest
from seamo_fast.modalities import Band, Modality, get_modality
from tests.data.packing.published import times_of, write_group, write_lmdb

FILLS = (-9999.0, -3.4028234663852886e38, 9.969209968386869e36)
RADAR = Modality("sar", (Band("VV", 10), Band("VH", 10)), "db")
MAPPING = {
    "name": "here",
    "seasons": 2,
    "modalities": {"sar": {"unit": "db", "gsd": 10, "bands": {"VV": "vv", "VH": "vh"}}},
}
Write = Callable[[np.ndarray], None]


def decibels(side: int, fills: tuple[float, ...] = FILLS, dtype: str = "float32") -> np.ndarray:
    """[2, 2, side, side] of two dates; the second has fill values in VH."""
    values = np.random.default_rng(0).normal(-15, 5, (2, 2, side, side)).astype(dtype)
    for number, fill in enumerate(fills):
        values[1, 1, number, 2 : 4 + number] = fill
    return values


def ssl4eo(root: Path, write_tile: Callable[..., Path]) -> tuple[np.ndarray, str]:
    values = decibels(264)
    for day, tile in zip(("20200604", "20200813"), values, strict=True):
        bands = dict(zip(("VV", "VH"), tile, strict=True))
        folder = write_tile(root / "in", "s1grd", "0000200", day, bands)
    return values, str(folder.relative_to(root / "in"))


def images(root: Path) -> tuple[np.ndarray, str]:
    values = decibels(24)
    (root / "in").mkdir()
    for day, tile in zip(("20200604", "20200813"), values, strict=True):
        for name, band in zip(("VV", "VH"), tile, strict=True):
            tifffile.imwrite(root / "in" / f"p_{day}_{name}.tif", band)
    settings = MAPPING["modalities"]["sar"] | {  # type: ignore[index, operator]
        "files": r"(?P<place>\w)_(?P<date>\d{8})_(?P<band>V.)\.tif",
        "bands": {"VV": "VV", "VH": "VH"},
    }
    mapping = {**MAPPING, "format": "geotiff", "modalities": {"sar": settings}}
    (root / "m.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    return values, "p sar 2020-08-13"


def cube(root: Path, write_cube: Callable[..., None]) -> tuple[np.ndarray, str]:
    values = decibels(24)
    write_cube(root / "in" / "p.nc", {"vv": values[:, 0], "vh": values[:, 1]})
    (root / "m.yaml").write_text(yaml.safe_dump({**MAPPING, "format": "netcdf"}, sort_keys=False))
    return values, "p.nc sar 2020-08-31"


def zarr(root: Path) -> tuple[np.ndarray, str]:
    path = root / "in" / "S1GRD" / "a.zarr.zip"
    path.parent.mkdir(parents=True)
    values = decibels(12, (-9999.0, -32768.0, 6e4), "float16")
    write_group(path, "s1grd", values[None], times_of("2020-01-01", 2)[None], ["0000007"])
    return values, "a.zarr.zip s1grd 0000007 time 1"


def database(root: Path) -> tuple[np.ndarray, str]:
    values = decibels(8)
    write_lmdb(root / "in", [[values]])
    return values, "0 s1grd season 1"


@pytest.mark.parametrize("kind", ["ssl4eo", "images", "cube", "zarr", "database"])
def test_every_source_counts_them(
    kind: str,
    tmp_path: Path,
    write_tile: Callable[..., Path],
    write_cube: Callable[..., None],
) -> None:
    extra = {"ssl4eo": [write_tile], "cube": [write_cube]}.get(kind, [])
    values, what = globals()[kind](tmp_path, *extra)
    mapping = {"mapping": str(tmp_path / "m.yaml")} if kind in ("images", "cube") else {}
    source = open_source(tmp_path / "in", seasons=2, **mapping)
    manifest = pack(source, tmp_path / "out")
    why = "9 values are beyond 9000, which no value in db can be"
    assert [tuple(each) for each in manifest.noted] == [(what, why, "nonfinite")]
    assert manifest.skipped == ()
    shards = ShardSet(tmp_path / "out")
    (modality,) = shards.modalities
    np.testing.assert_array_equal(shards.read(0).bands[modality.name][0], values)
    if kind in ("images", "cube"):  # the statistics are measured
        exact = np.where(np.abs(values.astype(float)) > 9e3, np.nan, values.astype(float))
        np.testing.assert_allclose(modality.mean, np.nanmean(exact, (0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(modality.std, np.nanstd(exact, (0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("fill", [*FILLS, 1e30])
def test_a_band_of_nothing_else_was_never_filled(fill: float) -> None:
    noise = np.random.default_rng(0).normal(-15, 5, (9, 9))
    flat = np.full((9, 9), fill)
    why = f"^band VV of sar was never filled: every pixel is NaN or absurd, such as {fill:.9g}$"
    for others in ([], [np.nan], [-1e35, np.nan]):
        flat[4, 1 : 1 + len(others)] = others
        with pytest.raises(TileError, match=why.replace("+", r"\+")) as caught:
            check_bands(RADAR, [np.stack([flat, noise])])
        assert caught.value.kind == "empty"
        assert check_bands(RADAR, [np.stack([flat, flat])]) == []  # others report it
        assert not any_measured([flat[None]], None, RADAR.limit)
    flat[5, 5] = -12
    assert check_bands(RADAR, [np.stack([flat, noise])]) == []
    assert any_measured([flat[None]], None, RADAR.limit)


def test_the_fullest_of_a_day_is_the_one_with_fewer_of_them() -> None:
    first, second = (decibels(24)[:1] for _ in range(2))
    first[0, 0, :4], second[0, 0, :2] = 1e30, np.nan
    found = [("a", [first[0]]), ("b", [second[0]])]
    assert fullest("x", found, None, RADAR.limit)[0] == 1
    assert fullest("x", found, None, 2e30)[0] == 0


def test_the_darkest_values_of_a_tile_are_digital_numbers() -> None:
    modality = get_modality("s2l2a").on_one_grid(10)
    tile = np.random.default_rng(0).integers(200, 4000, (1, 12, 32, 32)).astype(np.float32)
    spoilt = tile.copy()
    spoilt[:, 3] = np.where(np.random.default_rng(1).random((32, 32)) < 0.97, 1e30, spoilt[:, 3])
    without = tile.copy()
    without[:, 3] = np.where(spoilt[:, 3] == 1e30, np.nan, spoilt[:, 3])
    floors = radiometry._floors(modality, [spoilt])
    np.testing.assert_array_equal(floors, radiometry._floors(modality, [without]))
    assert np.isinf(floors).tolist() == [[band == 3 for band in range(12)]]  # too few to judge
