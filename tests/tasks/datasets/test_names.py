"""Labelled datasets: hidden files, endings in any case, two of one name, and what is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.datasets import (
    DFC2020,
    OSCD,
    SEN12MS,
    BigEarthNet,
    BigEarthNetV2,
    ClassFolder,
    EuroSAT,
    HLSBurnScars,
    LabelledDataset,
    LabelledTile,
    MaskFolder,
    SegMunich,
    Sen1Floods11,
    SkippedTile,
    So2Sat,
    TerraMesh,
)
from tests.eurosat import make_eurosat
from tests.tasks.datasets import layouts
from tests.tasks.datasets.layouts import PATCHES, values, write_tif

TWO = Modality("two", (Band("A", 10), Band("B", 10)), "dn", nodata=-9999)


def write_masks(root: Path) -> None:
    for name in ("1", "2"):
        write_tif(root / "images" / f"{name}.tif", values(name, (3, 6, 7), "uint8"))
        write_tif(root / "masks" / f"{name}.tif", np.zeros((6, 7), np.uint8))


DATASETS = {
    "bigearthnet": (layouts.write_bigearthnet, BigEarthNet),
    "bigearthnet_v2": (layouts.write_bigearthnet_v2, lambda root: BigEarthNetV2(root, maps=True)),
    "sen12ms": (
        lambda root: layouts.write_triplets(root, "ROIs1158_spring", "lc", ["7_p1", "7_p2"]),
        SEN12MS,
    ),
    "dfc2020": (
        lambda root: layouts.write_triplets(root, "ROIs0000_test", "dfc", ["0_p1"]),
        DFC2020,
    ),
    "segmunich": (layouts.write_segmunich, SegMunich),
    "sen1floods11": (layouts.write_sen1floods11, Sen1Floods11),
    "hls": (layouts.write_burn_scars, HLSBurnScars),
    "oscd": (lambda root: layouts.write_city(root, "paris", "train", (1, 2)), OSCD),
    "terramesh": (lambda root: layouts.write_terramesh(root, ["1", "2"]), TerraMesh),
    "eurosat_ms": (lambda root: make_eurosat(root, "eurosat_ms", images=2), EuroSAT),
    "eurosat_rgb": (lambda root: make_eurosat(root, "eurosat_rgb", images=2), EuroSAT),
    "classes": (
        lambda root: write_tif(root / "a" / "1.tif", values(1, (3, 6, 7), "uint8")),
        ClassFolder,
    ),
    "masks": (write_masks, lambda root: MaskFolder(root, ["a"])),
}


def items(dataset: LabelledDataset) -> list[LabelledTile]:
    return [dataset.read(number) for number in range(len(dataset))]


@pytest.mark.parametrize("name", list(DATASETS))
def test_upper_case_and_companions_change_nothing(name: str, tmp_path: Path) -> None:
    write, opened = DATASETS[name]
    root = tmp_path / "root"
    root.mkdir()
    write(root)
    expected = items(opened(root))
    for path in [*root.rglob("*")]:
        if path.is_dir():
            (path / ".DS_Store").touch()
            (path / ".hidden").mkdir()
            (path / "__MACOSX").mkdir()
            write_tif(path / "__MACOSX" / "a.tif", values(1, (3, 6, 7), "uint8"))
        elif path.suffix in (".tif", ".jpg"):
            path.rename(path.with_suffix(path.suffix.upper()))
            path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
            path.with_name(f"._{path.with_suffix(path.suffix.upper()).name}").touch()
    found = items(opened(root))
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.id.lower() == other.id.lower()
        assert (mine.split, mine.dates) == (other.split, other.dates)
        assert str(mine.label) == str(other.label)
        for modality, grids in other.bands.items():
            for grid, stored in zip(mine.bands[modality], grids, strict=True):
                np.testing.assert_array_equal(grid, stored)
        if other.mask is not None:
            np.testing.assert_array_equal(mine.mask, other.mask)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "masks"])
def test_two_files_of_one_name_are_named(name: str, tmp_path: Path) -> None:
    """Each image has another beside it, whose ending is in upper case."""
    write, opened = DATASETS[name]
    root = tmp_path / "root"
    root.mkdir()
    write(root)
    for path in [*root.rglob("*.tif"), *root.rglob("*.jpg")]:
        shutil.copyfile(path, path.with_suffix(path.suffix.upper()))
    with pytest.raises(DataError) as caught:
        items(opened(root))
    assert caught.value.kind == "name"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("a/1.tif", "A/2.tif"), "has two folders of one class: A and a"),
        (("a/1.tif", "a/1.TIF"), "ClassFolder: two items have one name, a/1.TIF and a/1.tif;"),
    ],
)
def test_classes_and_images_that_differ_in_case(
    files: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for file in files:
        write_tif(tmp_path / file, values(file, (3, 6, 7), "uint8"))
    with pytest.raises(DataError, match=message):
        ClassFolder(tmp_path)


def test_masks_and_eurosat_of_one_name(tmp_path: Path) -> None:
    write_masks(tmp_path)
    shutil.copyfile(tmp_path / "images" / "1.tif", tmp_path / "images" / "1.TIFF")
    with pytest.raises(DataError, match=r"has two images of one name: 1.TIFF, 1.tif$"):
        MaskFolder(tmp_path, ["a"])
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", images=1)
    shutil.copyfile(root / "Forest" / "Forest_1.jpg", root / "River" / "forest_1.JPEG")
    with pytest.raises(DataError, match="two items have one name, Forest_1 and forest_1; rename"):
        EuroSAT(root)


def test_two_radar_patches_of_one_patch(tmp_path: Path) -> None:
    layouts.write_bigearthnet(tmp_path, lists=False)
    first, second = (tmp_path / "BigEarthNet-S1-v1.0" / radar for radar, _ in PATCHES.values())
    text = (first / f"{first.name}_labels_metadata.json").read_text()
    (second / f"{second.name}_labels_metadata.json").write_text(text)
    patch = json.loads(text)["corresponding_s2_patch"]
    message = f"{first.name} and {second.name} in .* are both the radar patch of {patch}; keep one"
    with pytest.raises(DataError, match=message):
        BigEarthNet(tmp_path)


@pytest.mark.parametrize(
    ("value", "dtype", "why", "kind"),
    [
        (0, "uint16", "was never filled: every pixel is 0", "empty"),
        (7, "uint16", "is 7 everywhere", "constant"),
        (-9999, "float32", "was never filled: every pixel is -9999 (nodata)", "empty"),
        (np.nan, "float32", "was never filled: every pixel is NaN or infinite", "empty"),
        (0.25, "float64", "is 0.25 everywhere", "constant"),
    ],
)
def test_lost_bands_of_folders(
    value: float, dtype: str, why: str, kind: str, tmp_path: Path
) -> None:
    image = values(1, (2, 6, 7), dtype)
    write_tif(tmp_path / "images" / "1.tif", image)
    write_tif(tmp_path / "masks" / "1.tif", np.full((6, 7), 1, np.uint8))
    image[1] = value
    write_tif(tmp_path / "images" / "2.tif", image)
    write_tif(tmp_path / "masks" / "2.tif", np.zeros((6, 7), np.uint8))
    dataset = MaskFolder(tmp_path, ["a", "b"], TWO, on_bad="skip")
    assert isinstance(dataset[0], LabelledTile)  # a mask of one class is one
    skipped = dataset[1]
    assert isinstance(skipped, SkippedTile)
    assert skipped.reason == f"images/2.tif: band B of two {why}"
    with pytest.raises(DataError) as caught:
        dataset.read(1)
    assert caught.value.kind == kind


def test_lost_bands_of_published_datasets(tmp_path: Path) -> None:
    root = make_eurosat(tmp_path / "ms", "eurosat_ms", images=1)
    image = values(1, (13, 64, 64), "uint16")
    image[9] = 0
    write_tif(root / "River" / "River_1.tif", image)
    with pytest.raises(DataError, match=r"^River_1: band B10 of eurosat_ms was never filled: "):
        EuroSAT(root)[1]
    layouts.write_bigearthnet(tmp_path)
    patch = next(iter(PATCHES))
    folder = tmp_path / "BigEarthNet-v1.0" / patch
    write_tif(folder / f"{patch}_B09.tif", np.full((20, 20), 3, np.uint16))
    with pytest.raises(DataError, match=rf"^{patch}: band B9 of s2l2a is 3 everywhere$"):
        BigEarthNet(tmp_path)[0]
    layouts.write_city(tmp_path, "paris", "train")
    path = next((tmp_path / f"{layouts.PREFIX}Images" / "paris" / "imgs_2").glob("*_B11.tif"))
    write_tif(path, np.zeros((30, 31), np.uint16))
    with pytest.raises(DataError, match=r"^paris season 1: band B11 of s2l1c was never filled: "):
        OSCD(tmp_path)[0]


def test_lost_bands_of_so2sat(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    layouts.write_so2sat(tmp_path)
    with h5py.File(tmp_path / "training.h5", "a") as file:
        file["sen2"][3, :, :, 4] = 0
    (tmp_path / "training.h5").rename(tmp_path / "training.H5")
    dataset = So2Sat(tmp_path, "train")
    dataset.read(2)
    with pytest.raises(DataError, match=r"^training_3: band B6 of so2sat_s2 was never filled: "):
        dataset.read(3)


def test_images_without_a_measured_pixel(tmp_path: Path) -> None:
    image = np.full((2, 6, 7), -9999, np.float32)
    image[0] = np.nan
    write_tif(tmp_path / "a" / "1.tif", image)
    with pytest.raises(DataError, match=r"^a/1.tif: no pixel of two is measured$") as caught:
        ClassFolder(tmp_path, TWO)[0]
    assert caught.value.kind == "unmeasured"


def test_pictures_of_one_colour(tmp_path: Path) -> None:
    """One flat channel can be true with 8 bits; a black picture shows nothing."""
    image = values(1, (6, 7, 3), "uint8")
    image[..., 0] = 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(imagecodecs.png_encode(image))
    (tmp_path / "a" / "2.png").write_bytes(imagecodecs.png_encode(np.zeros_like(image)))
    dataset = ClassFolder(tmp_path)
    assert dataset.read(0).image.shape == (3, 6, 7)
    why = r"^a/2.png: bands RED, GREEN, BLUE of rgb were never filled: every pixel is 0$"
    with pytest.raises(DataError, match=why):
        dataset.read(1)
