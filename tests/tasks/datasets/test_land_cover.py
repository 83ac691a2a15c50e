"""Datasets of land cover maps: SEN12MS, DFC2020 and SegMunich."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import DFC2020, IGNORE, SEN12MS, SegMunich
from seamo_fast.tasks.datasets.segmunich import CLASSES, SEGMUNICH
from seamo_fast.tasks.datasets.sen12ms import IGBP, SEN12MS_S2, SIMPLIFIED
from tests.tasks.datasets.layouts import values, write_segmunich, write_tif, write_triplets

SPRING = "ROIs1158_spring"


def test_sen12ms_equals_rasterio(data_dir: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    real = data_dir / "sen12ms_cr"
    if not real.is_dir():
        pytest.skip(f"real tiles: no folder {real}")
    # SEN12MS-CR holds the same tiles in other folders, and no land cover
    paths = {"s1": real / "s1", "s2": real / "s2_cloudfree"}
    for sensor, folder in paths.items():
        place = tmp_path / "ROIs2017_winter" / f"{sensor}_112"
        place.mkdir(parents=True)
        link = place / f"ROIs2017_winter_{sensor}_112_p797.tif"
        link.symlink_to(folder / "ROIs2017_winter_112_p797.tif")
    cover = values("cover", (4, 256, 256), "uint8") % 17 + 1
    name = "ROIs2017_winter_lc_112_p797.tif"
    write_tif(tmp_path / "ROIs2017_winter" / "lc_112" / name, cover.astype(np.uint8))
    item = SEN12MS(tmp_path).read(0)
    assert item.id == "ROIs2017_winter_s2_112_p797"
    for modality, sensor in (("s2l1c", "s2"), ("s1grd", "s1")):
        with rasterio.open(paths[sensor] / "ROIs2017_winter_112_p797.tif") as file:
            np.testing.assert_array_equal(item.bands[modality][0][0], file.read())
    assert item.mask is not None
    np.testing.assert_array_equal(item.mask, cover[0].astype(int) - 1)
    # what physics says of the order: hardly any light in the cirrus band, B8A is close to B8
    levels = item.bands["s2l1c"][0][0].double().mean((1, 2)).tolist()
    means = dict(zip(SEN12MS_S2.band_names, levels, strict=True))
    assert means["B10"] < 0.1 * min(mean for name, mean in means.items() if name != "B10")
    assert abs(means["B8A"] / means["B8"] - 1) < 0.3 < abs(means["B9"] / means["B8"] - 1)


def test_sen12ms_merges_and_ignores_classes(tmp_path: Path) -> None:
    write_triplets(tmp_path, SPRING, "lc", ["7_p30"])
    cover = values(f"{SPRING}_lc_7_p30.tif", (4, 256, 256), "uint8")[0] % 19
    full = SEN12MS(tmp_path).read(0).mask
    merged = SEN12MS(tmp_path, scheme="simplified").read(0).mask
    assert full is not None
    assert merged is not None
    assert (len(IGBP), len(SIMPLIFIED)) == (17, 10)
    assert SEN12MS(tmp_path).classes == IGBP
    assert SEN12MS(tmp_path, scheme="simplified").classes == SIMPLIFIED
    # as published for the Data Fusion Contest 2020, by IGBP code
    published = [0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 6, 8, 9, 10]
    for code in range(19):
        known = 1 <= code <= 17
        assert set(full.numpy()[cover == code]) == {code - 1 if known else IGNORE}
        assert set(merged.numpy()[cover == code]) == {published[code] - 1 if known else IGNORE}


def test_sen12ms_follows_either_list(tmp_path: Path) -> None:
    write_triplets(tmp_path, SPRING, "lc", ["7_p30", "7_p31", "63_p1"])
    with pytest.raises(DataError, match=r"no items in 'train'.*lists are missing"):
        SEN12MS(tmp_path, "train")
    (tmp_path / "SEN12MS_holdOutScenes.txt").write_text(f"{SPRING}/s1_63\n")
    names = [f"{SPRING}_s2_{patch}" for patch in ("63_p1", "7_p30", "7_p31")]
    assert [each.id for each in SEN12MS(tmp_path, "train").entries] == names[1:]
    assert [each.id for each in SEN12MS(tmp_path, "test").entries] == names[:1]
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train_list.txt").write_text(f"{names[0]}.tif\n{names[2]}.tif\n")
    assert [each.id for each in SEN12MS(tmp_path, "train").entries] == [names[0], names[2]]
    (tmp_path / "splits" / "train_list.txt").write_text("ROIs1158_spring_63_p1.tif\n")
    with pytest.raises(DataError, match=r"train_list.txt names 'ROIs1158_spring_63_p1.tif'"):
        SEN12MS(tmp_path, "train")


def test_dfc2020(tmp_path: Path) -> None:
    write_triplets(tmp_path, "ROIs0000_validation", "dfc", ["validation_p0", "validation_p1"])
    write_triplets(tmp_path, "ROIs0000_test", "dfc", ["0_p3"])
    dataset = DFC2020(tmp_path)
    assert (dataset.parts, len(dataset), len(DFC2020(tmp_path, "test"))) == (("val", "test"), 3, 1)
    item = DFC2020(tmp_path, "test", num_classes=10).read(0)
    name = "ROIs0000_test_{}_0_p3.tif"
    stored = values(name.format("s2"), (13, 256, 256), "uint16")
    np.testing.assert_array_equal(item.bands["s2l1c"][0][0], stored)
    stored = values(name.format("s1"), (2, 256, 256), "float32")
    np.testing.assert_array_equal(item.bands["s1grd"][0][0], stored)
    codes = values(name.format("dfc"), (2, 256, 256), "uint8")[0] % 12
    scored = DFC2020(tmp_path, "test")
    assert scored.classes == (
        *("Forest", "Shrubland", "Grassland", "Wetland", "Cropland", "Urban/built-up", "Barren"),
        "Water",
    )
    eight = [-1, 0, 1, -1, 2, 3, 4, 5, -1, 6, 7, -1]  # by code 0 to 11
    np.testing.assert_array_equal(scored.read(0).mask, np.array(eight)[codes])
    ten = [-1, *range(10), -1]
    np.testing.assert_array_equal(item.mask, np.array(ten)[codes])


def test_segmunich(tmp_path: Path) -> None:
    write_segmunich(tmp_path / "TUM_128")
    dataset = SegMunich(tmp_path, "train")
    assert [entry.id for entry in dataset.entries] == ["1", "2"]
    item = dataset.read(1)
    stored = values("2", (10, 128, 128), "uint16")
    np.testing.assert_array_equal(item.image, stored)
    assert SEGMUNICH.band_names.index("B8A") == 7
    codes = tifffile.imread(tmp_path / "TUM_128/train/label/2.tif")
    remapped = {21: 1, 22: 2, 23: 3, 31: 4, 32: 6, 33: 7, 41: 8, 13: 9, 14: 10, 255: IGNORE}
    expected = np.vectorize(lambda code: remapped.get(code, code))(codes.astype(int))
    np.testing.assert_array_equal(item.mask, expected)
    assert len(CLASSES) == 13
    assert expected.max() == 12
    # a file that was written without saying which axis holds the bands
    path = tmp_path / "TUM_128/train/img/2.tif"
    tifffile.imwrite(path, np.moveaxis(stored, 0, -1))
    assert tifffile.TiffFile(path).series[0].axes != "YXS"
    np.testing.assert_array_equal(dataset.read(1).image, stored)
    (tmp_path / "TUM_128/dataset/val.txt").unlink()
    assert (SegMunich(tmp_path).parts, len(SegMunich(tmp_path))) == (("train",), 2)
    write_tif(path, stored[:9])
    with pytest.raises(DataError, match=r"2.tif has shape \[9, 128, 128\], expected"):
        dataset.read(1)


@pytest.mark.parametrize("dataset", [SEN12MS, DFC2020, SegMunich])
def test_empty_folders_are_refused(dataset: type, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} holds no"):
        dataset(tmp_path)


def test_missing_partners_are_named(tmp_path: Path) -> None:
    write_triplets(tmp_path, SPRING, "lc", ["7_p30"])
    (tmp_path / SPRING / "s1_7" / f"{SPRING}_s1_7_p30.tif").unlink()
    dataset = SEN12MS(tmp_path)
    with pytest.raises(DataError, match=rf"{SPRING}_s1_7_p30.tif is missing"):
        dataset[0]
    assert SEN12MS(tmp_path, modalities=["s2l1c"]).read(0).bands.keys() == {"s2l1c"}
