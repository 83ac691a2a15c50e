"""Folders of classes, and of images with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.tasks.datasets import IGNORE, ClassFolder, MaskFolder
from tests.tasks.datasets.layouts import values, write_tif

TWO = Modality("two", (Band("A", 10), Band("B", 10)), "dn")


def write_png(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(image))
    return image


def test_class_folders(tmp_path: Path) -> None:
    for part, name, file in (("train", "b", "1"), ("train", "a", "2"), ("validation", "b", "3")):
        write_png(tmp_path / part / name / f"{file}.png", values(file, (9, 7, 3), "uint8"))
    (tmp_path / "train" / "a" / ".hidden.png").write_bytes(b"")
    (tmp_path / "train" / "a" / "readme.txt").write_bytes(b"")
    dataset = ClassFolder(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [entry.id for entry in dataset.entries] == [
        *("train/a/2.png", "train/b/1.png", "validation/b/3.png"),
    ]
    assert [entry.split for entry in dataset.entries] == ["train", "train", "val"]
    item = ClassFolder(tmp_path, split="val").read(0)
    assert item.label == 1
    np.testing.assert_array_equal(item.image, values("3", (9, 7, 3), "uint8").transpose(2, 0, 1))
    assert ClassFolder(tmp_path / "train").parts == ()
    with pytest.raises(DataError, match="no class folders"):
        ClassFolder(tmp_path / "train" / "a")


def test_class_folders_of_other_modalities(tmp_path: Path) -> None:
    image = write_tif(tmp_path / "x" / "1.tif", values(1, (2, 5, 6), "uint16"), "separate")
    item = ClassFolder(tmp_path, TWO).read(0)
    np.testing.assert_array_equal(item.bands["two"][0][0], image)
    with pytest.raises(DataError, match=r"1.tif has dtype uint16, expected uint8"):
        ClassFolder(tmp_path)[0]
    with pytest.raises(DataError, match=r"1.tif has shape \[2, 5, 6\], expected \[12, any, any\]"):
        ClassFolder(tmp_path, get_modality("s2l2a").on_one_grid(10))[0]
    with pytest.raises(ValueError, match="on_one_grid"):
        ClassFolder(tmp_path, get_modality("s2l2a"))


def test_masks_beside_images(tmp_path: Path) -> None:
    stored = {}
    for part in ("train", "test"):
        image = values(part, (2, 8, 9), "float32")
        write_tif(tmp_path / part / "img" / "a_sat.tif", image)
        mask = np.array([0, 7, 255], np.uint8)[values(f"mask {part}", (8, 9), "uint16") % 3]
        write_png(tmp_path / part / "lab" / "a_map.png", mask)
        stored[part] = image, mask

    def opened(**options: Any) -> MaskFolder:
        return MaskFolder(
            tmp_path,
            ["no", "yes"],
            TWO,
            images="img",
            masks="lab",
            image_suffix="_sat",
            mask_suffix="_map",
            **options,
        )

    item = opened(values=[0, 7], split="test").read(0)
    np.testing.assert_array_equal(item.image, stored["test"][0])
    numbers = {0: 0, 7: 1, 255: IGNORE}
    np.testing.assert_array_equal(item.mask, np.vectorize(numbers.get)(stored["test"][1]))
    with pytest.raises(DataError, match=r"a_map.png has the values \[7\], which are no class"):
        opened()[0]
    (tmp_path / "test" / "lab" / "a_map.png").unlink()
    with pytest.raises(DataError, match=r"a_map.\* is missing"):
        opened(split="test")[0]
    with pytest.raises(ValueError, match="2 different ones"):
        opened(values=[3, 3])


def test_lists_say_the_part_of_a_mask(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        write_png(tmp_path / "images" / f"{name}.png", values(name, (4, 4, 3), "uint8"))
        write_png(tmp_path / "masks" / f"{name}.png", np.eye(4, dtype=np.uint8))
    (tmp_path / "train.txt").write_text("2\n")
    (tmp_path / "val.txt").write_text("images/1.png\n")
    dataset = MaskFolder(tmp_path, ["off", "on"])
    assert [entry.split for entry in dataset.entries] == ["val", "train", ""]
    mask = dataset.read(2).mask
    assert mask is not None
    assert torch.equal(mask, torch.eye(4, dtype=torch.int64))
    write_png(tmp_path / "masks" / "2.png", np.eye(5, dtype=np.uint8))
    with pytest.raises(DataError, match=r"2.png has shape \[1, 5, 5\], expected \[1, 4, 4\]"):
        dataset[1]
    write_tif(tmp_path / "images" / "2.tif", np.eye(4, dtype=np.uint8))
    with pytest.raises(DataError, match=r"two images of one name: 2.png, 2.tif"):
        MaskFolder(tmp_path, ["off", "on"])
    with pytest.raises(DataError, match="has no folder 'pictures'"):
        MaskFolder(tmp_path, ["off", "on"], images="pictures")


def test_nested_and_hidden_class_folders(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/more/2.png", "dog/3.png", ".hidden/4.png", "dog/.5.png"):
        write_png(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    dataset = ClassFolder(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert [entry.id for entry in dataset.entries] == ["cat/1.png", "cat/more/2.png", "dog/3.png"]


def test_names_of_lists(tmp_path: Path) -> None:
    for name in ("HLS.T10.v1.4_sat", "b_sat"):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
        write_png(tmp_path / "masks" / f"{name[:-4]}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "train.txt").write_text("HLS.T10.v1.4\nnothing\n")
    (tmp_path / "val.txt").write_text("b_sat.png\n")
    dataset = MaskFolder(tmp_path, ["a"], image_suffix="_sat", ignore=7)
    assert [entry.split for entry in dataset.entries] == ["train", "val"]
    assert dataset.remarks == (f"{tmp_path} lists nothing, but has no such image",)
