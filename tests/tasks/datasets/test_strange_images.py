"""Plain folders of images that are not what was expected: one clear message, or a right result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.datasets import IGNORE, ClassFolder
from seamo_fast.tasks.datasets.open import DatasetOptions, open_dataset
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.features.items import Items
from seamo_fast.tasks.finetuning.augment import Mixing
from seamo_fast.tasks.finetuning.batches import EvaluationBatches
from seamo_fast.tasks.finetuning.survey import take_survey
from seamo_fast.tasks.finetuning.windows import TrainingBatches
from tests.tasks.datasets.layouts import values
from tests.tasks.evaluation.toys import write_mask_folder

Image = pytest.importorskip("PIL.Image")
GREY = Modality("grey", (Band("V", 10),), "uint8", scale=255.0)
FOUR = Modality("four", tuple(Band(name, 10) for name in "RGBN"), "uint8", scale=255.0)
DEEP = Modality("deep", tuple(Band(name, 10) for name in "RGB"), "dn")
PHOTOMETRIC = r"photometric interpretation \d \({}\).*save it as minisblack or RGB"


def save(path: Path, mode: str, size: tuple[int, int] = (10, 12), seed: int = 0) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        image = Image.fromarray(values(seed, size, "uint16"))
    else:
        image = Image.fromarray(values(seed, (*size, 3), "uint8")).convert(mode)
    image.save(path)
    return image


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        (
            "a.jpg",
            "L",
            r"a.jpg has shape \[1, 10, 12\], expected \[3, any, any\]; it is grey: convert it",
        ),
        (
            "a.png",
            "L",
            r"a.png has shape \[1, 10, 12\], .*; it is grey: convert it, or name the bands",
        ),
        ("a.png", "1", r"a.png has shape \[1, 10, 12\], .*; it is grey: convert"),
        ("a.png", "LA", r"a.png has shape \[2, 10, 12\], .*; it is grey with alpha: convert"),
        ("a.tif", "L", r"a.tif has shape \[1, 10, 12\], expected \[3, any, any\] \(in"),
        ("a.png", "I;16", r"a.png has dtype uint16, expected uint8"),
        ("a.tif", "I;16", r"a.tif has dtype uint16, expected uint8"),
        ("a.jpg", "CMYK", r"a.jpg is CMYK, whose numbers are inks; save it as RGB"),
        ("a.tif", "CMYK", PHOTOMETRIC.format("CMYK")),
        ("a.png", "P", r"a.png has a palette, whose indices are no measurements; save it as RGB"),
        ("a.tif", "P", PHOTOMETRIC.format("palette")),
        ("a.tif", "LAB", PHOTOMETRIC.format("CIELab")),
        ("a.tif", "YCbCr", PHOTOMETRIC.format("YCbCr")),
    ],
)
def test_images_that_are_not_rgb_are_named(
    name: str, mode: str, message: str, tmp_path: Path
) -> None:
    save(tmp_path / "class" / name, mode)
    with pytest.raises(DataError, match=message):
        ClassFolder(tmp_path).read(0)


@pytest.mark.parametrize(
    ("name", "mode", "modality"),
    [
        *[
            ("a.jpg", "L", GREY),
            ("a.png", "L", GREY),
            ("a.png", "RGBA", FOUR),
            ("a.tif", "L", GREY),
        ],
        *[("a.jpg", "RGB", DEEP), ("a.png", "RGB", DEEP), ("a.tif", "RGB", DEEP)],
    ],
)
def test_images_that_are_what_they_are_said_to_be(
    name: str, mode: str, modality: Modality, tmp_path: Path
) -> None:
    path = tmp_path / "class" / name
    save(path, mode)
    expected = np.asarray(Image.open(path))
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    np.testing.assert_array_equal(ClassFolder(tmp_path, modality).read(0).image, expected)


@pytest.mark.parametrize(
    ("name", "mode", "modality"), [("a.png", "P", GREY), ("a.jpg", "CMYK", FOUR)]
)
def test_numbers_that_are_no_measurements_are_refused_though_they_would_fit(
    name: str, mode: str, modality: Modality, tmp_path: Path
) -> None:
    image = save(tmp_path / "class" / name, mode)
    with pytest.raises(DataError, match=r"no measurements|inks"):
        ClassFolder(tmp_path, modality).read(0)
    if mode == "P":  # of a mask they are the classes
        np.testing.assert_array_equal(read_mask(tmp_path / "class" / name), np.asarray(image))


def test_nobody_is_warned_of_memory_that_cannot_be_written(tmp_path: Path) -> None:
    save(tmp_path / "class" / "a.tif", "RGB")
    assert ClassFolder(tmp_path).read(0).image.numpy().flags.writeable


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            save(root / name / f"{number}.png", "RGB", seed=10 * label + number)
    return root


def test_an_empty_class_folder_is_no_class_and_said_so(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 3, "dog": 3, "eel": 0})
    (root / "eel" / "readme.txt").write_text("nothing yet")
    dataset = open_dataset(root).dataset
    assert dataset.classes == ("cat", "dog")
    assert dataset.remarks == (f"{root / 'eel'} holds no images",)


def test_a_class_with_one_image(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "a", {"cat": 3, "dog": 1})
    with pytest.raises(
        DataError, match=r"class 'dog' has 1 images, which cannot be split.*at least 3"
    ):
        open_dataset(root)
    for part in ("train", "val", "test"):
        write_classes(tmp_path / "b" / part, {"cat": 3, "dog": 1})
    opened = open_dataset(tmp_path / "b")
    assert take_survey(opened).counts == (3, 1)


def test_a_class_that_only_other_parts_have_cannot_be_learned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part, dogs in (("train", 0), ("val", 2), ("test", 2)):
        write_classes(tmp_path / part, {"cat": 3, "cow": 3, "dog": dogs})
    opened = open_dataset(tmp_path)
    assert take_survey(opened).counts == (3, 3, 0)
    assert "has no labels of dog, which cannot be learned" in caplog.text
    assert f"{tmp_path / 'train' / 'dog'} holds no images" in caplog.text


def test_one_class_only(tmp_path: Path) -> None:
    opened = open_dataset(write_classes(tmp_path, {"cat": 5}))
    with pytest.raises(DataError, match=r"has labels of 1 class\(es\) \(cat\); at least two"):
        take_survey(opened)


def test_sizes_that_differ_need_a_window(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 4, "dog": 4})
    save(root / "cat" / "0.png", "RGB", (30, 11))
    opened = open_dataset(root)
    opened.split.train[:] = range(8)
    survey = take_survey(opened)
    with pytest.raises(
        ConfigError, match=r"cat/0.png is 30 x 11, cat/1.png is 10 x 12; give --size"
    ):
        survey.window(opened, None, 32, 8)
    window = survey.window(opened, 16, 32, 8)
    batches = TrainingBatches(
        Items(opened.dataset, 1), survey.sizes, window, Mixing("classes", survey.modalities),
        batch_size=8, seed=0, threads=0,
    )  # fmt: skip
    batch = next(batches.batches())
    assert batch.images["rgb"].shape == (8, 1, 3, 16, 16)
    assert sorted(batch.target.tolist()) == [0] * 4 + [1] * 4


def test_sides_that_are_no_multiple_of_the_patch_are_padded_where_masks_are(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path, size=(44, 50))
    opened = open_dataset(root, options=DatasetOptions(classes=["red", "green"]))
    items = Items(opened.dataset, 1)
    (batch,) = EvaluationBatches(
        items, opened.split.val, opened.dataset.modalities, 16, batch_size=2
    )
    assert batch.size == (48, 64)
    assert (batch.target[:, 44:] == IGNORE).all()
    assert (batch.target[:, :, 50:] == IGNORE).all()
    for row, number in enumerate(opened.split.val):
        mask = opened.dataset.read(number).mask
        assert mask is not None
        assert torch.equal(batch.target[row, :44, :50], mask)
