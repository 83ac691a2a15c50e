"""Names of files: hidden ones, endings in any case, keys, and two things with one name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.formats.names import on_disk, twins
from seamo_fast.data.shards import Manifest
from seamo_fast.errors import DataError
from seamo_fast.pack import main
from tests.data.packing.published import (
    APPLE,
    stored_bands,
    times_of,
    write_group,
    write_members,
)

WriteTile = Callable[..., Path]
WriteCube = Callable[..., None]


@pytest.fixture
def ssl4eo(tmp_path: Path, write_tile: WriteTile) -> Path:
    """Two locations with two dates of both sensors."""
    for place in ("0000200", "0000300"):
        for day in ("20200604", "20200813"):
            for name in ("s2l2a", "s1grd"):
                write_tile(tmp_path / "in", name, place, day)
    return tmp_path / "in"


def packed(source: Path, out: Path, **options: Any) -> tuple[Manifest, dict[str, bytes]]:
    """Packs a source; returns its manifest and the bytes of its arrays."""
    manifest = pack(open_source(source, **options), out)
    return manifest, {file.name: file.read_bytes() for file in sorted(out.rglob("*.npy"))}


def write_mapping(path: Path, files: str, **settings: Any) -> str:
    bands = settings.pop("bands", {"B4": 1, "B8": 2})
    modality = {"unit": "dn", "gsd": 10, "bands": bands, "files": files}
    whole = {
        "name": "here",
        "format": "geotiff",
        "seasons": 1,
        "modalities": {"opt": modality},
        **settings,
    }
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return str(path)


def write_image(path: Path, seed: int = 0, bands: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(1, 9000, (8, 8, bands)).astype(np.uint16)
    values = values[..., 0] if bands == 1 else values
    planar = None if bands == 1 else "contig"
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig=planar)


def add_companions(root: Path) -> None:
    """Leaves beside everything what macOS does."""
    for path in [*root.rglob("*")]:
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(APPLE)
        else:
            (path / ".DS_Store").write_bytes(APPLE)
            (path / "__MACOSX").mkdir()
            (path / ".Trashes").mkdir()


def test_companions_of_macos_are_skipped_by_the_command(ssl4eo: Path, tmp_path: Path) -> None:
    _, expected = packed(ssl4eo, tmp_path / "plain")
    add_companions(ssl4eo)
    assert main([str(ssl4eo), str(tmp_path / "out"), "--strict", "true"]) == 0
    manifest = Manifest.load(tmp_path / "out")
    assert (manifest.skipped, manifest.noted) == ((), ())
    arrays = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*.npy")}
    assert arrays == expected


@pytest.mark.parametrize("ending", [".TIF", ".Tiff", ".tiff"])
def test_endings_in_any_case_by_the_command(ssl4eo: Path, tmp_path: Path, ending: str) -> None:
    _, expected = packed(ssl4eo, tmp_path / "plain")
    for path in [*ssl4eo.rglob("*.tif")]:
        path.rename(path.with_suffix(ending))
    assert main([str(ssl4eo), str(tmp_path / "out"), "--strict", "true"]) == 0
    arrays = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*.npy")}
    assert arrays == expected


@pytest.mark.parametrize(
    ("other", "both"),
    [
        ("B01.tif", "B01.tif, B1.tif"),
        ("B1.TIF", "B1.TIF, B1.tif"),
        ("b1.tif", "B1.tif, b1.tif"),
        ("B1.tiff", "B1.tif, B1.tiff"),
    ],
)
def test_two_files_of_a_band(ssl4eo: Path, tmp_path: Path, other: str, both: str) -> None:
    tile = next(ssl4eo.glob("s2a/0000200/20200813*"))
    shutil.copyfile(tile / "B1.tif", tile / other)
    manifest, _ = packed(ssl4eo, tmp_path / "out")
    assert [tuple(each) for each in manifest.skipped] == [
        (f"s2a/0000200/{tile.name}", f"band B1 comes twice: {both}", "name")
    ]
    assert ShardSet(tmp_path / "out").read(0).valid[:2].tolist() == [[True, True], [False, True]]


@pytest.fixture
def radar(tmp_path: Path) -> str:
    """A mapping of cubes with one radar band."""
    modality = {"unit": "db", "gsd": 10, "bands": {"VV": "vv"}}
    settings = {"name": "h", "format": "netcdf", "seasons": 1, "modalities": {"sar": modality}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "mapping.yaml")


def test_cubes(tmp_path: Path, write_cube: WriteCube, radar: str) -> None:
    values = {n: np.random.default_rng(n).normal(size=(1, 4, 4)).astype("f4") for n in range(4)}
    for number, name in enumerate(("a.NC", "b.nc", "B.nc", "more/c.Nc")):
        write_cube(tmp_path / "in" / name, {"vv": values[number]})
    for name in ("._a.nc", "__MACOSX/a.nc", ".old/a.nc"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(APPLE)
    manifest, _ = packed(tmp_path / "in", tmp_path / "out", mapping=radar)
    shards = ShardSet(tmp_path / "out")
    assert [shards.describe(i).split("(")[1] for i in range(2)] == ["a/t000)", "more/c/t000)"]
    np.testing.assert_array_equal(shards.read(1).bands["sar"][0][0, 0], values[3][0])
    why = "have one name but for upper and lower case; rename one"
    assert [tuple(each) for each in manifest.skipped] == [
        ("B.nc", f"B.nc and b.nc {why}", "name"),
        ("b.nc", f"b.nc and B.nc {why}", "name"),
    ]


@pytest.mark.parametrize("pattern", [r"S2/(?P<place>\w+)\.tif", r"S2/(?P<place>\w+)\.TIF"])
def test_the_ending_of_a_pattern_is_compared_without_case(tmp_path: Path, pattern: str) -> None:
    for number, name in enumerate(("S2/a.tif", "S2/c.TIF", "S2/d.Tif", "s2/e.tif", "S2/._a.tif")):
        write_image(tmp_path / "in" / name, number)
    write_image(tmp_path / "in" / ".S2" / "S2" / "f.tif")
    mapping = write_mapping(tmp_path / "mapping.yaml", pattern)
    manifest, _ = packed(tmp_path / "in", tmp_path / "out", mapping=mapping)
    assert manifest.skipped == ()
    assert open_source(tmp_path / "in", mapping=mapping).items() == ["a", "c", "d"]


def test_images_of_one_name(tmp_path: Path) -> None:
    for name in ("a.tif", "a.TIF", "b.tif", "c.tif", "C.tif"):
        write_image(tmp_path / "in" / "S2" / name)
    mapping = write_mapping(tmp_path / "mapping.yaml", r"S2/(?P<place>\w+)\.tif")
    manifest, _ = packed(tmp_path / "in", tmp_path / "out", mapping=mapping)
    why = "have one name but for upper and lower case; rename one"
    assert [tuple(each) for each in manifest.skipped] == [
        ("C", f"C and c {why}", "name"),
        ("a opt", "two files of one tile: S2/a.TIF, S2/a.tif", "name"),
        ("a", "no tile of it can be used", "unusable"),
        ("c", f"c and C {why}", "name"),
    ]


def test_two_files_of_a_band_by_mapping(tmp_path: Path) -> None:
    mapping = write_mapping(
        tmp_path / "mapping.yaml",
        r"(?P<place>\w)/(?P<date>[\d-]+)/(?P<band>[bB]\w+)\.tif",
        bands={"B4": "B04"},
        seasons=3,
        pairing="seasons",
    )
    names = ("20200301/B04", "2020-03-01/B04", "20200601/B04", "20200601/B4", "20200901/B04")
    for number, name in enumerate(names):
        write_image(tmp_path / "in" / "p" / f"{name}.tif", number, 1)
    manifest, _ = packed(tmp_path / "in", tmp_path / "out", mapping=mapping)
    assert [tuple(each) for each in manifest.skipped] == [
        (
            "p opt 2020-03-01",
            "band B4 comes twice: p/2020-03-01/B04.tif, p/20200301/B04.tif",
            "name",
        ),
        (
            "p opt 2020-06-01",
            "band B4 comes twice: p/20200601/B04.tif, p/20200601/B4.tif",
            "name",
        ),
    ]
    assert ShardSet(tmp_path / "out").read(0).valid[:, 0].tolist() == [False, False, True]


def test_packaged_mappings_find_files_in_upper_case(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "S2L2A" / "380D_378R_2_3.TIF", bands=12)
    write_image(tmp_path / "in" / "S2L2A" / "._380D_378R_2_4.TIF", bands=12)
    source = open_source(tmp_path / "in")
    assert (source.release, source.items()) == ("terramesh", ["380D_378R_2_3"])
    (tmp_path / "in" / "S2L2A" / "380D_378R_2_3.TIF").unlink()
    with pytest.raises(DataError, match="has no known layout"):
        open_source(tmp_path / "in")


@pytest.fixture
def location(tmp_path: Path) -> bytes:
    """One location of SSL4EO-S12 v1.1."""
    file = tmp_path / "single.zarr.zip"
    write_group(file, "s2l2a", stored_bands("s2l2a", 0, (4,)), times_of("2020-01-01", 4))
    return file.read_bytes()


def test_keys_of_tars_may_have_dots_by_the_command(tmp_path: Path, location: bytes) -> None:
    names = [f"./ssl4eos12_v1.1_{number:07d}.zarr.zip" for number in range(3)]
    others = ["__MACOSX/ssl4eos12_v1.1_0000001.zarr.zip", "._ssl4eos12_v1.1_0000000.zarr.zip"]
    members = [*names, "ssl4eos12_v1.1_0000003.ZARR.zip", *others]
    write_members(tmp_path / "in" / "S2L2A" / "a.Tar", members, location)
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--strict", "true"]) == 0
    shards = ShardSet(tmp_path / "out")
    assert [shards.describe(i).split("(")[1] for i in range(len(shards))] == [
        f"ssl4eos12_v1.1_{number:07d})" for number in range(4)
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("x/k.zarr.zip", "y/k.zarr.zip"), "holds two samples of one name: {}"),
        (("k.zarr.zip", "K.zarr.zip"), "holds two samples of one name: {}"),
        (("k.zarr.zip", "k.ZARR.ZIP"), "holds two samples of one name: {}"),
        (("k.zarr.zip", "k.zarr.zip"), "holds two members k.zarr.zip"),
    ],
)
def test_two_samples_of_a_tar_with_one_key(
    tmp_path: Path, location: bytes, members: Sequence[str], message: str
) -> None:
    write_members(tmp_path / "in" / "S2L2A" / "a.tar", ["k.zarr.zip"], location)
    write_members(tmp_path / "in" / "S2L2A" / "b.tar", members, location)
    manifest, _ = packed(tmp_path / "in", tmp_path / "out")
    why = message.format(" and ".join(members))
    path = tmp_path / "in" / "S2L2A" / "b.tar"
    assert [tuple(each) for each in manifest.skipped] == [("b.tar", f"{path} {why}", "name")]


def test_zarr_files_of_two_spellings_are_one_item(tmp_path: Path) -> None:
    for name, file in (("s2l2a", "a.zarr.zip"), ("s1grd", "a.ZARR.ZIP")):
        folder = tmp_path / "in" / {"s2l2a": "S2L2A", "s1grd": "S1GRD"}[name]
        folder.mkdir(parents=True)
        bands, times = stored_bands(name, 0, (1, 4)), times_of("2020-01-01", 4)[None]
        write_group(folder / file, name, bands, times, ["0000007"])
    source = open_source(tmp_path / "in")
    assert source.items() == ["a.zarr.zip"]
    (reading,) = source.read("a.zarr.zip")
    assert reading.valid == {"s2l2a": [True] * 4, "s1grd": [True] * 4}
    shutil.copyfile(folder / file, folder / "a.zarr.zip")
    with pytest.raises(DataError, match=r"a.zarr.zip and a.ZARR.ZIP are two files of one name"):
        next(source.read("a.zarr.zip"))


def test_two_locations_of_one_name(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "S2L2A"
    folder.mkdir(parents=True)
    times = np.stack([times_of("2020-01-01", 4)] * 2)
    for name, places in (("a", ["0000007", "0000008"]), ("b", ["0000007", "0000007"])):
        bands = stored_bands("s2l2a", 0, (2, 4))
        write_group(folder / f"{name}.zarr.zip", "s2l2a", bands, times, places)
    manifest, _ = packed(tmp_path / "in", tmp_path / "out")
    why = f"{folder / 'b.zarr.zip'} names two of its samples 0000007 and 0000007"
    assert [tuple(each) for each in manifest.skipped] == [("b.zarr.zip", why, "name")]


def test_a_file_is_found_in_any_case_and_two_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.b.TIF").touch()
    (tmp_path / "c.Tif").touch()
    assert on_disk(tmp_path / "a.b.tif").name == "a.b.TIF"
    assert on_disk(tmp_path / "c.tif").name == "c.Tif"
    for absent in ("b.tif", "c.png", "c"):
        assert on_disk(tmp_path / absent) == tmp_path / absent
    (tmp_path / "a.b.tif").touch()
    message = rf"a.b.tif and a.b.TIF are two files of one name \(in {tmp_path}\); delete or rename"
    with pytest.raises(DataError, match=message) as caught:
        on_disk(tmp_path / "a.b.tif")
    assert caught.value.kind == "name"


def test_twins() -> None:
    assert twins(["a", "B", "b", "c"]) == {"b": "B", "B": "b"}
    assert twins(["a", "a"]) == {"a": "a"}
    assert twins(["a.nc", "b"], lambda name: name[:1]) == {}
