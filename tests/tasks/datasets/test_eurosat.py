"""EuroSAT's files against independent readers, its split, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.eurosat import EUROSAT_MS, EUROSAT_RGB, EuroSAT, Kind
from seamo_fast.tasks.datasets.reading.duplicates import first_of_same
from seamo_fast.tasks.splits import stratified_split
from tests.eurosat import CLASSES, make_eurosat, make_image, write

SAME = {"eurosat_rgb": 0, "eurosat_ms": 0}  # real images that equal another


def real(data_dir: Path, kind: Kind) -> EuroSAT:
    if not (data_dir / kind).is_dir():
        pytest.skip(f"real tiles: no folder {data_dir / kind}")
    return EuroSAT(data_dir / kind)


def item(dataset: EuroSAT, number: int) -> tuple[Tensor, int]:
    found = dataset.read(number)
    assert found.label is not None
    return found.image, int(found.label)


def test_jpegs_equal_pillow(data_dir: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    dataset = real(data_dir, "eurosat_rgb")
    assert (len(dataset), len(dataset.classes), dataset.kind) == (2500, 10, "eurosat_rgb")
    for number in range(0, 2500, 125):
        pixels, label = item(dataset, number)
        path = dataset.files[number]
        assert path.name.startswith(dataset.classes[label])
        expected = np.asarray(image.open(path)).transpose(2, 0, 1)
        assert pixels.dtype == torch.uint8
        np.testing.assert_array_equal(pixels, expected)


def test_geotiffs_equal_rasterio(data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    dataset = real(data_dir, "eurosat_ms")
    assert (len(dataset), len(dataset.classes), dataset.kind) == (100, 10, "eurosat_ms")
    for number in range(0, 100, 7):
        pixels, label = item(dataset, number)
        with rasterio.open(dataset.files[number]) as file:
            expected = file.read()
        assert dataset.files[number].parent.name == dataset.classes[label]
        assert pixels.dtype == torch.uint16
        np.testing.assert_array_equal(pixels, expected)


def test_b8a_is_last_in_the_files(data_dir: Path) -> None:
    dataset = real(data_dir, "eurosat_ms")
    bands = {
        name: torch.stack([dataset.read(number).image[channel] for number in range(100)]).double()
        for channel, name in enumerate(EUROSAT_MS.band_names)
    }
    assert list(bands) == [
        *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A")
    ]
    # what physics says: hardly any light in the cirrus band, B8A like B8 and far above B9
    assert bands["B10"].mean() < 50
    assert bands["B8A"].mean() > 2 * bands["B9"].mean()
    pair = torch.stack([bands["B8"].flatten(), bands["B8A"].flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.97


def test_modalities_state_units_and_order() -> None:
    assert (EUROSAT_RGB.band_names, EUROSAT_RGB.unit) == (("B4", "B3", "B2"), "uint8")
    assert (EUROSAT_MS.unit, EUROSAT_MS.offset, EUROSAT_MS.nodata) == ("dn", 0, None)
    assert EUROSAT_MS.mean is None
    assert len(EUROSAT_MS.grids) == len(EUROSAT_RGB.grids) == 1


@pytest.mark.parametrize("kind", ["eurosat_rgb", "eurosat_ms"])
def test_items_are_the_images_as_stored(kind: Kind, tmp_path: Path) -> None:
    dataset = EuroSAT(make_eurosat(tmp_path, kind, images=11))
    assert dataset.classes == CLASSES
    assert [path.name[:-4] for path in dataset.files[:4]] == [
        "Forest_1", "Forest_10", "Forest_11", "Forest_2",
    ]  # fmt: skip
    pixels, label = item(dataset, 12)
    assert label == 1
    stored = make_image(kind, 1, 10).transpose(2, 0, 1)
    if kind == "eurosat_ms":
        np.testing.assert_array_equal(pixels, stored)
    else:  # JPEG keeps colours, not noise
        np.testing.assert_allclose(pixels.numpy().mean((1, 2)), stored.mean((1, 2)), atol=1)


def test_bands_are_chosen_by_name(tmp_path: Path) -> None:
    root = make_eurosat(tmp_path, "eurosat_ms", images=1)
    full, some = EuroSAT(root), EuroSAT(root, bands=["B8A", "b02", "B9"])
    assert some.modality.band_names == ("B8A", "B2", "B9")
    assert torch.equal(some.read(0).image, full.read(0).image[[12, 1, 8]])
    with pytest.raises(ValueError, match="no band 'B13'"):
        EuroSAT(root, bands=["B13"])


def test_planar_geotiffs_are_read_alike(tmp_path: Path) -> None:
    root = make_eurosat(tmp_path, "eurosat_ms", images=1)
    before = EuroSAT(root).read(0).image
    image = make_image("eurosat_ms", 0, 1).transpose(2, 0, 1)
    tifffile.imwrite(
        root / "Forest" / "Forest_1.tif", image, photometric="minisblack", planarconfig="separate"
    )
    assert torch.equal(EuroSAT(root).read(0).image, before)


@pytest.mark.parametrize(
    "nested", ["2750", "EuroSAT_RGB", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"]
)
def test_folders_of_the_archives_are_found(nested: str, tmp_path: Path) -> None:
    make_eurosat(tmp_path / nested, "eurosat_rgb", images=1)
    assert len(EuroSAT(tmp_path)) == 3


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        EuroSAT(tmp_path / "missing")
    (tmp_path / "Forest").mkdir()
    with pytest.raises(DataError, match=r"no class folders with .jpg or .tif images"):
        EuroSAT(tmp_path)
    write(tmp_path / "Forest" / "a", make_image("eurosat_rgb", 0, 0))
    with pytest.raises(DataError, match=r"no class folders with .tif images"):
        EuroSAT(tmp_path, "eurosat_ms")
    write(tmp_path / "Forest" / "a", make_image("eurosat_ms", 0, 0))
    with pytest.raises(DataError, match="say which: eurosat_rgb or eurosat_ms"):
        EuroSAT(tmp_path)
    assert len(EuroSAT(tmp_path, "eurosat_ms")) == 1


@pytest.mark.parametrize("kind", ["eurosat_rgb", "eurosat_ms"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_named(kind: Kind, damage: str, tmp_path: Path) -> None:
    dataset = EuroSAT(make_eurosat(tmp_path, kind, images=1))
    path = dataset.files[1]
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hi"}[damage])
    with pytest.raises(DataError, match=rf"{path.name} (cannot be read|was cut).*in {path.parent}"):
        dataset[1]


@pytest.mark.parametrize(
    ("image", "came"),
    [
        (np.zeros((64, 64), np.uint8), r"shape \[1, 64, 64\], expected \[3, 64, 64\]"),
        (np.zeros((32, 64, 3), np.uint8), r"shape \[3, 32, 64\], expected \[3, 64, 64\]"),
        (np.zeros((64, 64, 12), np.uint16), r"shape \[12, 64, 64\], expected \[13, 64, 64\]"),
        (np.zeros((64, 64, 13), np.float32), r"dtype float32, expected uint16"),
    ],
)
def test_other_images_are_named(image: np.ndarray, came: str, tmp_path: Path) -> None:
    (tmp_path / "Forest").mkdir()
    path = write(tmp_path / "Forest" / "a", image)
    with pytest.raises(DataError, match=f"{path.name} has {came}"):
        EuroSAT(tmp_path)[0]


def write_lists(folder: Path, train: str, val: str, test: str) -> None:
    for part, names in (("train", train), ("val", val), ("test", test)):
        lines = "".join(f"{name}.jpg\n" for name in names.split())
        (folder / f"eurosat-{part}.txt").write_text(lines)


@pytest.mark.parametrize("beside", [".", ".."])
def test_official_lists_are_followed(beside: str, tmp_path: Path) -> None:
    root = make_eurosat(tmp_path / "ms", "eurosat_ms", images=3)
    write_lists(root / beside, "River_2 Forest_1", "Forest_3 Forest_999", "SeaLake_1")
    dataset = EuroSAT(root)
    names = [[dataset.files[number].stem for number in part] for part in dataset.split()]
    assert names == [["Forest_1", "River_2"], ["Forest_3"], ["SeaLake_1"]]


def test_bad_lists_are_refused(tmp_path: Path) -> None:
    dataset = EuroSAT(make_eurosat(tmp_path, "eurosat_rgb", images=3))
    write_lists(tmp_path, "River_2", "River_2", "SeaLake_1")
    with pytest.raises(DataError, match="share images"):
        dataset.split()
    write_lists(tmp_path, "River_2", "River_9", "SeaLake_1")
    with pytest.raises(DataError, match=r"eurosat-val.txt names no image"):
        dataset.split()
    (tmp_path / "eurosat-val.txt").unlink()
    with pytest.raises(DataError, match=r"must hold eurosat-train.txt.*or none"):
        dataset.split()


def test_without_lists_the_split_is_stratified(tmp_path: Path) -> None:
    dataset = EuroSAT(make_eurosat(tmp_path, "eurosat_rgb"))
    for part, count in zip(dataset.split(), (6, 2, 2), strict=True):
        assert [dataset.labels[number] for number in part] == sorted([0, 1, 2] * count)


@pytest.mark.parametrize("kind", ["eurosat_rgb", "eurosat_ms"])
def test_the_same_image_is_in_one_part(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Copies follow the first of them, also into another class; nothing else moves."""
    dataset = EuroSAT(make_eurosat(tmp_path, kind))
    plain = dataset.split()
    assert plain == stratified_split([name for name in CLASSES for _ in range(10)])
    tested, validated = plain.test[0], plain.val[0]
    copies = {plain.train[-1]: tested}
    copies[next(number for number in plain.train if number > validated)] = validated
    for copy, first in copies.items():
        dataset.files[copy].write_bytes(dataset.files[first].read_bytes())
    caplog.clear()
    part = {number: n for n, numbers in enumerate(dataset.split()) for number in numbers}
    before = {number: n for n, numbers in enumerate(plain) for number in numbers}
    assert part == before | {copy: before[first] for copy, first in copies.items()}
    assert part != before
    dataset.split()
    EuroSAT(tmp_path, split="train")
    (message,) = [each.message for each in caplog.records]
    assert message.startswith(
        "EuroSAT: 2 images hold the same pixels as an earlier one, and are in"
    )


def test_images_of_one_end_are_compared(tmp_path: Path) -> None:
    """Files that end in the same bytes need not hold the same pixels, nor be readable."""
    root = make_eurosat(tmp_path, "eurosat_ms", images=5)
    image = np.zeros((64, 64, 13), np.uint16)
    for number in range(3):
        image[0, 0, 0] = number
        write(root / "Forest" / f"Forest_{number + 1}", image)
    for number in (4, 5):
        (root / "Forest" / f"Forest_{number}.tif").write_bytes(b"damaged")
    dataset = EuroSAT(root)
    assert first_of_same(dataset.files, dataset._image) == {}
    write(root / "Forest" / "Forest_1", image)
    assert first_of_same(dataset.files, dataset._image) == {2: 0}
    (root / "Forest" / "Forest_3.tif").unlink()
    assert first_of_same(dataset.files, dataset._image) == {}


@pytest.mark.parametrize("kind", ["eurosat_rgb", "eurosat_ms"])
def test_real_images_that_are_their_own_stay(data_dir: Path, kind: Kind) -> None:
    dataset = real(data_dir, kind)
    same = first_of_same(dataset.files, dataset._image)
    plain = stratified_split([dataset.classes[label] for label in dataset.labels])
    for found, before in zip(dataset.split(), plain, strict=True):
        assert set(found) - same.keys() == set(before) - same.keys()
    assert len(same) == SAME[kind]


def test_the_spatial_split_needs_its_lists(tmp_path: Path) -> None:
    make_eurosat(tmp_path, "eurosat_ms", images=2)
    with pytest.raises(DataError, match=r"holds no lists eurosat-spatial-train\.txt, "):
        EuroSAT(tmp_path, split="test", lists="eurosat-spatial")
    with pytest.raises(ValueError, match="lists must be one of eurosat, eurosat-spatial"):
        EuroSAT(tmp_path, split="test", lists="spatial")  # type: ignore[arg-type]
