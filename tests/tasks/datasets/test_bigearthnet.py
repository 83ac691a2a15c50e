"""BigEarthNet v1 and v2 against rasterio and against what was written: bands, labels, dates."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import IGNORE, BigEarthNet, BigEarthNetV2, LabelledTile
from seamo_fast.tasks.datasets.bigearthnet.classes import (
    _CORINE,
    CLASSES_19,
    CLASSES_43,
    CODES_TO_19,
    TO_19,
)
from seamo_fast.tasks.datasets.bigearthnet.v1 import BIGEARTHNET_S1, BIGEARTHNET_S2
from tests.tasks.datasets.layouts import (
    CODES,
    PATCHES,
    PATCHES_V2,
    S2_L2A,
    size,
    values,
    write_bigearthnet,
    write_bigearthnet_v2,
    write_metadata,
)


def real(data_dir: Path, name: str) -> Path:
    if not (data_dir / name).is_dir():
        pytest.skip(f"real tiles: no folder {data_dir / name}")
    return data_dir / name


def check_bands(item: LabelledTile, s2: Path, s1: Path | None) -> None:
    """Compares every band with what rasterio reads."""
    rasterio = pytest.importorskip("rasterio")
    for modality, folder in ((BIGEARTHNET_S2, s2), (BIGEARTHNET_S1, s1)):
        for grid, tensor in zip(modality.grids, item.bands[modality.name], strict=True):
            for place, channel in enumerate(grid.bands):
                if folder is None:
                    assert not tensor.any()
                    continue
                name = modality.band_names[channel]
                code = f"B{name[1:]:0>2}" if modality is BIGEARTHNET_S2 else name
                with rasterio.open(folder / f"{folder.name}_{code}.tif") as file:
                    np.testing.assert_array_equal(tensor[0, place], file.read(1))
                    assert tensor.dtype == getattr(torch, file.dtypes[0])


def test_v1_equals_rasterio(data_dir: Path) -> None:
    root = real(data_dir, "bigearthnet_v1")
    dataset = BigEarthNet(root, num_classes=43)
    assert len(dataset) == 7
    pairs = 0
    for number, entry in enumerate(dataset.entries):
        item = dataset.read(number)
        path = root / "S2" / item.id / f"{item.id}_labels_metadata.json"
        metadata = json.loads(path.read_text())
        assert item.label is not None
        names = [CLASSES_43[index] for index in item.label.nonzero()[:, 0]]
        assert sorted(names) == sorted(metadata["labels"])
        day = date.fromisoformat(metadata["acquisition_date"][:10])
        assert item.dates["s2l2a"] == [day]
        radar = entry.folders["s1grd"]
        check_bands(item, root / "S2" / item.id, radar)
        assert item.valid == {"s2l2a": [True], "s1grd": [radar is not None]}
        assert item.dates["s1grd"] == [None] or radar is not None
        if radar is not None:
            metadata = json.loads((radar / f"{radar.name}_labels_metadata.json").read_text())
            assert metadata["corresponding_s2_patch"] == item.id
            assert item.dates["s1grd"] == [date.fromisoformat(metadata["acquisition_time"][:10])]
            pairs += 1
    assert pairs == 3


def test_v1_of_19_classes(data_dir: Path) -> None:
    dataset = BigEarthNet(real(data_dir, "bigearthnet_v1"), modalities=["s2l2a"])
    by_id = {entry.id: dataset.read(number) for number, entry in enumerate(dataset.entries)}
    label = by_id["S2B_MSIL2A_20170927T094019_66_56"].label
    assert label is not None
    assert [CLASSES_19[index] for index in label.nonzero()[:, 0]] == [
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        *("Broad-leaved forest", "Mixed forest", "Transitional woodland, shrub"),
    ]
    assert list(by_id["S2A_MSIL2A_20180510T94033_19_86"].bands) == ["s2l2a"]


def test_v2_equals_rasterio(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the [geo] extra")
    rasterio = pytest.importorskip("rasterio")
    folder = real(data_dir, "bigearthnet_v2")
    optical = next((folder / "BigEarthNet-S2").glob("*/*"))
    radar = next((folder / "BigEarthNet-S1").glob("*/*"))
    (path,) = (folder / "Reference_Maps").glob("*/*/*.tif")
    # the three are of different patches: the map is linked to where the optical one has it
    for name in ("BigEarthNet-S2", "BigEarthNet-S1"):
        (tmp_path / name).symlink_to(folder / name)
    linked = tmp_path / "Reference_Maps" / optical.parent.name / optical.name
    linked.mkdir(parents=True)
    (linked / f"{optical.name}_reference_map.tif").symlink_to(path)
    write_metadata(tmp_path, [(optical.name, (radar.name, ["Arable land"], "test"))])
    item = BigEarthNetV2(tmp_path, "test", maps=True).read(0)
    check_bands(item, optical, radar)
    assert item.dates == {"s2l2a": [date(2017, 6, 13)], "s1grd": [date(2017, 6, 13)]}
    assert item.label is not None
    assert item.label.nonzero().tolist() == [[2]]
    with rasterio.open(path) as file:
        codes = file.read(1)
    numbers = {211: 2, 231: 4, 311: 8, 313: 10}  # CORINE level 3
    assert set(np.unique(codes)) == set(numbers)
    assert item.mask is not None
    for code, number in numbers.items():
        np.testing.assert_array_equal(item.mask == number, codes == code)


def test_v1_follows_the_official_lists(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path)
    assert BigEarthNet(tmp_path).parts == ("train", "test")
    first, second = PATCHES
    train, test = BigEarthNet(tmp_path, "train"), BigEarthNet(tmp_path, "test", 43)
    assert [item.id for item in train.entries] == [first]
    assert [item.id for item in test.entries] == [second]
    item = train.read(0)
    assert (item.split, item.number) == ("train", 0)
    assert item.dates == {"s2l2a": [date(2017, 6, 13)], "s1grd": [date(2017, 6, 13)]}
    stored = values(f"{first}_B11.tif", (60, 60), "uint16")
    np.testing.assert_array_equal(item.bands["s2l2a"][1][0, 4], stored)
    stored = values(f"{PATCHES[first][0]}_VH.tif", (120, 120), "float32")
    np.testing.assert_array_equal(item.bands["s1grd"][0][0, 1], stored)
    assert item.label is not None
    # airports are in none of the 19
    assert item.label.nonzero()[:, 0].tolist() == [0, CLASSES_19.index("Inland wetlands")]
    label = test.read(0).label
    assert label is not None
    assert label.nonzero()[:, 0].tolist() == [CLASSES_43.index("Bare rock")]
    label = BigEarthNet(tmp_path, "test").read(0).label
    assert label is not None
    assert label.sum() == 0
    with pytest.raises(DataError, match=r"no items in 'val'; its parts: train, test"):
        BigEarthNet(tmp_path, "val")


def test_v1_lists_of_the_authors_and_bad_ones(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path, lists=False)
    (first, (radar, _)), (second, _) = PATCHES.items()
    with pytest.raises(DataError, match="its lists are missing"):
        BigEarthNet(tmp_path, "train")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "val.csv").write_text(f"{first}\n{second}\n")
    assert len(BigEarthNet(tmp_path, "val", modalities=["s2l2a"])) == 2
    with pytest.raises(DataError, match=r"val.csv must name a patch and its radar patch"):
        BigEarthNet(tmp_path, "val")
    (tmp_path / "splits" / "test.csv").write_text(f"{first}\n")
    with pytest.raises(DataError, match=f"{first} is in val and test"):
        BigEarthNet(tmp_path, modalities=["s2l2a"])
    (tmp_path / "splits" / "test.csv").unlink()
    (tmp_path / "splits" / "val.csv").write_text(f"../../{first},{radar}\n")
    with pytest.raises(DataError, match="which is no file name"):
        BigEarthNet(tmp_path, "val")


def test_v1_pairs_by_metadata_without_lists(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path, lists=False)
    radar, _ = next(iter(PATCHES.values()))
    dataset = BigEarthNet(tmp_path)
    assert dataset.read(0).valid["s1grd"] == dataset.read(1).valid["s1grd"] == [True]
    path = tmp_path / "BigEarthNet-S1-v1.0" / radar / f"{radar}_labels_metadata.json"
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        BigEarthNet(tmp_path)
    dataset = BigEarthNet(tmp_path, on_bad="skip")
    assert path.name in dataset.remarks[0]
    assert [dataset.read(number).valid["s1grd"] for number in (0, 1)] == [[False], [True]]


def test_v1_without_optical_images_leaves_patches_without_radar_out(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path, lists=False)
    first, second = PATCHES
    shutil.rmtree(tmp_path / "BigEarthNet-S1-v1.0" / PATCHES[first][0])
    assert [entry.id for entry in BigEarthNet(tmp_path).entries] == [first, second]
    alone = BigEarthNet(tmp_path, modalities=["s1grd"])
    assert [entry.id for entry in alone.entries] == [second]
    assert alone.remarks == (f"{first} has no radar patch and is left out",)


def test_v2_follows_the_metadata(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the [geo] extra")
    write_bigearthnet_v2(tmp_path)
    dataset = BigEarthNetV2(tmp_path, maps=True)
    assert dataset.parts == ("train", "val")
    for number, (patch, (radar, labels, _)) in enumerate(PATCHES_V2.items()):
        item = dataset.read(number)
        for band in S2_L2A:
            stored = values(f"{patch}_{band}.tif", [size(band)] * 2, "uint16")
            assert any(
                np.array_equal(stored, image)
                for grid in item.bands["s2l2a"]
                for image in grid[0].numpy()
            )
        stored = values(f"{radar}_VV.tif", (120, 120), "float32")
        np.testing.assert_array_equal(item.bands["s1grd"][0][0, 0], stored)
        assert item.label is not None
        assert {CLASSES_19[index] for index in item.label.nonzero()[:, 0]} == set(labels)
        codes = np.array(CODES)[values(patch, (120, 120), "uint16") % len(CODES)]
        expected = {111: 0, 112: 0, 211: 2, 313: 10, 412: 15, 523: 18}
        assert item.mask is not None
        for code in CODES:
            assert set(item.mask.numpy()[codes == code]) == {expected.get(code, IGNORE)}
    assert BigEarthNetV2(tmp_path, "val").read(0).mask is None


def test_v2_refuses_other_metadata(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the [geo] extra")
    write_bigearthnet_v2(tmp_path)
    patch, (radar, _, _) = next(iter(PATCHES_V2.items()))
    write_metadata(tmp_path, [(patch, (radar, ["Mars"], "train"))])
    dataset = BigEarthNetV2(tmp_path)
    with pytest.raises(DataError, match=r"metadata.parquet: .* unknown label 'Mars'"):
        dataset.read(0)
    write_metadata(tmp_path, [(patch, (radar, [], "holdout"))])
    with pytest.raises(DataError, match="split 'holdout'"):
        BigEarthNetV2(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"metadata.parquet cannot be read"):
        BigEarthNetV2(tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    with pytest.raises(DataError, match=r"metadata.parquet is missing"):
        BigEarthNetV2(tmp_path)


def test_bad_files_are_named(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path)
    first = next(iter(PATCHES))
    folder = tmp_path / "BigEarthNet-v1.0" / first
    (folder / f"{first}_B05.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=rf"{first}_B05.tif cannot be read .*in {folder}"):
        BigEarthNet(tmp_path)[0]
    (folder / f"{first}_B05.tif").unlink()
    with pytest.raises(DataError, match=rf"{first}_B05.tif is missing"):
        BigEarthNet(tmp_path)[0]
    (folder / f"{first}_labels_metadata.json").write_text('{"labels": ["Mars"]}')
    with pytest.raises(DataError, match=r"metadata.json has the unknown label 'Mars'"):
        BigEarthNet(tmp_path)[0]
    with pytest.raises(ValueError, match="19 or 43"):
        BigEarthNet(tmp_path, num_classes=17)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="some of s2l2a, s1grd"):
        BigEarthNet(tmp_path, modalities=["s2l1c"])


def test_the_43_classes_merge_as_published() -> None:
    assert (len(CLASSES_43), len(CLASSES_19)) == (43, 19)
    merged = [name for name, number in TO_19.items() if number is not None]
    assert len(merged) == 32
    assert {TO_19[name] for name in merged} == set(range(19))
    # the names that both have mean the same class
    for name in set(CLASSES_43) & set(CLASSES_19):
        assert TO_19[name] == CLASSES_19.index(name)


def test_the_classes_are_those_of_corine_and_of_the_paper() -> None:
    # Sumbul et al. (2021), table 3, by CORINE code; glaciers (335) are not in the data set
    of_19 = [
        *([111, 112], [121], [211, 212, 213], [221, 222, 223, 241], [231], [242], [243], [244]),
        *([311], [312], [313], [321, 333], [322, 323], [324], [331], [411, 412], [421, 422]),
        *([511, 512], [521, 522, 523]),
    ]
    in_none = [122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 423]
    expected = {code: number for number, codes in enumerate(of_19) for code in codes}
    known = {code: int(number) for code, number in enumerate(CODES_TO_19) if number != IGNORE}
    assert known == expected
    assert sorted(code for code, _, number in _CORINE if number is None) == in_none
    assert len(CLASSES_43) == len(expected) + len(in_none) == 43
