"""Acquisitions of one day, time axes that do not ascend, and dates that were paired too far."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import Reading, open_source
from seamo_fast.data.packing.sources.pairing import distant, season_slots
from seamo_fast.pack import main
from tests.data.conftest import tile_arrays
from tests.data.packing.published import FOLDERS, stored_bands, times_of, write_group

WriteTile = Callable[..., Path]
WriteCube = Callable[..., None]
DAYS = "days since 2020-01-01"


def mapping(path: Path, **settings: Any) -> str:
    modality = {"unit": "db", "gsd": 10, "bands": {"VV": "vv"}, **settings.pop("sar", {})}
    whole = {"name": "here", "format": "netcdf", "seasons": 2, "modalities": {"sar": modality}}
    path.write_text(yaml.safe_dump({**whole, **settings}, sort_keys=False))
    return str(path)


def steps(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(-12, 4, (count, 6, 5)).astype(np.float32)


def test_two_passes_of_a_day_by_the_command(tmp_path: Path, write_cube: WriteCube) -> None:
    values = steps(6)
    values[0, :2] = np.nan  # the second pass of 1 January is the fuller one
    times = [0.23, 0.74, 30.2, 60.2, 90.2, 120.2]
    write_cube(tmp_path / "in" / "p0.nc", {"vv": values}, DAYS, times)
    made = mapping(tmp_path / "m.yaml", step=2)
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--mapping", made]) == 0
    shards = ShardSet(tmp_path / "out")
    assert [tuple(each) for each in shards.manifest.noted] == [
        (
            "p0.nc sar 2020-01-01",
            "2 acquisitions of one day: time 1 is taken, time 0 left out",
            "same-day",
        )
    ]
    assert shards.manifest.skipped == ()
    assert len(shards) == 3  # five days
    np.testing.assert_array_equal(shards.read(0).bands["sar"][0][:, 0], values[[1, 3]])
    np.testing.assert_array_equal(shards.read(2).bands["sar"][0][:, 0], values[[3, 5]])


def test_the_first_of_equals_is_taken(tmp_path: Path, write_cube: WriteCube) -> None:
    values = steps(4)
    write_cube(tmp_path / "p.nc", {"vv": values}, DAYS, [40.9, 40.1, 0.5, 40.5])
    source = open_source(tmp_path / "p.nc", mapping=mapping(tmp_path / "m.yaml"))
    (reading,) = source.read("p.nc")
    assert reading.dates["sar"] == [date(2020, 1, 1), date(2020, 2, 10)]
    np.testing.assert_array_equal(reading.arrays["sar"][0][:, 0], values[[2, 1]])
    (remark,) = reading.noted
    assert remark.why == "3 acquisitions of one day: time 1 is taken, time 3, time 0 left out"


def test_a_pass_that_cannot_be_used_leaves_the_other(tmp_path: Path, write_cube: WriteCube) -> None:
    values = steps(3)
    values[0] = np.nan
    write_cube(tmp_path / "p.nc", {"vv": values}, DAYS, [0.1, 0.9, 40])
    source = open_source(tmp_path / "p.nc", mapping=mapping(tmp_path / "m.yaml"))
    (reading,) = source.read("p.nc")
    np.testing.assert_array_equal(reading.arrays["sar"][0][:, 0], values[1:])
    assert [tuple(each) for each in reading.noted] == [
        ("p.nc sar 2020-01-01 (time 0)", "only 0% of the pixels measured", "unmeasured")
    ]


def test_times_that_do_not_ascend_are_sorted_by_the_command(
    tmp_path: Path, write_cube: WriteCube
) -> None:
    values = steps(6)
    write_cube(tmp_path / "in" / "p.nc", {"vv": values}, DAYS, [60, 0, 30, 120, 90, 150])
    made = mapping(tmp_path / "m.yaml", step=2)
    options = ["--mapping", made, "--strict", "true"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    shards = ShardSet(tmp_path / "out")
    first = shards.read(0)
    np.testing.assert_array_equal(first.bands["sar"][0][:, 0], values[[1, 0]])
    assert (first.dates[:, 0] - first.dates[0, 0]).tolist() == [0, 60]
    np.testing.assert_array_equal(shards.read(3).bands["sar"][0][:, 0], values[[4, 5]])


def test_a_date_axis_that_cannot_be_read_is_of_its_kind(
    tmp_path: Path, write_cube: WriteCube
) -> None:
    write_cube(tmp_path / "in" / "a.nc", {"vv": steps(2)}, DAYS, [0, 30])
    write_cube(tmp_path / "in" / "b.nc", {"vv": steps(2)}, "months since 2020-01-01", [0, 1])
    manifest = pack(
        open_source(tmp_path / "in", mapping=mapping(tmp_path / "m.yaml")), tmp_path / "out"
    )
    (remark,) = manifest.skipped
    assert (remark.what, remark.kind) == ("b.nc", "date")
    assert "since months and years differ in length" in remark.why


def write_images(root: Path, values: dict[str, np.ndarray]) -> None:
    root.mkdir(parents=True)
    for name, image in values.items():
        tifffile.imwrite(root / name, image)


GEOTIFF = {"format": "geotiff", "sar": {"bands": {"VV": 1}, "files": r"s1_([0-9T]+)\.tif"}}


def test_images_of_one_day(tmp_path: Path) -> None:
    values = steps(3)
    values[1, 0] = np.nan
    names = ("s1_20200304T100000.tif", "s1_20200304T050000.tif", "s1_20200603T100000.tif")
    write_images(tmp_path / "in" / "p", dict(zip(names, values, strict=True)))
    source = open_source(tmp_path / "in", mapping=mapping(tmp_path / "m.yaml", **GEOTIFF))
    (reading,) = source.read("p")
    assert reading.dates["sar"] == [date(2020, 3, 4), date(2020, 6, 3)]
    np.testing.assert_array_equal(reading.arrays["sar"][0][:, 0], values[[0, 2]])
    assert [tuple(each) for each in reading.noted] == [
        (
            "p sar 2020-03-04",
            f"2 acquisitions of one day: {names[0]} is taken, {names[1]} left out",
            "same-day",
        )
    ]


def test_bands_of_one_day_with_times_of_their_own_are_one_tile(tmp_path: Path) -> None:
    values = steps(2)
    names = ("p_20200304T100000_VV.tif", "p_20200304T100004_VH.tif")
    write_images(tmp_path / "in", dict(zip(names, values, strict=True)))
    sar = {
        "bands": {"VV": "VV", "VH": "VH"},
        "files": r"(?P<place>\w)_(?P<date>\w+)_(?P<band>V\w)\.tif",
    }
    made = mapping(tmp_path / "m.yaml", format="geotiff", sar=sar, seasons=1)
    (reading,) = open_source(tmp_path / "in", mapping=made).read("p")
    np.testing.assert_array_equal(reading.arrays["sar"][0][0], values)
    assert (reading.noted, reading.skipped) == ([], [])


def test_days_of_the_year_by_the_command(tmp_path: Path) -> None:
    values = steps(2)
    names = ("s1_2018253T175901.tif", "s1_2018343.tif")
    write_images(tmp_path / "in" / "p", dict(zip(names, values, strict=True)))
    made = mapping(tmp_path / "m.yaml", **GEOTIFF)
    options = ["--mapping", made, "--strict", "true"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    days = ShardSet(tmp_path / "out").read(0).dates[:, 0].tolist()
    epoch = date(1970, 1, 1)
    assert days == [(date(2018, 9, 10) - epoch).days, (date(2018, 12, 9) - epoch).days]


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (r"s1_(?P<date>\d+)\.tif", []),
        (r"s1_(?P<day>\d\d)(?P<month>\d\d)(?P<year>\d{4})\.tif", [date(2018, 9, 10)]),
        (r"s1_(?P<month>\d\d)(?P<day>\d\d)(?P<year>\d{4})\.tif", [date(2018, 10, 9)]),
    ],
)
def test_the_mapping_says_what_an_ambiguous_date_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: str, seen: list[date]
) -> None:
    write_images(tmp_path / "in", {"s1_10092018.tif": steps(1)[0], "s1_nothing.tif": steps(1)[0]})
    sar = {"bands": {"VV": 1}, "files": files}
    settings = {"format": "geotiff", "sample": "all", "place": "all", "seasons": 1, "sar": sar}
    made = mapping(tmp_path / "m.yaml", **settings)
    if seen:
        (reading,) = open_source(tmp_path / "in", mapping=made).read("all")
        assert reading.dates["sar"] == seen
        return
    assert main(["--check", str(tmp_path / "in"), "--mapping", made]) == 2
    meanings = "it could mean 2018-09-10 (DDMMYYYY) or 2018-10-09 (MMDDYYYY)"
    assert meanings in capsys.readouterr().err


def test_two_acquisitions_of_a_day_of_ssl4eo(tmp_path: Path, write_tile: WriteTile) -> None:
    first = write_tile(tmp_path / "in", "s2l2a", "0000200", "20200604")
    write_tile(tmp_path / "in", "s2l2a", "0000200", "20200813")
    arrays = tile_arrays("s2l2a", 7)
    second = first.with_name("20200604T054639_T43RDP")
    second.mkdir()
    for band, values in arrays.items():
        tifffile.imwrite(second / f"{band}.tif", values, planarconfig="separate")
    values = tifffile.imread(first / "B2.tif")
    values[:9] = 0
    tifffile.imwrite(first / "B2.tif", values, planarconfig="separate")
    pack(open_source(tmp_path / "in"), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert [tuple(each) for each in shards.manifest.noted] == [
        (
            "0000200 s2l2a 2020-06-04",
            f"2 acquisitions of one day: {second.name} is taken, {first.name} left out",
            "same-day",
        )
    ]
    sample = shards.read(0)
    assert sample.valid[:, 0].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(sample.bands["s2l2a"][0][0, 0], arrays["B2"])
    (second / "B3.tif").unlink()
    (reading,) = open_source(tmp_path / "in").read("0000200")
    np.testing.assert_array_equal(reading.arrays["s2l2a"][0][0, 0], values)
    assert ([each.kind for each in reading.skipped], reading.noted) == (["missing"], [])


def write_one(root: Path, name: str, bands: np.ndarray, times: np.ndarray) -> None:
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    write_group(folder / "a.zarr.zip", name, bands[None], times[None], ["0000007"])


def test_two_times_of_a_day_in_zarr(tmp_path: Path) -> None:
    bands = stored_bands("s2l2a", 0, (4,))
    bands[0, :, :3] = 0
    times = times_of("2020-01-01T05:00", 4)
    times[3] = times[0] + np.timedelta64(6, "h")
    write_one(tmp_path, "s2l2a", bands, times)
    (reading,) = open_source(tmp_path).read("a.zarr.zip")
    assert reading.valid["s2l2a"] == [True, True, True, False]
    np.testing.assert_array_equal(reading.arrays["s2l2a"][0][:3], bands[[3, 1, 2]])
    assert [tuple(each) for each in reading.noted] == [
        (
            "a.zarr.zip s2l2a 0000007 2020-01-01",
            "2 acquisitions of one day: time 3 is taken, time 0 left out",
            "same-day",
        )
    ]


def pairings(reading: Reading) -> list[tuple[str, str]]:
    assert all(each.kind == "pairing" for each in reading.noted)
    return [(each.what, each.why) for each in reading.noted]


def test_a_pairing_across_seasons_of_ssl4eo(tmp_path: Path, write_tile: WriteTile) -> None:
    for day in ("20200101", "20200401", "20200701"):
        write_tile(tmp_path, "s2l2a", "0000200", day)
    write_tile(tmp_path, "s1grd", "0000200", "20200516")  # 45 days from one, 46 from the other
    (reading,) = open_source(tmp_path).read("0000200")
    assert pairings(reading) == []
    write_tile(tmp_path, "s1grd", "0000200", "20200821")
    (reading,) = open_source(tmp_path).read("0000200")
    assert pairings(reading) == [
        (
            "0000200 s1grd 2020-08-21",
            "paired with s2l2a 2020-07-01, 51 days apart; half a season is 45.5",
        )
    ]
    assert reading.valid["s1grd"] == [False, True, True, False]


def test_a_pairing_across_seasons_of_zarr(tmp_path: Path) -> None:
    write_one(tmp_path, "s2l2a", stored_bands("s2l2a", 0, (3,)), times_of("2020-01-01", 3, 30))
    write_one(tmp_path, "s1grd", stored_bands("s1grd", 0, (1,)), times_of("2020-03-20", 1))
    (reading,) = open_source(tmp_path).read("a.zarr.zip")
    assert pairings(reading) == [
        (
            "0000007 s1grd 2020-03-20",
            "paired with s2l2a 2020-03-01, 19 days apart; half a season is 15",
        )
    ]


@pytest.mark.parametrize(("day", "apart"), [("20200216", 46), ("20200215", 45)])
def test_a_pairing_of_single_images(tmp_path: Path, day: str, apart: int) -> None:
    write_images(tmp_path / "in" / "p", {"s1_20200101.tif": steps(1)[0]})
    tifffile.imwrite(tmp_path / "in" / "p" / f"s2_{day}.tif", steps(2)[1])
    made = {"unit": "db", "gsd": 10, "bands": {"VV": 1}}
    modalities = {name: {**made, "files": rf"{name}_(\d+)\.tif"} for name in ("s1", "s2")}
    settings = {"format": "geotiff", "seasons": 1, "pairing": "seasons", "modalities": modalities}
    file = mapping(tmp_path / "m.yaml", **settings)
    (reading,) = open_source(tmp_path / "in", mapping=file).read("p")
    expected = (
        f"p s2 2020-02-{day[-2:]}",
        f"paired with s1 2020-01-01, {apart} days apart; half a season is 45.5",
    )
    assert pairings(reading) == [expected] * (apart > 45.5)


def test_half_a_season_is_the_median_of_the_anchor() -> None:
    dates = {
        "a": [date(2020, 1, 1), date(2020, 1, 11), date(2020, 2, 10), date(2020, 12, 1)],
        "b": [date(2020, 1, 27), date(2020, 11, 16), date(2020, 12, 16)],
    }
    found = distant("p", dates, season_slots(dates, 4))
    assert [each.what for each in found] == ["p b 2020-01-27", "p b 2020-11-16"]
    assert found[0].why == "paired with a 2020-01-11, 16 days apart; half a season is 15"
    assert distant("p", {"a": [], "b": []}, {"a": [None], "b": [None]}) == []
