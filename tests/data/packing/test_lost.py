"""What is lost, in every source: bands never filled, constant bands, and missing pieces."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.data.packing.sources.rules.lost import check_bands
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.pack import main
from tests.data.packing.published import (
    stored_bands,
    times_of,
    write_group,
    write_lmdb,
    write_members,
)

WriteTile = Callable[..., Path]
WriteCube = Callable[..., None]
TWO = Modality("two", (Band("A", 10), Band("B", 20)), "dn", nodata=65535)


@pytest.fixture
def ssl4eo(tmp_path: Path, write_tile: WriteTile) -> Path:
    """One location with two dates of both sensors."""
    for day in ("20200604", "20200813"):
        for name in ("s2l2a", "s1grd"):
            write_tile(tmp_path / "in", name, "0000200", day)
    return tmp_path / "in"


def refill(tile: Path, value: float, *bands: str) -> None:
    for band in bands:
        values = tifffile.imread(tile / f"{band}.tif")
        tifffile.imwrite(tile / f"{band}.tif", np.full_like(values, value), planarconfig="separate")


@pytest.mark.parametrize(
    ("sensor", "bands", "value", "why", "kind"),
    [
        ("s2a", ["B9"], 0, "band B9 of s2l2a was never filled: every pixel is 0 (nodata)", "empty"),
        (
            *("s2a", ["B1", "B12"], 0),
            "bands B1, B12 of s2l2a were never filled: every pixel is 0 (nodata)",
            "empty",
        ),
        ("s2a", ["B8A"], 1, "band B8A of s2l2a is 1 everywhere", "constant"),
        ("s1", ["VV"], -12.5, "band VV of s1grd is -12.5 everywhere", "constant"),
        (
            *("s1", ["VH"], np.nan),
            "band VH of s1grd was never filled: every pixel is NaN or infinite",
            "empty",
        ),
    ],
)
def test_lost_bands_of_ssl4eo_by_the_command(
    ssl4eo: Path, tmp_path: Path, sensor: str, bands: list[str], value: float, why: str, kind: str
) -> None:
    tile = next(ssl4eo.glob(f"{sensor}/0000200/*20200813*"))
    refill(tile, value, *bands)
    assert main([str(ssl4eo), str(tmp_path / "out")]) == 0
    shards = ShardSet(tmp_path / "out")
    assert [tuple(each) for each in shards.manifest.skipped] == [
        (f"{sensor}/0000200/{tile.name}", why, kind)
    ]
    assert shards.manifest.noted == ()
    sample = shards.read(0)
    assert sample.valid[:2].tolist() == [[True, True], [sensor == "s1", sensor == "s2a"]]
    assert main([str(ssl4eo), str(tmp_path / "stopped"), "--on_bad", "stop"]) == 2


def test_bands_that_are_flat_but_for_one_pixel_are_kept(ssl4eo: Path, tmp_path: Path) -> None:
    for place in ((5, 7), (0, 0), (22, 22), (43, 43)):
        tile = next(ssl4eo.glob("s2a/0000200/*20200813*"))
        values = np.full((44, 44), 3, np.uint16)
        values[place] = 4
        tifffile.imwrite(tile / "B9.tif", values, planarconfig="separate")
        (reading,) = open_source(ssl4eo).read("0000200")
        assert (reading.skipped, reading.valid["s2l2a"][:2]) == ([], [True, True])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float16", "float32", "float64"])
@pytest.mark.parametrize("value", [0, 7, 100])
def test_constant_bands_of_every_dtype(dtype: str, value: int) -> None:
    noise = np.random.default_rng(0).integers(1, 90, (1, 33, 20)).astype(dtype)
    flat = np.full((1, 17, 10), value, dtype)
    reason = "was never filled: every pixel is 0" if value == 0 else f"is {value} everywhere"
    with pytest.raises(TileError, match=f"^band B of two {reason}$") as caught:
        check_bands(TWO, [noise, flat])
    assert caught.value.kind == ("constant" if value else "empty")
    assert check_bands(TWO, [noise, flat[:, :1, :1]]) == []  # one pixel says nothing
    assert check_bands(TWO, [noise, noise]) == []


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_was_not_measured(lost: float) -> None:
    noise = np.random.default_rng(0).normal(size=(1, 9, 9))
    flat = np.full((1, 9, 9), lost)
    with pytest.raises(TileError, match="band A of two was never filled: every pixel is NaN or"):
        check_bands(TWO, [flat, noise])
    flat[0, ::2] = np.nan
    with pytest.raises(TileError, match="every pixel is NaN or infinite"):
        check_bands(TWO, [flat, noise])
    flat[0, 5, 5] = 1
    assert check_bands(TWO, [flat, noise]) == []
    nothing = np.full((1, 9, 9), 65535.0)
    assert check_bands(TWO, [np.full_like(flat, np.nan), nothing]) == []  # others report it


def test_flat_bands_of_eight_bits() -> None:
    noise = np.random.default_rng(0).integers(1, 90, (1, 9, 9)).astype(np.uint8)
    flat = np.zeros((1, 9, 9), np.uint8)
    why = "is flat in some tiles, which 8 bits can do to a dark band: they are kept"
    assert [tuple(each) for each in check_bands(TWO, [noise, flat])] == [
        ("two", f"band B {why}", "constant")
    ]
    with pytest.raises(TileError, match=r"^bands A, B of two were never filled: every pixel is 0$"):
        check_bands(TWO, [flat, flat])
    with pytest.raises(TileError, match=r"^bands A, B of two are 255 everywhere$"):
        check_bands(TWO, [flat + 255, flat + 255])


def write_mapping(path: Path, **modality: object) -> str:
    opt = {"unit": "dn", "gsd": 10, "nodata": 65535, "bands": {"B8": "nir", "B4": "red"}}
    whole = {
        "name": "here",
        "format": "geotiff" if "files" in modality else "netcdf",
        "seasons": 2,
        "modalities": {"opt": {**opt, **modality}},
    }
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return str(path)


def optical(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {band: rng.integers(1, 9000, (count, 6, 8)).astype(np.uint16) for band in ("nir", "red")}


@pytest.mark.parametrize(
    ("value", "reason", "kind"),
    [
        (65535, "was never filled: every pixel is 65535 (nodata)", "empty"),
        (0, "was never filled: every pixel is 0", "empty"),
        (12, "is 12 everywhere", "constant"),
    ],
)
def test_lost_bands_of_a_cube(
    tmp_path: Path, write_cube: WriteCube, value: int, reason: str, kind: str
) -> None:
    variables = optical(2)
    variables["red"][1] = value
    write_cube(tmp_path / "p.nc", variables)
    source = open_source(tmp_path / "p.nc", mapping=write_mapping(tmp_path / "m.yaml"))
    (reading,) = source.read("p.nc")
    assert reading.valid["opt"] == [True, False]
    assert [tuple(each) for each in reading.skipped] == [
        ("p.nc opt 2020-08-31", f"band B4 of opt {reason}", kind)
    ]
    assert reading.noted == []


def test_a_date_of_a_cube_without_any_pixel_is_no_lost_band(
    tmp_path: Path, write_cube: WriteCube
) -> None:
    variables = optical(2)
    for values in variables.values():
        values[0] = 65535
    write_cube(tmp_path / "p.nc", variables)
    source = open_source(tmp_path / "p.nc", mapping=write_mapping(tmp_path / "m.yaml"))
    (reading,) = source.read("p.nc")
    assert ([each.kind for each in reading.noted], reading.skipped) == (["unmeasured"], [])


@pytest.mark.parametrize(("chunks", "lost"), [((1, 3, 4), [3]), ((2, 6, 8), [2, 3])])
def test_pieces_of_a_cube_that_were_never_written(
    tmp_path: Path, write_cube: WriteCube, chunks: tuple[int, ...], lost: list[int]
) -> None:
    h5py = pytest.importorskip("h5py")
    values = optical(4)
    write_cube(tmp_path / "p.nc", {"nir": values["nir"]})
    with h5py.File(tmp_path / "p.nc", "a") as file:
        red = file.create_dataset("red", (4, 6, 8), "u2", chunks=chunks, fillvalue=9)
        red[: lost[0]] = values["red"][: lost[0]]
        if chunks[0] == 1:  # half of the last time
            red[3, :3] = values["red"][3, :3]
    source = open_source(tmp_path / "p.nc", mapping=write_mapping(tmp_path / "m.yaml"))
    readings = list(source.read("p.nc"))
    assert [each.valid["opt"][1] for each in readings] == [t not in lost for t in (1, 2, 3)]
    assert [(each.why, each.kind) for each in readings[-1].skipped] == [
        (f"pieces of red were never written, time {t}", "missing") for t in lost
    ]


def test_a_variable_that_was_never_written(tmp_path: Path, write_cube: WriteCube) -> None:
    h5py = pytest.importorskip("h5py")
    write_cube(tmp_path / "p.nc", {"nir": optical(4)["nir"]})
    with h5py.File(tmp_path / "p.nc", "a") as file:
        file.create_dataset("red", (4, 6, 8), "u2")
    with pytest.raises(DataError, match="the last: pieces of red were never written, time 3"):
        open_source(tmp_path / "p.nc", mapping=write_mapping(tmp_path / "m.yaml"))


def sparse(path: Path, piece: int = 1) -> None:
    """Takes a tile out of a TIFF file, as GDAL's SPARSE_OK does."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileByteCounts", "TileOffsets"):
            tag = file.pages.first.tags[name]
            numbers = list(tag.value)
            numbers[piece] = 0
            tag.overwrite(numbers)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sparse_tiles_of_a_tiff(tmp_path: Path, compression: str | None) -> None:
    values = np.random.default_rng(0).integers(1, 9000, (32, 48)).astype(np.uint16)
    options = {"tile": (16, 16), "compression": compression}
    for name, tags in (("a", []), ("b", [(42113, "s", 0, "77", True)])):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, **options, extratags=tags)
        np.testing.assert_array_equal(read_tiff(tmp_path / f"{name}.tif").values, values)
        sparse(tmp_path / f"{name}.tif")
    message = r"^a.tif lacks 1 of its 6 pieces, and has no nodata value that they could stand for$"
    with pytest.raises(TileError, match=message) as caught:
        read_tiff(tmp_path / "a.tif")
    assert caught.value.kind == "missing"
    values[:16, 16:32] = 77
    np.testing.assert_array_equal(read_tiff(tmp_path / "b.tif").values, values)


def test_sparse_and_lost_images_by_mapping(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(3):
        bands = rng.integers(1, 9000, (32, 48, 2)).astype(np.uint16)
        bands[..., 1] = bands[..., 1] if number != 1 else 5
        options = {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)}
        tifffile.imwrite(tmp_path / "in" / f"{number}.tif", bands, **options)
    sparse(tmp_path / "in" / "2.tif", 4)
    mapping = write_mapping(
        tmp_path / "m.yaml", files=r"(?P<place>\d)\.tif", bands={"B8": 1, "B4": 2}
    )
    manifest = pack(open_source(tmp_path / "in", mapping=mapping), tmp_path / "out")
    assert [tuple(each) for each in manifest.skipped] == [
        ("1 opt", "band B4 of opt is 5 everywhere", "constant"),
        ("1", "no tile of it can be used", "unusable"),
        (
            "2 opt",
            "2.tif lacks 1 of its 6 pieces, and has no nodata value that they could stand for",
            "missing",
        ),
        ("2", "no tile of it can be used", "unusable"),
    ]


@pytest.fixture
def zarr_file(tmp_path: Path) -> Path:
    """A file of two locations, a chunk for each time."""
    path = tmp_path / "in" / "S2L2A" / "a.zarr.zip"
    path.parent.mkdir(parents=True)
    times = np.stack([times_of("2020-01-01", 4)] * 2)
    bands = stored_bands("s2l2a", 0, (2, 4))
    bands[1, 1, 9] = 0
    bands[1, 3, 11] = 1001
    write_group(path, "s2l2a", bands, times, ["0000007", "0000008"])
    return path


def without(path: Path, member: str) -> None:
    """Takes a member out of a ZIP file."""
    old = path.with_suffix(".old")
    shutil.move(path, old)
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w") as target:
        held = {each.filename: each for each in source.infolist()}
        assert member in held
        for name, each in held.items():
            if name != member:
                target.writestr(name, source.read(each))
    old.unlink()


def test_lost_bands_of_zarr(zarr_file: Path) -> None:
    first, second = open_source(zarr_file.parents[1]).read("a.zarr.zip")
    assert first.valid["s2l2a"] == [True] * 4
    assert second.valid["s2l2a"] == [True, True, False, False]
    assert [tuple(each) for each in second.skipped] == [
        (
            "a.zarr.zip s2l2a 0000008 time 1",
            "band B9 of s2l2a was never filled: every pixel is 0 (nodata)",
            "empty",
        ),
        ("a.zarr.zip s2l2a 0000008 time 3", "band B12 of s2l2a is 1001 everywhere", "constant"),
    ]


def test_a_missing_chunk_of_zarr_is_a_lost_time(zarr_file: Path) -> None:
    with zipfile.ZipFile(zarr_file) as file:
        chunks = json.loads(file.read("bands/.zarray"))["chunks"]
    assert chunks[:3] == [2, 1, 12]  # both locations share a chunk
    without(zarr_file, "bands/0.2.0.0.0")
    for number, reading in enumerate(open_source(zarr_file.parents[1]).read("a.zarr.zip")):
        assert [tuple(each) for each in reading.skipped if each.kind == "missing"] == [
            (
                f"a.zarr.zip s2l2a {reading.id} time 2",
                "the chunk bands/0.2.0.0.0 is not in the file",
                "missing",
            )
        ]
        assert sum(reading.valid["s2l2a"]) == 3 - 2 * number


def test_a_missing_chunk_of_a_location_in_a_tar(tmp_path: Path) -> None:
    single = tmp_path / "single.zarr.zip"
    bands = stored_bands("s2l2a", 0, (4,))
    write_group(single, "s2l2a", bands, times_of("2020-01-01", 4))
    without(single, "bands/1.0.0.0")
    write_members(tmp_path / "in" / "S2L2A" / "a.tar", ["k.zarr.zip"], single.read_bytes())
    (reading,) = open_source(tmp_path / "in").read("a.tar")
    assert [tuple(each) for each in reading.skipped] == [
        ("a.tar s2l2a k time 1", "the chunk bands/1.0.0.0 is not in the file", "missing")
    ]
    np.testing.assert_array_equal(reading.arrays["s2l2a"][0][:3], bands[[0, 2, 3]])


def test_lost_bands_of_a_database(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(1, 9000, (4, 13, 8, 8)).astype(np.int16)
    tiles[1, 3] = 0
    write_lmdb(tmp_path / "raw", [[tiles]])
    (reading,) = open_source(tmp_path / "raw").read("0")
    assert reading.valid["s2l1c"] == [True, False, True, True]
    assert [tuple(each) for each in reading.skipped] == [
        (
            "0 s2l1c season 1",
            "band B4 of s2l1c was never filled: every pixel is 0 (nodata)",
            "empty",
        )
    ]


def test_a_database_of_eight_bits_has_dark_bands(tmp_path: Path) -> None:
    """B10 is below 1/255 nearly everywhere; a tile that is flat in all bands is lost."""
    tiles = np.random.default_rng(0).integers(1, 250, (30, 4, 13, 8, 8)).astype(np.uint8)
    tiles[:, :, 10] = 0
    tiles[3, 1, 10, 2, 2] = 1
    tiles[7, 2] = 255
    write_lmdb(tmp_path / "in", [[each] for each in tiles])
    manifest = pack(open_source(tmp_path / "in"), tmp_path / "out")
    (lost,) = manifest.skipped
    assert (lost.what, lost.kind) == ("7 s2l1c_uint8 season 2", "constant")
    assert lost.why.endswith("B11, B12 of s2l1c_uint8 are 255 everywhere")
    why = "is flat in some tiles, which 8 bits can do to a dark band: they are kept"
    assert [tuple(each) for each in manifest.noted] == [
        ("s2l1c_uint8", f"band B10 {why}", "constant")
    ]
