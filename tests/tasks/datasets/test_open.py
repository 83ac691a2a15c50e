"""Datasets by name: every folder is recognised, and published parts are used as published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.tasks.datasets import ClassFolder, LabelledDataset, So2Sat
from seamo_fast.tasks.datasets.open import (
    DATASETS,
    DatasetOptions,
    check_labels,
    open_dataset,
    recognise,
    within_training,
)
from seamo_fast.tasks.splits import HELD_OUT, held_out
from tests.eurosat import make_eurosat
from tests.tasks.datasets.layouts import (
    PREFIX,
    write_bigearthnet,
    write_bigearthnet_v2,
    write_burn_scars,
    write_city,
    write_segmunich,
    write_sen1floods11,
    write_so2sat,
    write_terramesh,
    write_triplets,
    write_worldcereal,
)
from tests.tasks.evaluation.toys import write_mask_folder

WRITERS: dict[str, Callable[[Path], object]] = {
    "bigearthnet_v2": write_bigearthnet_v2,
    "bigearthnet": write_bigearthnet,
    "so2sat": write_so2sat,
    "dfc2020": lambda root: [
        write_triplets(root, "ROIs0000_validation", "dfc", ["0_p0"]),
        write_triplets(root, "ROIs0000_test", "dfc", [f"0_p{n}" for n in range(5)]),
    ],
    "sen12ms": lambda root: write_triplets(
        root, "ROIs1158_spring", "lc", [f"1_p{n}" for n in range(5)]
    ),
    "segmunich": write_segmunich,
    "sen1floods11": write_sen1floods11,
    "hls_burn_scars": write_burn_scars,
    "oscd": lambda root: [
        write_city(root, city, part)
        for city, part in (("paris", "train"), ("bercy", "train"), ("rio", "test"))
    ],
    "eurosat": lambda root: make_eurosat(root, "eurosat_ms", 5),
    "terramesh": lambda root: write_terramesh(root, [f"{n}U_1L_0_0" for n in range(5)]),
    "worldcereal": write_worldcereal,
    "mask_folder": write_mask_folder,
    "class_folder": lambda root: write_classes(root, 5),
}


def write_classes(root: Path, images: int) -> None:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for number in range(images):
            picture = imagecodecs.png_encode(np.full((8, 8, 3), number, np.uint8))
            (root / name / f"{number}.png").write_bytes(picture)


def test_every_dataset_is_written_here() -> None:
    assert list(WRITERS) == [name for name, reader in DATASETS.items() if reader.signs]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, reader in DATASETS.items() if not reader.signs])
def test_generated_places_need_no_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAMO_FAST_CACHE", str(tmp_path))
    opened = open_dataset("demo", name, DatasetOptions(modalities=["s1grd"]))
    assert [each.name for each in opened.dataset.modalities] == ["s1grd"]
    assert all(len(part) > 50 for part in opened.split)
    assert opened.dataset.read(opened.split.test[0]).bands.keys() == {"s1grd"}
    if name == "demo_fields":
        several = open_dataset("demo", options=DatasetOptions(seasons=[1, 3], clouds="many"))
        assert several.name == name
        assert len(several.dataset.read(0).bands["s2l2a"][0]) == 2


@pytest.mark.parametrize(
    ("name", "option"),
    [("demo_change", {"seasons": [1]}), ("class_folder", {"clouds": "many"})],
)
def test_options_of_demo_places_are_refused_elsewhere(name: str, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no choice of {next(iter(option))}; leave"):
        open_dataset("demo", name, DatasetOptions(**option))


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_is_recognised(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    if name == "eurosat":
        root.rmdir()
    if name in ("so2sat", "worldcereal"):
        pytest.importorskip("h5py")
    WRITERS[name](root)
    assert recognise(root) == name


@pytest.mark.parametrize(
    ("name", "published", "expected"),
    [
        ("segmunich", {"train": "train", "val": "train", "test": "val"}, [1, 1, 1]),
        ("dfc2020", {"train": "test", "val": "test", "test": "val"}, [4, 1, 1]),
        ("oscd", {"train": "train", "val": "train", "test": "test"}, [1, 1, 1]),
        ("terramesh", {"train": "", "val": "", "test": ""}, [3, 1, 1]),
        ("worldcereal", {"train": "train", "val": "val", "test": "test"}, [15, 5, 5]),
        ("mask_folder", {"train": "train", "val": "val", "test": "test"}, [4, 2, 2]),
        ("sen12ms", {"train": "", "val": "", "test": ""}, [3, 1, 1]),
        ("eurosat", {"train": "", "val": "", "test": ""}, [9, 3, 3]),
        ("class_folder", {"train": "", "val": "", "test": ""}, [6, 2, 2]),
    ],
)
def test_published_parts_are_used_as_published(
    name: str, published: dict[str, str], expected: list[int], tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / "data")
    options = DatasetOptions(classes=["red", "green"] if name == "mask_folder" else None)
    opened = open_dataset(tmp_path / "data", options=options)
    assert [len(part) for part in opened.split] == expected
    everything = sorted(number for part in opened.split for number in part)
    assert everything == list(range(len(opened.dataset)))
    for part, numbers in opened.split._asdict().items():
        found = {opened.dataset.entries[number].split for number in numbers}
        assert found == {published[part]}


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write_sen1floods11(tmp_path)
    with pytest.raises(DataError, match="no items in its 'train' part; the parts here: 'bolivia'"):
        open_dataset(tmp_path)


def test_few_places_cannot_be_split(tmp_path: Path) -> None:
    write_sen1floods11(tmp_path, ["Spain_7370579"], [])
    message = (
        r"sen1floods11 has no published parts here, and items of 1 place\(s\): such as "
        "Spain_7370579; training, validation and test need at least 3, or the lists"
    )
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


def test_version_2_of_bigearthnet_is_known_without_its_metadata(tmp_path: Path) -> None:
    """Its folders would be taken for two classes."""
    WRITERS["bigearthnet_v2"](tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    with pytest.raises(DataError, match=r"metadata\.parquet is missing; it comes with"):
        open_dataset(tmp_path)


def test_a_part_without_labels_is_known_before_training(tmp_path: Path) -> None:
    WRITERS["oscd"](tmp_path)
    opened = open_dataset(tmp_path)
    check_labels(opened)
    (tmp_path / f"{PREFIX}Test Labels").rename(tmp_path / "elsewhere")
    opened = open_dataset(tmp_path)
    message = "oscd: 1 of 1 items that test have no labels in .*, such as rio; add the folder"
    with pytest.raises(DataError, match=message):
        check_labels(opened)
    check_labels(within_training(replace(opened, split=opened.split._replace(train=[0, 1]))))


def test_modalities_can_be_left_out(tmp_path: Path) -> None:
    WRITERS["dfc2020"](tmp_path)
    opened = open_dataset(tmp_path, options=DatasetOptions(modalities=["s1grd"]))
    assert [modality.name for modality in opened.dataset.modalities] == ["s1grd"]
    with pytest.raises(ConfigError, match="modalities must be some of s2l1c, s1grd"):
        open_dataset(tmp_path, options=DatasetOptions(modalities=["s3"]))


def test_plain_folders_hold_what_they_are_said_to(tmp_path: Path) -> None:
    write_classes(tmp_path, 5)
    with pytest.raises(ConfigError, match="unknown modality 'rbg'; did you mean 'rgb'"):
        open_dataset(tmp_path, options=DatasetOptions(modality="rbg"))


@pytest.mark.parametrize("name", WRITERS)
def test_labels_are_those_of_the_items(name: str, tmp_path: Path) -> None:
    if name in ("so2sat", "worldcereal"):
        pytest.importorskip("h5py")
    root = tmp_path / "data"
    if name != "eurosat":
        root.mkdir()
    WRITERS[name](root)
    options = DatasetOptions(classes=["red", "green"] if name == "mask_folder" else None)
    dataset = DATASETS[name].open(root, options)
    for number, entry in enumerate(dataset.entries):
        label = dataset._read(entry).label
        np.testing.assert_array_equal(dataset.label_of(number), None if label is None else label)


@pytest.mark.parametrize(("name", "labels"), [("so2sat", 5), ("class_folder", 10)])
def test_no_image_and_no_needless_label_is_read_at_open(
    name: str, labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So2Sat lacks a test part here: validation comes from training, the only part with rules."""
    if name in ("so2sat", "worldcereal"):
        pytest.importorskip("h5py")
    WRITERS[name](tmp_path)
    asked = []
    label_of = LabelledDataset.label_of

    def spy(self: LabelledDataset[Any], number: int) -> Any:
        asked.append(number)
        return label_of(self, number)

    monkeypatch.setattr(LabelledDataset, "label_of", spy)
    for kind in (So2Sat, ClassFolder):
        monkeypatch.setattr(kind, "_read", lambda *_: pytest.fail("an image was read"))
    assert len(open_dataset(tmp_path).dataset) >= 4
    assert len(asked) == labels


def test_a_fifth_is_held_out_of_each_class() -> None:
    labels = dict(enumerate(["a"] * 50 + ["b"] * 10 + ["c"]))
    train, val = held_out(range(len(labels)), labels)
    assert sorted(train + val) == list(range(len(labels)))
    assert len([n for n in val if labels[n] == "a"]) == 50 * HELD_OUT
    assert len([n for n in val if labels[n] == "b"]) == 2
    assert (train, val) == held_out(range(len(labels)), labels)
    assert held_out([3, 4], labels) == ([3], [4]) or held_out([3, 4], labels) == ([4], [3])
    with pytest.raises(DataError, match="has one item"):
        held_out([3], labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "s2l2a"}, "eurosat has no choice of modality; leave --modality out"),
        ({"classes": ["a"]}, "eurosat has no choice of classes; leave --classes out"),
        (
            {"modalities": ["s2l2a"]},
            r"eurosat: modalities must be \[eurosat_rgb\], but got \[s2l2a\]",
        ),
    ],
)
def test_options_that_a_dataset_does_not_take_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", 5)
    with pytest.raises(ConfigError, match=message):
        open_dataset(root, options=DatasetOptions(**options))


def test_plain_folders_hold_one_modality(tmp_path: Path) -> None:
    root = write_mask_folder(tmp_path / "masks")
    given = DatasetOptions(classes=["a", "b"], modalities=["s2l2a"])
    with pytest.raises(ConfigError, match=r"mask_folder: modalities must be \[rgb\]"):
        open_dataset(root, options=given)
    assert open_dataset(root, options=replace(given, modalities=["rgb"])).name == "mask_folder"
    with pytest.raises(ConfigError, match="class_folder has no choice of classes"):
        open_dataset(root, "class_folder", replace(given, modalities=None))
