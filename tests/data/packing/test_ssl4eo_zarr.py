"""SSL4EO-S12 v1.1: generated files, written by xarray and webdataset, come back to the bit."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.formats.zarr_files import open_series
from seamo_fast.data.packing.sources.formats.zarrzip import ZarrZip
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality
from tests.data.packing.published import (
    FOLDERS,
    SIZE,
    stored_bands,
    times_of,
    write_group,
    write_tar,
    write_zarr,
)

PLACES = ("0080717", "0060573", "0179869")


@pytest.fixture(scope="module")
def zarr_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zarr")
    for name in ("s2l2a", "s1grd"):
        write_zarr(root, name, "train", 1, PLACES)
        write_zarr(root, name, "val", 1, ("0000001",))
    return root


@pytest.fixture(scope="module")
def tar_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tar")
    for name in ("s2l2a", "s1grd"):
        write_tar(root, name, "train", 1, PLACES)
    return root


def test_a_location_of_absurd_size_takes_no_memory(tmp_path: Path) -> None:
    """A .zarray of a kilobyte, no chunk: 16 GB of nothing, time by time."""
    (tmp_path / "S2L2A").mkdir()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        meta = {"shape": [64, 12, 3200, 3200], "chunks": [1, 12, 3200, 3200], "dtype": "<i2"}
        rest = {"fill_value": 0, "compressor": None, "order": "C", "zarr_format": 2}
        file.writestr("bands/.zarray", json.dumps({**meta, **rest}))
    with tarfile.open(tmp_path / "S2L2A" / "a.tar", "w") as tar:
        member = tarfile.TarInfo("p.zarr.zip")
        member.size = len(held.getvalue())
        tar.addfile(member, io.BytesIO(held.getvalue()))
    with pytest.raises(DataError, match=r"bands have the absurd shape \[64, 12, 3200, 3200\]"):
        open_source(tmp_path)


def test_zarr_equals_xarray(zarr_root: Path, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="the independent reader is xarray")
    zarr = pytest.importorskip("zarr")
    pack(open_source(zarr_root), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert len(shards) == 4
    assert [each.name for each in shards.modalities] == ["s2l2a", "s1grd"]
    for modality in shards.modalities:
        assert modality == get_modality(modality.name, "ssl4eo-s12-v1.1")
    assert shards.modalities[0].offset == 1000
    for m, (name, folder) in enumerate({"s2l2a": "S2L2A", "s1grd": "S1GRD"}.items()):
        file = zarr_root / "train" / folder / "ssl4eos12_train_seasonal_data_000001.zarr.zip"
        store = zarr.storage.ZipStore(str(file), mode="r")
        with xarray.open_zarr(store, consolidated=False) as dataset:
            for index, place in enumerate(PLACES):
                expected = dataset.bands.sel(sample=place)
                sample = shards.read(index)
                assert sample.bands[name][0].dtype == expected.dtype
                assert sample.bands[name][0].tobytes() == expected.values.tobytes()
                days = dataset.time_.sel(sample=place).values.astype("M8[D]").astype(int)
                assert sample.dates[:, m].tolist() == days.tolist()
    assert shards.manifest.skipped == ()


def test_part_of_the_dataset_and_positions(zarr_root: Path) -> None:
    source = open_source(zarr_root / "val")
    assert source.items() == ["ssl4eos12_val_seasonal_data_000001.zarr.zip"]
    (reading,) = source.read(source.items()[0])
    assert (reading.id, reading.place, reading.position) == ("0000001", "0000001", (-120, -60))
    assert open_source(zarr_root).estimate() == 6  # 3 of the first file, two files


def test_tar_equals_what_was_written(tar_root: Path, tmp_path: Path) -> None:
    pack(open_source(tar_root), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert [shards.describe(i).split("(")[1] for i in range(3)] == [
        f"ssl4eos12_train_{n:07d})" for n in range(3)
    ]
    for m, name in enumerate(("s2l2a", "s1grd")):
        expected = stored_bands(name, 10 + len(name), (3, 4))
        for n in range(3):
            sample = shards.read(n)
            assert sample.bands[name][0].tobytes() == expected[n].tobytes()
            assert sample.dates[0, m] == (date(2020, 1 + n, 10) - date(1970, 1, 1)).days
    readings = list(open_source(tar_root).read("train/ssl4eos12_shard_000001.tar"))
    assert [reading.place for reading in readings] == list(PLACES)


def write_one(root: Path, name: str, bands: np.ndarray, times: np.ndarray) -> None:
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    write_group(folder / "a.zarr.zip", name, bands[None], times[None], ["0000007"])


def test_seasons_are_sorted_by_date_and_paired(tmp_path: Path) -> None:
    optical, radar = stored_bands("s2l2a", 0, (4,)), stored_bands("s1grd", 1, (2,))
    write_one(tmp_path / "in", "s2l2a", optical, times_of("2020-01-01", 4)[[2, 0, 3, 1]])
    write_one(tmp_path / "in", "s1grd", radar, times_of("2020-04-02", 2, 95))
    source = open_source(tmp_path / "in")
    (reading,) = source.read("a.zarr.zip")
    np.testing.assert_array_equal(reading.arrays["s2l2a"][0], optical[[1, 3, 0, 2]])
    assert reading.valid["s1grd"] == [False, True, True, False]
    np.testing.assert_array_equal(reading.arrays["s1grd"][0][1:3], radar)
    assert reading.dates["s1grd"][1:3] == [date(2020, 4, 2), date(2020, 7, 6)]


def test_unmeasured_times_unknown_dates_and_a_lacking_modality(tmp_path: Path) -> None:
    optical = stored_bands("s2l2a", 0, (4,))
    optical[2] = 0
    times = times_of("2020-01-01", 4)
    times[1] = np.datetime64("NaT")
    write_one(tmp_path / "in", "s2l2a", optical, times)
    write_one(tmp_path / "in", "s1grd", stored_bands("s1grd", 0, (4,)), times)
    (tmp_path / "in" / "S1GRD" / "a.zarr.zip").rename(tmp_path / "in" / "S1GRD" / "b.zarr.zip")
    (reading,) = open_source(tmp_path / "in").read("a.zarr.zip")
    assert reading.valid == {"s2l2a": [True, True, False, True], "s1grd": [False] * 4}
    assert reading.dates["s2l2a"][:2] == [date(2020, 1, 1), None]
    assert [remark.what for remark in reading.skipped] == ["a.zarr.zip s2l2a 0000007 time 2"]
    assert [remark.what for remark in reading.noted] == ["a.zarr.zip s1grd 0000007"]


def test_other_files_of_a_folder_are_left_alone(zarr_root: Path, tmp_path: Path) -> None:
    shutil.copytree(zarr_root, tmp_path / "in")
    expected = open_source(zarr_root).items()
    for name in ("README.txt", ".a.zarr.zip", "a.zarr.zip.part"):
        (tmp_path / "in" / "train" / "S2L2A" / name).write_bytes(b"no zarr")
    assert open_source(tmp_path / "in").items() == expected


def test_other_bands_than_the_folder_says(tmp_path: Path) -> None:
    bands = stored_bands("s2l2a", 0, (4,))
    write_one(tmp_path / "in", "s2l2a", bands, times_of("2020-01-01", 4))
    (tmp_path / "in" / "S2L2A").rename(tmp_path / "in" / "S2L1C")
    with pytest.raises(DataError, match=r"'s2l1c' expects the 13 bands B1, .* but got 12: B1"):
        open_source(tmp_path / "in")


def test_zarr_arrays_equal_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="the independent reader is zarr")
    numcodecs = pytest.importorskip("numcodecs")
    store = zarr.storage.ZipStore(str(tmp_path / "a.zip"), mode="w")
    group = zarr.create_group(store, zarr_format=2)
    rng = np.random.default_rng(0)
    codecs = {
        "blosc": numcodecs.Blosc("lz4", shuffle=numcodecs.Blosc.BITSHUFFLE),
        "zstd": numcodecs.Zstd(),
        "zlib": numcodecs.Zlib(),
        "gzip": numcodecs.GZip(),
        "raw": None,
    }
    for name, codec in codecs.items():
        values = rng.integers(-9, 9, (5, 7, 6)).astype(">i4")
        array = group.create_array(
            name, shape=values.shape, chunks=(2, 3, 4), dtype=values.dtype, compressors=codec,
            fill_value=-1,
        )  # fmt: skip
        array[:3] = values[:3]  # the last chunks stay unwritten
    codecs["empty"] = None
    group.create_array("empty", shape=(0, 4), chunks=(1, 4), dtype="<f4", compressors=None)
    store.close()
    opened = zarr.open_group(zarr.storage.ZipStore(str(tmp_path / "a.zip"), mode="r"), mode="r")
    with ZarrZip(tmp_path / "a.zip", "a.zip") as file:
        for name in codecs:
            np.testing.assert_array_equal(file.array(name).all(), opened[name][:])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed(zarr_root: Path) -> None:
    path = next(zarr_root.rglob("S2L2A/*train*.zip"))
    before = descriptors()
    with ZarrZip(path, "a.zip") as kept:
        assert descriptors() == before + 1
    assert descriptors() == before
    with open_series(path, get_modality("s2l2a")) as series:
        assert descriptors() == before + 1
    assert (kept, series) is not None  # while they live: not the garbage collector has closed them
    assert descriptors() == before
    with pytest.raises(DataError):
        open_series(path, get_modality("s1grd"))
    assert descriptors() == before


def test_file_that_is_damaged_is_named(zarr_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "S2L2A"
    folder.mkdir(parents=True)
    data = next(zarr_root.rglob("S2L2A/*train*.zip")).read_bytes()
    (folder / "a.zarr.zip").write_bytes(data)
    (folder / "b.zarr.zip").write_bytes(data[: len(data) // 2])
    manifest = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert [remark.what for remark in manifest.skipped] == ["b.zarr.zip"]
    assert "S2L2A/b.zarr.zip cannot be read as a ZIP file" in manifest.skipped[0].why
    assert ShardSet(tmp_path / "out").read(0).bands["s2l2a"][0].shape == (4, 12, SIZE, SIZE)
