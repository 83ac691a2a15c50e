"""Sentinel-2 with and without +1000: tiles are judged by their values, place and baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.packing.check import check
from seamo_fast.data.packing.offsets import JudgedTiles
from seamo_fast.data.packing.packer import Plan, pack_splits
from seamo_fast.data.packing.radiometry import is_judged, judge, subtract
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.base import product_baseline
from seamo_fast.data.shards import Manifest, Remark
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.pack import main
from seamo_fast.stats import main as stats
from tests.data.packing.published import FOLDERS, times_of, write_group
from tests.data.packing.test_packer import contents

L2A = get_modality("s2l2a")
L1C = get_modality("s2l1c")
V11 = get_modality("s2l2a", "ssl4eo-s12-v1.1")
EARLY, LATE = date(2021, 6, 1), date(2023, 6, 1)


def scene(
    name: str = "s2l2a", darkest: int = 100, seed: int = 0, side: int = 24, dtype: Any = np.uint16
) -> np.ndarray:
    """Bands [C, side, side]; half of band c is `darkest` + 15 c, the rest is brighter."""
    bands = len(get_modality(name).bands)
    base = (darkest + 15 * np.arange(bands))[:, None, None]
    values = base + np.random.default_rng(seed).integers(1, 4000, (bands, side, side))
    values[:, ::2] = base
    return values.astype(dtype)


def hazy(amounts: Sequence[int]) -> np.ndarray:
    """The dark scene under a cloud that adds another amount to each band."""
    return scene() + np.array(amounts, np.uint16)[:, None, None]


HAZE = [1450, 1250, 1050, 1000, 950, 900, 900, 900, 850, 850, 860, 660]  # scattering in the blue
CIRRUS_B10 = 10  # its place in L1C


def verdicts(
    name: str, tiles: Sequence[np.ndarray], dates: Sequence[date | None] = (), **options: Any
) -> str:
    modality = get_modality(name).on_one_grid(10)
    return judge(modality, [np.stack(tiles)], [True] * len(tiles), dates, **options).verdicts


def cirrus(value: int) -> np.ndarray:
    """Thick cloud in L1C, which B10 sees."""
    tile = scene("s2l1c", 5000)
    tile[CIRRUS_B10] = value
    return tile


# what a tile says by itself
@pytest.mark.parametrize(
    ("name", "tile", "verdict"),
    [
        ("s2l2a", scene(), "-"),
        ("s2l2a", scene(darkest=1100), "~"),
        ("s2l2a", scene(darkest=5000), "?"),
        ("s2l2a", scene(darkest=1300), "?"),
        ("s2l2a", scene(darkest=700), "?"),
        ("s2l2a", hazy(HAZE), "~"),
        ("s2l1c", scene("s2l1c"), "-"),
        ("s2l1c", scene("s2l1c", 1020), "+"),
        ("s2l1c", cirrus(12), "-"),
        ("s2l1c", cirrus(1020), "?"),
        ("s2l1c", cirrus(2000), "?"),
    ],
)
def test_a_tile_by_itself(name: str, tile: np.ndarray, verdict: str) -> None:
    for dtype in (np.uint16, np.int16, np.float32):
        assert verdicts(name, [tile.astype(dtype)]) == verdict


# what the other dates of its place say
@pytest.mark.parametrize(
    ("tiles", "dates", "expected"),
    [
        ([scene(darkest=1100), scene(darkest=1120, seed=1)], (EARLY, LATE), "++"),
        ([scene(), scene(darkest=1100)], (EARLY, LATE), "-+"),
        ([scene(), scene(darkest=1100)], (EARLY, EARLY), "-~"),
        ([scene(), scene(darkest=1100)], (LATE, EARLY), "-~"),
        ([scene(), scene(darkest=1100)], (None, None), "-~"),
        ([scene(), hazy(HAZE)], (EARLY, LATE), "-?"),
        ([scene(), scene(darkest=5000)], (EARLY, LATE), "-?"),
        ([scene(), scene(darkest=1100), scene(darkest=30)], (EARLY, LATE, EARLY), "-+-"),
    ],
)
def test_a_tile_among_those_of_its_place(
    tiles: list[np.ndarray], dates: tuple[date | None, ...], expected: str
) -> None:
    assert verdicts("s2l2a", tiles, dates) == expected


@pytest.mark.parametrize(
    ("dates", "expected"),
    [((EARLY, LATE), "-+"), ((EARLY, EARLY), "-~"), ((LATE, LATE), "-~"), ((), "-~")],
)
def test_even_cirrus_adds_alike_to_all_bands(dates: tuple[date | None, ...], expected: str) -> None:
    """Over a place that was dark without, so B10 is no proof by itself."""
    tiles = [scene("s2l1c", 20), scene("s2l1c", 1020)]
    assert verdicts("s2l1c", tiles, dates) == expected
    assert verdicts("s2l1c", tiles[1:], dates[1:]) == "+"


@pytest.mark.parametrize(
    ("baseline", "darkest", "verdict"),
    [(4.0, 1100, "+"), (5.1, 5000, "+"), (2.14, 1100, "?"), (4.0, 100, "-"), (None, 1100, "~")],
)
def test_the_baseline_decides_where_the_values_do_not(
    baseline: float | None, darkest: int, verdict: str
) -> None:
    assert verdicts("s2l2a", [scene(darkest=darkest)], baselines=[baseline]) == verdict


def test_a_baseline_is_no_proof_where_the_offset_was_removed_since() -> None:
    tiles = [scene(), scene(darkest=5000)]
    assert verdicts("s2l2a", tiles, baselines=[5.09, 5.09]) == "-?"
    assert verdicts("s2l2a", tiles, baselines=[3.0, 5.09]) == "-+"


def test_baselines_in_the_names_of_products() -> None:
    assert product_baseline("S2A_MSIL2A_20230613T101031_N0509_R022_T33UUP_75_43") == 5.09
    assert product_baseline("a/S2B_MSIL1C_20220125T101031_N0400_R022_T33UUP.SAFE/B1.tif") == 4.0
    assert product_baseline("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP") is None
    assert product_baseline("20200604T054639_20200604T054831_T43RCP") is None


def test_what_is_not_measured_says_nothing() -> None:
    """Zeros, the modality's nodata, NaN and groups that are not valid; nor do two odd pixels."""
    tile = scene(darkest=1100)
    tile[:, :10] = 0
    tile[:, 12, :2] = 5
    assert verdicts("s2l2a", [tile, tile]) == "++"
    floats = tile.astype(np.float32)
    floats[:, :10] = np.nan
    assert verdicts("s2l2a", [floats, floats]) == "++"
    other = Modality("s2", L2A.on_one_grid(10).bands, "dn", scale=10000, nodata=200)
    tile[:, :10] = 200
    judged = judge(other, [np.stack([tile, tile, scene()])], [True, True, False])
    assert judged.verdicts == "++."
    assert judged.floors == [1100, 1100, 0]
    nothing = np.zeros_like(tile)
    nothing[:, 0, 0] = 300  # measured, but alone
    assert verdicts("s2l2a", [nothing]) == "?"


def test_native_grids_are_judged_together() -> None:
    arrays = []
    for grid in L1C.grids:
        side = round(2640 / grid.gsd)
        arrays.append(np.full((2, len(grid.bands), side, side), 3500, np.uint16))
        if grid.gsd == 60:
            arrays[-1][:, grid.bands.index(CIRRUS_B10)] = np.array([1009, 9])[:, None, None]
        if grid.gsd == 10:
            arrays[-1][:, 0] = 1500
    judged = judge(L1C, arrays, [True, True])
    assert (judged.verdicts, judged.floors) == ("~-", [1009, 9])


def test_other_numbers_than_those_of_sentinel_2_are_not_judged() -> None:
    assert all(is_judged(each) for each in (L2A, L1C, V11))
    others = [get_modality(name) for name in ("s1grd", "landsat89", "planetscope", "rgb")]
    assert not any(is_judged(each) for each in others)
    assert not is_judged(Modality("x", L2A.bands, "reflectance"))
    assert not is_judged(Modality("x", L2A.bands, "dn"))  # of unknown scale


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_subtraction_keeps_what_is_measured_measured(dtype: Any) -> None:
    tile = np.array([0, 1, 999, 1000, 1001, 1002, 9000, 65535 % 40000], dtype)
    subtract(tile, 0)
    assert tile.tolist() == [0, 1, 1, 1, 1, 2, 8000, 24535]
    tile = np.array([0, 25535, 1500], dtype)
    subtract(tile, 25535)
    assert tile.tolist() == [0, 25535, 500]


def remarks_of(verdicts: str, modality: Modality) -> list[tuple[str, str]]:
    tiles = JudgedTiles(
        [str(n) for n in range(len(verdicts))], [None] * len(verdicts), verdicts,
        [1100 if each in "+~" else 100 for each in verdicts],
    )  # fmt: skip
    return [(each.what, each.why) for each in tiles.remarks(modality)]


def named(*numbers: int, seems: str = "seems") -> list[tuple[str, str]]:
    floor = 1100 if seems == "seems" else 100
    why = f"1000 {seems} to have been added: the darkest values are {floor}"
    return [(f"{n} s2l2a season 0", why) for n in numbers]


@pytest.mark.parametrize(
    ("verdicts", "modality", "summary", "names"),
    [
        ("----", L2A, None, []),
        ("---?", L2A, None, []),
        ("++~?", V11, None, []),
        ("-" * 20 + "~", L2A, None, []),  # thin cloud
        ("++++", L2A, "1000 seems to have been added to 4 of 4 tiles (Sentinel-2 since 2022, "
         "SSL4EO-S12 v1.1), but the offset is 0", []),
        ("----", V11, "1000 seems not to have been added to 4 of 4 tiles, but the offset is 1000",
         []),
        ("-+-~", L2A, "2 tiles have +1000 added and 2 have not, but the offset is 0 for all: pack "
         "them apart, or give --fix_offset", named(1, 3)),
        ("++-+?", L2A, "3 tiles have +1000 added and 1 have not (1 unclear), but the offset "
         "is 0 for all: pack them apart, or give --fix_offset", named(0, 1, 3)),
        ("+" * 12 + "-?", L2A, "12 tiles have +1000 added and 1 have not (1 unclear), but "
         "the offset is 0 for all: pack them apart, or give --fix_offset",
         named(12, seems="seems not")),
        ("+~-?", V11, "2 tiles have +1000 added and 1 have not (1 unclear), but the offset "
         "is 1000 for all: pack them apart", named(2, seems="seems not")),
        ("??-", V11, "1000 seems not to have been added to 1 of 3 tiles, but the offset is 1000",
         named(2, seems="seems not")),
    ],
)  # fmt: skip
def test_a_set_names_the_fewer(
    verdicts: str, modality: Modality, summary: str | None, names: list[tuple[str, str]]
) -> None:
    expected = [] if summary is None else [("s2l2a", summary), *names]
    assert remarks_of(verdicts, modality) == expected


def write_locations(root: Path, values: Callable[[int, int], np.ndarray], places: int = 4) -> None:
    """SSL4EO-S12 v1.0 with two dates; `values` gives the bands [12, 24, 24] of place and season."""
    for place in range(places):
        for season, month in enumerate((3, 8)):
            day = f"2020{month:02d}04T105031"
            folder = root / "s2a" / f"{place:07d}" / f"{day}_{day}_T31TCJ"
            folder.mkdir(parents=True)
            for band, pixels in zip(L2A.bands, values(place, season), strict=True):
                times = round(2640 / band.gsd / 24 + 0.5)
                side = round(2640 / band.gsd)
                whole = np.tile(pixels, (times, times))[:side, :side]
                tifffile.imwrite(folder / f"{band.name}.tif", whole)


def every_other(place: int, season: int) -> np.ndarray:
    return scene(darkest=100 + 1000 * (place % 2), seed=2 * place + season)


MIXED = Remark(
    "s2l2a",
    "4 tiles have +1000 added and 4 have not, but the offset is 0 for all: pack them apart, or "
    "give --fix_offset",
    "offset",
)
ODD = [
    Remark(
        f"{place:07d} s2l2a 2020-{month}-04",
        "1000 seems to have been added: the darkest values are 1100",
        "offset",
    )
    for place in (1, 3)
    for month in ("03", "08")
]


def pack(source: Path, out: Path, **options: Any) -> Manifest:
    plan = Plan(out, shard_size=1, **options)
    return pack_splits(open_source(source, seasons=2), plan)[""]


@pytest.mark.parametrize("workers", [1, 2])
def test_tiles_of_a_mixed_set_are_named(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the case mixed_offset: every other place of SSL4EO folders."""
    write_locations(tmp_path / "in", every_other)
    source = open_source(tmp_path / "in", seasons=2)
    plan = Plan(tmp_path / "out", shard_size=1)
    manifest = pack_splits(source, plan, workers=workers)[""]
    assert list(manifest.noted) == [MIXED, *ODD]
    assert check(source, workers=workers).noted == manifest.noted
    assert stats([str(tmp_path / "in"), "--seasons", "2", "--workers", str(workers)]) == 0
    lines = capsys.readouterr().out.splitlines()
    where = lines.index(f"  flag: {MIXED.why}")
    assert lines[where + 1 :][-4:] == [f"    {each.what}: {each.why}" for each in ODD]
    assert stats([str(tmp_path / "out"), "--workers", str(workers)]) == 0
    again = [each for each in ShardSet(tmp_path / "out").manifest.noted if each.kind == "offset"]
    assert again == [MIXED, *ODD]


def test_strict_stops_at_a_mixed_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_locations(tmp_path / "in", every_other)
    for _ in range(2):  # shards of an earlier run are judged too
        with pytest.raises(DataError, match=r"^s2l2a: 4 tiles have \+1000 added and 4 have not"):
            pack(tmp_path / "in", tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert list(pack(tmp_path / "in", tmp_path / "out").noted) == [MIXED, *ODD]
    with pytest.raises(DataError, match=r"^s2l2a: 4 tiles"):
        pack(tmp_path / "in", tmp_path / "out", strict=True)
    assert main(["--check", str(tmp_path / "in"), "--seasons", "2", "--strict"]) == 2
    assert capsys.readouterr().err == "error: 5 remarks, and strict allows none\n"


def test_a_resumed_set_is_judged_as_a_whole(tmp_path: Path) -> None:
    write_locations(tmp_path / "in", every_other)
    pack(tmp_path / "in", tmp_path / "whole")
    pack(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    for file in (tmp_path / "out" / "shard-00003").iterdir():
        file.unlink()
    (tmp_path / "out" / "shard-00003").rmdir()
    pack(tmp_path / "in", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_offset_is_fixed(tmp_path: Path) -> None:
    write_locations(tmp_path / "in", every_other)
    manifest = pack(tmp_path / "in", tmp_path / "out", fix_offset=True)
    assert list(manifest.noted) == [
        each._replace(why="1000 was subtracted: the darkest values were 1100") for each in ODD
    ]
    pack(tmp_path / "in", tmp_path / "as_is")
    fixed, stored = ShardSet(tmp_path / "out"), ShardSet(tmp_path / "as_is")
    for index in range(4):
        one, two = (each.read(index).bands["s2l2a"] for each in (fixed, stored))
        for a, b in zip(one, two, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b - 1000 * (index % 2))
    assert check(open_source(tmp_path / "in", seasons=2)).noted == (MIXED, *ODD)
    with pytest.raises(DataError, match="packed from other items or with other settings"):
        pack(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match=r"2020-03-04: 1000 was subtracted"):
        pack(tmp_path / "in", tmp_path / "strict", fix_offset=True, strict=True)


def test_the_command_fixes_the_offset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_locations(tmp_path / "in", every_other)
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out), "--seasons", "2", "--fix_offset"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "noted 4: 4 offset" in lines
    assert f"  {ODD[0].what}: 1000 was subtracted: the darkest values were 1100" in lines


@pytest.mark.parametrize(("darkest", "tiles"), [(100, 0), (1100, 8)])
def test_a_uniform_set_gets_one_remark_at_most(tmp_path: Path, darkest: int, tiles: int) -> None:
    write_locations(tmp_path / "in", lambda place, season: scene(darkest=darkest, seed=place))
    noted = pack(tmp_path / "in", tmp_path / "out").noted
    why = (
        f"1000 seems to have been added to {tiles} of 8 tiles (Sentinel-2 since 2022, SSL4EO-S12 "
        "v1.1), but the offset is 0"
    )
    assert list(noted) == [Remark("s2l2a", why, "offset")] * bool(tiles)


def series(tmp_path: Path, **fields: Any) -> str:
    """Writes a mapping of L2A; returns its path."""
    optical = {"like": "s2l2a", "gsd": 10, "mean": None, "std": None, **fields.pop("optical")}
    settings = {"name": "here", "seasons": 2, **fields, "modalities": {"s2": optical}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return str(tmp_path / "mapping.yaml")


def write_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="separate")


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_products_of_another_baseline_among_geotiffs(tmp_path: Path, dtype: str) -> None:
    """Cloudy, so the values say nothing: N0400 does; and only that is fixed."""
    bands = {name: n + 1 for n, name in enumerate(L2A.band_names)}
    mapping = series(
        tmp_path,
        format="geotiff",
        sample="{tile}",
        place="{tile}",
        optical={
            "bands": bands,
            "files": r"(?P<tile>\w+)/S2A_MSIL2A_(?P<date>\d{8})_N\d{4}_x\.tif",
        },
    )
    cloud, dark = (scene(darkest=each, dtype=dtype) for each in (4000, 100))
    write_image(tmp_path / "in/a/S2A_MSIL2A_20210301_N0214_x.tif", dark)
    write_image(tmp_path / "in/a/S2A_MSIL2A_20220301_N0400_x.tif", cloud)
    write_image(tmp_path / "in/b/S2A_MSIL2A_20210301_N0214_x.tif", cloud)
    write_image(tmp_path / "in/b/S2A_MSIL2A_20210601_N9999_x.tif", cloud)
    source = open_source(tmp_path / "in", mapping=mapping)
    found = check(source)
    assert [each.what for each in found.noted] == ["s2", "a s2 2022-03-01"]
    assert found.noted[0].why == (
        "1 tile has +1000 added and 1 have not (2 unclear), but the offset is 0 for all: "
        "pack them apart, or give --fix_offset"
    )
    manifest = pack_splits(source, Plan(tmp_path / "out", fix_offset=True))[""]
    assert [each.why for each in manifest.noted] == [
        "1000 was subtracted: the darkest values were 4000"
    ]
    shards = ShardSet(tmp_path / "out")
    np.testing.assert_array_equal(shards.read(0).bands["s2"][0], np.stack([dark, cloud - 1000]))
    np.testing.assert_array_equal(shards.read(1).bands["s2"][0], np.stack([cloud, cloud]))
    assert manifest.arrays["s2_10m"].dtype == dtype


def test_of_two_passes_of_a_day_the_baseline_of_the_fuller_one_counts(tmp_path: Path) -> None:
    mapping = series(
        tmp_path,
        format="geotiff",
        seasons=1,
        optical={
            "bands": {name: n + 1 for n, name in enumerate(L2A.band_names)},
            "files": r"(?P<place>\w+)/S2A_MSIL2A_(?P<date>\d{8}T\d{6})_N\d{4}_x\.tif",
        },
    )
    cloud = scene(darkest=4000)
    fuller, part = cloud, cloud.copy()
    part[:, :8] = 0
    write_image(tmp_path / "in/a/S2A_MSIL2A_20220301T100000_N0214_x.tif", part)
    write_image(tmp_path / "in/a/S2A_MSIL2A_20220301T110000_N0400_x.tif", fuller)
    (reading,) = open_source(tmp_path / "in", mapping=mapping).read("a")
    np.testing.assert_array_equal(reading.arrays["s2"][0][0], fuller)
    assert reading.baselines["s2"] == [4.0]


def write_cubes(
    folder: Path, write_cube: Callable[..., None], tiles: Sequence[np.ndarray], first: str
) -> None:
    """A NetCDF file of tiles that are 30 days apart."""
    cube = np.stack(tiles)
    variables = {name: cube[:, n] for n, name in enumerate(L2A.band_names)}
    start = (date.fromisoformat(first) - date(1990, 1, 1)).days
    write_cube(folder, variables, times=[start + 30 * n for n in range(len(tiles))])


def test_clouds_in_cubes_are_not_mistaken(tmp_path: Path, write_cube: Callable[..., None]) -> None:
    mapping = series(
        tmp_path,
        format="netcdf",
        optical={"nodata": 65535, "bands": {name: name for name in L2A.band_names}},
    )
    dark, cloud, haze = scene(), scene(darkest=6000), hazy(HAZE)
    fill = np.full_like(dark, 65535)
    write_cubes(tmp_path / "in/a.nc", write_cube, [dark, haze, cloud, dark, fill], "2021-12-01")
    write_cubes(tmp_path / "in/b.nc", write_cube, [dark, dark, haze, dark], "2021-12-01")
    found = check(open_source(tmp_path / "in", mapping=mapping))
    assert [each for each in found.noted if each.kind == "offset"] == []
    # the first date since 2022-01-25, with +1000
    new = scene(darkest=1130, seed=5)
    write_cubes(tmp_path / "in/a.nc", write_cube, [dark, dark, new], "2021-12-01")
    noted = check(open_source(tmp_path / "in", mapping=mapping)).noted
    assert [each.what for each in noted] == ["s2", "a s2 2022-01-30"]
    assert noted[1].why == "1000 seems to have been added: the darkest values are 1130"


def test_places_without_the_offset_among_zarr(tmp_path: Path) -> None:
    """SSL4EO-S12 v1.1 has offset 1000, int16."""
    root = tmp_path / "in" / "train"
    places = ("0000003", "0000005", "0000008")
    tiles = [
        np.stack([scene(darkest=each, seed=t, dtype=np.int16) for t in range(4)])
        for each in (1090, 90, 1700)
    ]
    tiles[0][2] = scene(darkest=6000, dtype=np.int16)
    (root / FOLDERS["s2l2a"]).mkdir(parents=True)
    times = np.stack([times_of("2020-01-10", 4)] * 3)
    write_group(root / FOLDERS["s2l2a"] / "a.zarr.zip", "s2l2a", np.stack(tiles), times, places)
    source = open_source(tmp_path / "in")
    manifest = pack_splits(source, Plan(tmp_path / "out"))[""]
    days = ("2020-01-10", "2020-04-09", "2020-07-08", "2020-10-06")
    assert [tuple(each) for each in manifest.noted] == [
        (
            "s2l2a",
            "3 tiles have +1000 added and 4 have not (5 unclear), but the offset is 1000 "
            "for all: pack them apart",
            "offset",
        ),
        *(
            (
                f"0000005 s2l2a {day}",
                "1000 seems not to have been added: the darkest values are 90",
                "offset",
            )
            for day in days
        ),
    ]
    assert check(source).noted == manifest.noted
    # what is said to have 1000 keeps it
    fixed = pack_splits(source, Plan(tmp_path / "fixed", fix_offset=True))[""]
    assert fixed.noted == manifest.noted


def test_a_packed_set_without_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modality = L1C.on_one_grid(10)
    writer = ShardWriter(tmp_path, [modality], 2, shard_size=2)
    for n, darkest in enumerate((20, 20, 1020, 20, 20)):
        tiles = np.stack([scene("s2l1c", darkest), cirrus(1020)])
        name = modality.name
        writer.add(f"place-{n}", {name: [tiles]}, {name: [None] * 2}, {name: [True, n != 4]})
    writer.finish()
    assert stats([str(tmp_path), "--workers", "1"]) == 0
    output = capsys.readouterr().out
    flag = (
        "1 tile has +1000 added and 4 have not (by band B10) (4 unclear), but the offset "
        "is 0 for all: pack them apart, or give --fix_offset"
    )
    line = "place-2 s2l1c season 0: 1000 seems to have been added: the darkest values are 1020"
    assert f"  flag: {flag}\n" in output
    assert f"    {line}\n" in output
    noted = ShardSet(tmp_path).manifest.noted
    assert [f"{each.what}: {each.why}" for each in noted if each.kind == "offset"] == [line]


def test_real_terramesh_is_told_apart_by_name(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """433D keeps +1000, 38D does not, and 609U keeps it in L1C alone.

    The published tile 609U is without it in L2A: where its L1C has reflectance 0 in B11 and B12,
    its L2A has -97 and -51 (433D: 1117 and 1050), by regression of the pixels.
    """
    noted = check(open_source(data_dir / "terramesh")).noted
    assert [(each.what, each.why[:45]) for each in noted] == [
        ("s2l2a", "1 tile has +1000 added and 2 have not, but th"),
        ("38D_378R_2_3 s2l2a season 0", "1000 seems not to have been added: the darkes"),
        ("609U_541L_3_0 s2l2a season 0", "1000 seems not to have been added: the darkes"),
        ("s2l1c", "2 tiles have +1000 added and 1 have not (by b"),
        ("38D_378R_2_3 s2l1c season 0", "1000 seems not to have been added: the darkes"),
    ]
    assert pack_splits(open_source(data_dir / "terramesh"), Plan(tmp_path))[""].noted == noted
    assert main(["--check", str(data_dir / "terramesh"), "--workers", "1"]) == 0
    packed = capsys.readouterr().out
    assert stats([str(data_dir / "terramesh"), "--workers", "1"]) == 0
    for output in (packed, capsys.readouterr().out):
        assert output.count("  38D_378R_2_3 s2l") == 2
        assert output.count("  609U_541L_3_0 s2l2a") == 1
        assert "433D" not in output


@pytest.mark.parametrize("dataset", ["ssl4eo_s12_v1", "worldcereal_belgium", "sen12ms_cr"])
def test_no_real_tile_of_these_has_it(data_dir: Path, dataset: str) -> None:
    mapping = "worldcereal" if dataset.startswith("worldcereal") else None
    modalities = ["s2l2a", "s2l1c"] if dataset.startswith("ssl4eo") else None
    source = open_source(data_dir / dataset, mapping=mapping, modalities=modalities)
    assert [each for each in check(source).noted if each.kind == "offset"] == []


BEN = r"S2/[^/]+/(?P<tile>\w+)_(?P<band>B\w\w)\.tif"


def test_nor_has_any_of_bigearthnet_eurosat_and_oscd(data_dir: Path, tmp_path: Path) -> None:
    """Read by mappings, as a user would; OSCD's cities differ in size, so one by one."""
    bands = {n: "B8A" if n == "B8A" else f"B{int(n[1:]):02d}" for n in L2A.band_names}
    gsd = {band.name: band.gsd for band in L2A.bands}
    ben = {"bands": bands, "gsd": gsd, "files": BEN}
    order = [*L1C.band_names[:8], "B9", "B10", "B11", "B12", "B8A"]
    eurosat = {
        "like": "s2l1c",
        "bands": {name: order.index(name) + 1 for name in L1C.band_names},
        "files": r"\w+/(?P<tile>\w+)\.tif",
    }
    for folder, optical, count in (("bigearthnet_v1", ben, 7), ("eurosat_ms", eurosat, 100)):
        mapping = series(
            tmp_path, format="geotiff", sample="{tile}", place="{tile}", seasons=1, optical=optical
        )  # fmt: skip
        found = check(open_source(data_dir / folder, mapping=mapping))
        assert found.samples == count
        assert found.noted == ()
    images = data_dir / "oscd" / "Onera Satellite Change Detection dataset - Images"
    for city in sorted(images.glob("*/imgs_[12]")):
        files = {each.stem.rsplit("_", 1)[1]: each for each in city.glob("*.tif")}
        dark = tifffile.imread(files["B10"])[None, None]
        assert judge(L1C.subset(["B10"]), [dark], [True]).verdicts == "-"
