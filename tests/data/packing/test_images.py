"""Folders of GeoTIFFs by mapping: real tiles equal rasterio, published layouts are found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import images, open_source
from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.geo import tiff_position, to_degrees
from seamo_fast.data.packing.sources.formats.metadata import SILENT
from seamo_fast.data.packing.sources.formats.tiff_images import TiffImage
from seamo_fast.data.packing.sources.mapping_files import load_mapping
from seamo_fast.errors import DataError

SETTINGS: dict[str, Any] = {
    "name": "here",
    "format": "geotiff",
    "seasons": 1,
    "sample": "{tile}",
    "place": "{tile}",
    "modalities": {
        "opt": {
            "unit": "dn",
            "gsd": 10,
            "bands": {"B4": 1, "B8": 3},
            "files": r"S2/(?P<tile>\w+)\.tif",
        },
        "sar": {"unit": "db", "gsd": 10, "bands": {"VV": 1}, "files": r"S1/(?P<tile>\w+)\.tif"},
    },
}


@pytest.fixture
def write_mapping(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that writes `SETTINGS`, changed by an edit, as a mapping file."""

    def write(edit: Callable[[dict[str, Any]], object] = lambda settings: None) -> str:
        settings = yaml.safe_load(yaml.safe_dump(SETTINGS, sort_keys=False))
        edit(settings)
        (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        return str(tmp_path / "mapping.yaml")

    return write


def write(path: Path, values: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    planar = "contig" if values.ndim == 3 else None
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig=planar)
    return values


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9000, shape).astype(np.uint16)


REAL = {
    "terramesh": {"s2l2a": "S2L2A", "s2l1c": "S2L1C", "s1rtc": "S1RTC"},
    "sen12ms_cr": {"s2l1c": "s2_cloudfree", "s2l1c_cloudy": "s2_cloudy", "s1grd": "s1"},
}


@pytest.mark.parametrize("dataset", list(REAL))
def test_real_tiles_equal_rasterio(data_dir: Path, tmp_path: Path, dataset: str) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the independent reader is rasterio")
    warp = pytest.importorskip("rasterio.warp")
    pack(open_source(data_dir / dataset), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert shards.manifest.skipped == ()
    assert [each.name for each in shards.modalities] == list(REAL[dataset])
    seen = set()
    for index in range(len(shards)):
        id = shards.describe(index).rsplit("(", 1)[1].rstrip(")")
        sample = shards.read(index)
        assert sample.valid.all()
        for name, folder in REAL[dataset].items():
            file = data_dir / dataset / folder / f"{id}.tif"
            seen.add(file)
            with rasterio.open(file) as image:
                expected = image.read()
                x, y = image.transform * (image.width / 2, image.height / 2)
                (x,), (y,) = warp.transform(image.crs, "EPSG:4326", [x], [y])
            stored = sample.bands[name][0][0]
            assert stored.dtype == (np.float32 if "s1" in name else expected.dtype)
            np.testing.assert_array_equal(stored, expected)
            assert tiff_position(file) == pytest.approx((x, y), abs=1e-6)
    folders = [data_dir / dataset / folder for folder in REAL[dataset].values()]
    assert seen == {file for folder in folders for file in folder.iterdir()}


def test_cells_and_scenes_are_the_places(data_dir: Path) -> None:
    source = open_source(data_dir / "terramesh")
    assert [reading.place for item in source.items() for reading in source.read(item)] == [
        "38D_378R",
        "433D_629L",
        "609U_541L",
    ]
    assert source.modalities[0].offset == 1000
    (item,) = open_source(data_dir / "sen12ms_cr").items()
    assert next(open_source(data_dir / "sen12ms_cr").read(item)).place == "ROIs2017_winter_112"


def test_published_folders_of_sen12ms(tmp_path: Path) -> None:
    written = {}
    for roi, scene, patch in (("ROIs1158_spring", 1, 30), ("ROIs1970_fall", 1, 30)):
        for kind, bands in (("s1", 2), ("s2", 13)):
            name = f"{roi}/{kind}_{scene}/{roi}_{kind}_{scene}_p{patch}.tif"
            values = numbers(len(name) + bands, 8, 8, bands)
            values = values.astype(np.float32) if kind == "s1" else values
            written[roi, kind] = write(tmp_path / "in" / name, values)
        write(tmp_path / "in" / roi / f"lc_{scene}" / f"{roi}_lc_{scene}_p{patch}.tif", values)
    source = open_source(tmp_path / "in")
    assert source.release == "sen12ms"
    assert source.items() == ["ROIs1158_spring_1_p30", "ROIs1970_fall_1_p30"]
    for item in source.items():
        (reading,) = source.read(item)
        roi = item.removesuffix("_1_p30")
        assert reading.place == f"{roi}_1"
        for name, kind in (("s2l1c", "s2"), ("s1grd", "s1")):
            expected = np.moveaxis(written[roi, kind], -1, 0)
            np.testing.assert_array_equal(reading.arrays[name][0][0], expected)


def test_published_folders_of_sen12ms_cr(tmp_path: Path) -> None:
    written = {}
    for kind, bands in (("s1", 2), ("s2", 13), ("s2_cloudy", 13)):
        name = f"ROIs1158_spring_{kind}/{kind}_17/ROIs1158_spring_{kind}_17_p101.tif"
        values = numbers(bands, 8, 8, bands).astype(np.float32 if kind == "s1" else np.uint16)
        written[kind] = write(tmp_path / "in" / name, values)
    source = open_source(tmp_path / "in")
    assert source.release == "sen12ms_cr"
    (reading,) = source.read("ROIs1158_spring_17_p101")
    for name, kind in (("s2l1c", "s2"), ("s2l1c_cloudy", "s2_cloudy"), ("s1grd", "s1")):
        np.testing.assert_array_equal(reading.arrays[name][0][0, 0], written[kind][..., 0])


def test_co_registered_folders(tmp_path: Path, write_mapping: Callable[..., str]) -> None:
    optical = write(tmp_path / "in" / "S2" / "a.tif", numbers(0, 6, 6, 4))
    write(tmp_path / "in" / "S2" / "b.tif", numbers(1, 6, 6, 4))
    radar = write(tmp_path / "in" / "S1" / "b.tif", numbers(2, 6, 6).astype(np.float32))
    write(tmp_path / "in" / "S1" / "notes.txt", numbers(2, 6, 6))
    source = open_source(tmp_path / "in", mapping=write_mapping())
    first, second = (next(source.read(item)) for item in source.items())
    assert (first.id, first.valid) == ("a", {"opt": [True], "sar": [False]})
    expected = np.moveaxis(optical[..., [0, 2]], -1, 0)
    np.testing.assert_array_equal(first.arrays["opt"][0][0], expected)
    np.testing.assert_array_equal(second.arrays["sar"][0][0, 0], radar)
    assert second.dates == {"opt": [None], "sar": [None]}


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 5), (5, 1), (1, 1, 1)])
def test_a_file_of_one_band(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = numbers(0, *shape)
    monkeypatch.setattr(images, "read_tiff", lambda path, stacked: TiffImage(values, (SILENT,)))
    np.testing.assert_array_equal(
        images._single({"B4": tmp_path}, "B4").values, values.reshape(shape[-2:])
    )


def test_a_file_of_several_bands_is_no_single_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = TiffImage(numbers(0, 3, 8, 8), (SILENT,) * 3)
    monkeypatch.setattr(images, "read_tiff", lambda path, stacked: image)
    with pytest.raises(TileError, match="has 3 bands, expected one"):
        images._single({"B4": tmp_path}, "B4")


def test_an_undated_image_is_the_first_season(
    tmp_path: Path, write_mapping: Callable[..., str]
) -> None:
    def edit(settings: dict[str, Any]) -> None:
        settings.update(seasons=3, pairing="seasons")
        settings["modalities"]["opt"].update(files=r"(?P<tile>\w+)/(?P<date>\d{8})\.tif")
        settings["modalities"]["sar"].update(files=r"(?P<tile>\w+)/S1\.tif")

    for number, day in enumerate(("20200301", "20200601", "20200901")):
        write(tmp_path / "in" / "p" / f"{day}.tif", numbers(number, 8, 8, 3))
    radar = write(tmp_path / "in" / "p" / "S1.tif", numbers(9, 8, 8).astype("f4"))
    source = open_source(tmp_path / "in", mapping=write_mapping(edit))
    (reading,) = source.read(source.items()[0])
    assert reading.valid == {"opt": [True] * 3, "sar": [True, False, False]}
    assert reading.dates["sar"] == [None] * 3
    np.testing.assert_array_equal(reading.arrays["sar"][0][0, 0], radar)


def test_one_grid_may_be_named_for_every_band(write_mapping: Callable[..., str]) -> None:
    one, each = (
        load_mapping(write_mapping(lambda s, gsd=gsd: s["modalities"]["opt"].update(gsd=gsd)))
        for gsd in (10, {"B4": 10, "B8": 10})
    )
    assert each.modalities["opt"].gsd == {"B4": 10, "B8": 10}
    assert one.modalities["opt"].bands == each.modalities["opt"].bands


def test_single_band_files_on_native_grids_paired_by_season(
    tmp_path: Path, write_mapping: Callable[..., str]
) -> None:
    def edit(settings: dict[str, Any]) -> None:
        settings.update(seasons=3, pairing="seasons")
        path = r"(?P<tile>\w+)/(?P<date>\d{4}-\d\d-\d\d)/(?P<band>B\d+A?)\.tif"
        settings["modalities"]["opt"].update(
            files=path, gsd={"B4": 10, "B8A": 20}, bands={"B4": "B04", "B8A": "B8A"}
        )
        settings["modalities"]["sar"].update(files=r"(?P<tile>\w+)/S1_(?P<date>\d{8})T\d+\.tif")

    written = {}
    for day in ("2020-03-01", "2020-06-01", "2020-09-01"):
        for band, size in (("B04", 8), ("B8A", 4)):
            values = numbers(len(written), size, size)
            written[day, band] = write(tmp_path / "in" / "p" / day / f"{band}.tif", values)
    radar = write(tmp_path / "in" / "p" / "S1_20200609T1200.tif", numbers(9, 8, 8).astype("f4"))
    (tmp_path / "in" / "p" / "2020-09-01" / "B8A.tif").unlink()
    write(tmp_path / "in" / "p" / "2020-13-01" / "B04.tif", numbers(0, 8, 8))
    source = open_source(tmp_path / "in", mapping=write_mapping(edit))
    assert {name: spec.shape for name, spec in source.arrays.items()} == {
        "opt_10m": (3, 1, 8, 8),
        "opt_20m": (3, 1, 4, 4),
        "sar_10m": (3, 1, 8, 8),
    }
    (reading,) = source.read("p")
    assert reading.valid == {"opt": [True, True, False], "sar": [False, True, False]}
    assert reading.dates["sar"][1] == date(2020, 6, 9)
    assert reading.dates["opt"][:2] == [date(2020, 3, 1), date(2020, 6, 1)]
    np.testing.assert_array_equal(reading.arrays["opt"][1][1, 0], written["2020-06-01", "B8A"])
    np.testing.assert_array_equal(reading.arrays["sar"][0][1, 0], radar)
    assert [tuple(each) for each in reading.skipped] == [
        (
            "p/2020-13-01/B04.tif",
            "'2020-13-01' is not a date YYYYMMDD, YYYY-MM-DD or YYYYDDD",
            "date",
        ),
        ("p opt 2020-09-01", "no file of band B8A; there are B04", "missing"),
    ]


def test_dtype_of_the_mapping(tmp_path: Path, write_mapping: Callable[..., str]) -> None:
    def edit(settings: dict[str, Any]) -> None:
        settings["modalities"].pop("sar")
        settings["modalities"]["opt"].update(dtype="uint16", bands={"B4": 1})

    def without(settings: dict[str, Any]) -> None:
        edit(settings)
        settings["modalities"]["opt"].pop("dtype")

    write(tmp_path / "in" / "S2" / "a.tif", numbers(0, 6, 6).astype(np.int64))
    write(tmp_path / "in" / "S2" / "b.tif", numbers(0, 6, 6).astype(np.int64) - 9000)
    source = open_source(tmp_path / "in", mapping=write_mapping(edit))
    assert next(source.read("a")).arrays["opt"][0].dtype == np.uint16
    assert "cannot be stored as uint16" in next(source.read("b")).skipped[0].why
    with pytest.raises(DataError, match=r"stored as int64; expected one of .*: name one as its dt"):
        open_source(tmp_path / "in", mapping=write_mapping(without))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: s.update(sample="{til}"),
            r"sample is '\{til\}', but the pattern of modality 'o",
        ),
        (lambda s: s.update(pairing="days"), r"pairing must be steps or seasons, but got 'days'"),
        (lambda s: s["modalities"]["opt"].update(gsd={"B4": 10}), r"gsd has no value for band B8"),
        (
            lambda s: s["modalities"]["opt"].update(gsd={"B4": 10, "B8": 20}),
            r"of one file share one grid",
        ),
        (lambda s: s["modalities"]["opt"].update(dtype="int64"), r"dtype must be one of uint8, "),
        (
            lambda s: s["modalities"]["opt"].update(files="S2/.*"),
            r"files must be a pattern with on",
        ),
    ],
)
def test_wrong_mapping(
    tmp_path: Path,
    write_mapping: Callable[..., str],
    edit: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(tmp_path, mapping=write_mapping(edit))


def test_linked_folders_are_followed_once(
    tmp_path: Path, write_mapping: Callable[..., str]
) -> None:
    write(tmp_path / "disk" / "a.tif", numbers(0, 6, 6, 4))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "S2").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "in")
    source = open_source(tmp_path / "in", mapping=write_mapping(), modalities=["opt"])
    assert source.items() == ["a"]


@pytest.mark.parametrize("zone", [1, 31, 60])
@pytest.mark.parametrize("south", [False, True])
def test_positions_equal_proj(zone: int, south: bool) -> None:
    warp = pytest.importorskip("rasterio.warp", reason="the independent projection is PROJ")
    epsg = (32700 if south else 32600) + zone
    for x, y in ((300000, 4000000), (500000, 100000), (705000.5, 7654321)):
        north = 1e7 - y if south else y
        (longitude,), (latitude,) = warp.transform(f"EPSG:{epsg}", "EPSG:4326", [x], [north])
        found = to_degrees(x, north, epsg)
        assert found is not None
        assert (found[0] + 180) % 360 == pytest.approx((longitude + 180) % 360, abs=1e-6)
        assert found[1] == pytest.approx(latitude, abs=1e-6)
    assert to_degrees(3.5, 47.0, 4326) == (3.5, 47.0)
    assert to_degrees(500000, 100000, 3857) is None
    assert to_degrees(-360, 90, 4326) == (-360, 90)
    for outside in ((-360.5, 0), (360.5, 0), (0, -90.5), (0, 90.5)):
        assert to_degrees(*outside, 4326) is None


def test_bands_of_a_composite_in_any_spelling(
    write_mapping: Callable[..., str], tmp_path: Path
) -> None:
    write(tmp_path / "in" / "S2" / "a.tif", numbers(0, 8, 8, 3))
    mapping = write_mapping(lambda s: s["modalities"]["opt"].update(composite=["b08", "B04"]))
    pack(open_source(tmp_path / "in", mapping=mapping), tmp_path / "out")
    (modality,) = ShardSet(tmp_path / "out").modalities
    assert modality.composite == ("B8", "B4")
    mapping = write_mapping(lambda s: s["modalities"]["opt"].update(composite="B4"))
    with pytest.raises(DataError, match="composite must be a list of bands"):
        open_source(tmp_path / "in", mapping=mapping)


def test_modalities_without_files_are_left_out(tmp_path: Path) -> None:
    for folder, bands in (("S2L2A", 12), ("S1GRD", 2)):
        values = numbers(bands, 8, 8, bands)
        values = values.astype(np.float32) if bands == 2 else values
        write(tmp_path / folder / "380D_378R_2_3.tif", values)
    assert [each.name for each in open_source(tmp_path).modalities] == ["s2l2a", "s1grd"]


def test_overlapping_samples_of_a_place_have_one_position(tmp_path: Path) -> None:
    for patch, west in ((30, 9.99), (31, 10.01)):
        for kind, bands in (("s1", 2), ("s2", 13)):
            name = f"ROIs1158_spring/{kind}_1/ROIs1158_spring_{kind}_1_p{patch}.tif"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                *(tmp_path / name, "w"),
                driver="GTiff",
                height=8,
                width=8,
                count=bands,
                dtype="float32" if kind == "s1" else "uint16",
                crs="EPSG:4326",
                transform=rasterio.Affine(1e-4, 0, west, 0, -1e-4, 50),
            ) as file:
                file.write(np.ones((bands, 8, 8), file.dtypes[0]))
    source = open_source(tmp_path)
    readings = [reading for item in source.items() for reading in source.read(item)]
    first, second = (each.position for each in readings)
    assert first == second == pytest.approx((9.9904, 49.9996), abs=1e-6)
