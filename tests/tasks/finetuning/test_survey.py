"""What the training part is, against numpy, and what ends a run before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.errors import ConfigError, DataError, UnitError
from seamo_fast.tasks.datasets.open import open_dataset
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.fit.start import label_subset
from seamo_fast.tasks.finetuning.survey import Survey, take_survey
from seamo_fast.tasks.probes.subsets import few_of_each, share_of
from tests.tasks.datasets.test_folders import write_png
from tests.tasks.finetuning.data import item, of_items, toy

SIZES = ((16, 16), (20, 13), (9, 30), (16, 16))


@pytest.mark.parametrize("task", ["classes", "multilabel", "mask"])
def test_what_is_found(task: Task, tmp_path: Path) -> None:
    opened = toy(task, SIZES, bad=[1])
    survey = take_survey(opened)
    items = [opened.dataset.dataset[number] for number in (0, 2, 3)]
    assert survey.sizes == {0: (16, 16), 2: (9, 30), 3: (16, 16)}
    assert (survey.seasons, len(survey.skipped)) == (2, 1)
    for modality in survey.modalities:
        values = np.concatenate(
            [
                np.moveaxis(each[modality.name], 1, 0).reshape(len(modality.bands), -1)
                for each in items
            ],
            1,
        ).astype(np.float64)
        np.testing.assert_allclose(modality.mean, values.mean(axis=1))
        np.testing.assert_allclose(modality.std, values.std(axis=1))
    labels = {
        "classes": lambda: [each["label"] for each in items],
        "multilabel": lambda: [k for each in items for k in np.nonzero(each["label"])[0]],
        "mask": lambda: np.concatenate([each["mask"].ravel() for each in items]),
    }[task]()
    assert survey.counts == tuple(np.bincount(labels, minlength=3))
    survey.save(tmp_path / "survey.json")
    assert Survey.load(tmp_path / "survey.json") == survey


def test_pixels_without_a_class_are_not_counted() -> None:
    made = [item(n, "mask", (8, 8), 1, 3) for n in range(2)]
    made[0]["mask"][:] = -1
    counts = take_survey(of_items(made, "mask")).counts
    assert counts == tuple(np.bincount(made[1]["mask"].ravel(), minlength=3))


def test_only_the_training_part_is_read() -> None:
    opened = toy("classes", SIZES, bad=[1])
    opened = replace(opened, split=opened.split._replace(train=[0, 3, 2], val=[1]))
    survey = take_survey(opened, "stop")
    assert list(survey.sizes) == [0, 3, 2]


def changed(task: Task, number: int, **values: Any) -> Any:
    """A dataset of six items, one of which is different; None leaves a key out."""
    items = [item(n, task, (8, 8), 2, 3) for n in range(6)]
    items[number] |= values
    items[number] = {key: value for key, value in items[number].items() if value is not None}
    return of_items(items, task)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (
            "classes",
            {"label": np.array(3)},
            r"list_1 has the label 3; expected 0 to 2, the numbers of",
        ),
        ("classes", {"label": None}, r"list_1 has no label"),
        (
            "multilabel",
            {"label": np.array([3, 0, 1])},
            r"list_1 has the label \[3, 0, 1\]; expected",
        ),
        (
            "mask",
            {"mask": np.full((8, 8), 9)},
            r"list_1 has the label 9; expected 0 to 2, .* or -1",
        ),
        ("mask", {"mask": None}, r"list_1 has no mask"),
        (
            "mask",
            {"mask": np.zeros((8, 9), int)},
            r"list_1: its mask is 8 x 9, but its image 8 x 8",
        ),
        (
            "classes",
            {key: np.ones((3, c, 8, 8), np.float32) for key, c in (("optical", 2), ("radar", 1))},
            r"list_1 has 3 seasons; expected 2 of every modality of every item, as list_0 has",
        ),
        ("classes", {"radar": np.ones((3, 1, 8, 8))}, r"list_1 has 2 and 3 seasons; expected 2"),
    ],
)
def test_what_ends_a_run(task: Task, change: dict[str, Any], message: str) -> None:
    if "radar" in change:
        change = {key: value + np.arange(8) for key, value in change.items()}
    with pytest.raises(DataError, match=message):
        take_survey(changed(task, 1, **change))


def test_a_class_that_was_lost_is_named(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        write_png(
            tmp_path / f"{name}.png", np.random.default_rng(0).integers(0, 9, (8, 8, 3), np.uint8)
        )
    opened = open_dataset(tmp_path)
    broken = [n for n in opened.split.train if opened.dataset.entries[n].label == 1]
    for number in broken:
        opened.dataset.entries[number].path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of b can be read \(\d.png cannot be read"):
        take_survey(opened)
    opened = replace(opened, split=opened.split._replace(train=broken))
    with pytest.raises(DataError, match=r"none of the 1 items of .* can be read: \d.png"):
        take_survey(opened)


@pytest.mark.parametrize("task", ["classes", "multilabel", "mask"])
def test_one_class_only(task: Task) -> None:
    items = [item(0, task, (8, 8), 2, 3) for _ in range(3)]
    for each in items:
        if task == "mask":
            each["mask"][:] = 2
        else:
            each["label"] = np.array(2) if task == "classes" else np.array([0, 0, 1])
    with pytest.raises(DataError, match=r"has labels of 1 class\(es\) \(class 2\); at least two"):
        take_survey(of_items(items, task))


def test_no_pixel_has_a_label() -> None:
    items = [item(0, "mask", (8, 8), 2, 3)]
    items[0]["mask"][:] = -1
    with pytest.raises(DataError, match=r"has labels of 0 class\(es\) \(none\)"):
        take_survey(of_items(items, "mask"))


def test_classes_without_labels_are_named(caplog: pytest.LogCaptureFixture) -> None:
    items = [item(n, "classes", (8, 8), 2, 2) for n in range(4)]
    assert take_survey(of_items(items, "classes")).counts == (2, 2, 0)
    assert "toy has no labels of class 2, which cannot be learned" in caplog.text


def test_units_are_compared() -> None:
    opened = toy("classes", ((16, 16),) * 4)
    for each in opened.dataset.dataset:
        each["radar"] = abs(each["radar"]) / 1000  # linear, not decibels
    with pytest.raises(UnitError, match="radar"):
        take_survey(opened, strict=True)


@pytest.mark.parametrize(
    ("task", "sizes", "size", "expected"),
    [
        ("classes", ((16, 16),) * 3, None, (16, 16)),
        ("classes", ((13, 30),) * 3, None, (16, 32)),
        ("classes", SIZES, 24, (24, 24)),
        ("mask", SIZES, None, (24, 32)),
        ("mask", SIZES, 16, (16, 16)),
        ("mask", ((100, 9),) * 2, None, (32, 16)),
    ],
)
def test_windows(task: Task, sizes: Any, size: int | None, expected: tuple[int, int]) -> None:
    opened = toy(task, sizes)
    assert take_survey(opened).window(opened, size, image_size=32, patch=8) == expected


def test_large_images_make_small_batches() -> None:
    survey = take_survey(toy(sizes=((16, 16), (33, 20))))
    assert [survey.images_at_once((16, 16), size) for size in (1, 12, 64)] == [1, 2, 10]
    assert survey.images_at_once((40, 24), 12) == 12


def test_windows_that_cannot_be() -> None:
    opened = toy("classes", SIZES)
    survey = take_survey(opened)
    with pytest.raises(ConfigError, match=r"list_0 is 16 x 16, list_1 is 20 x 13; give --size"):
        survey.window(opened, None, 32, 8)
    for size in (0, 12, -8):
        with pytest.raises(
            ConfigError, match=rf"size must be a multiple of .* size 8, but got {size}"
        ):
            survey.window(opened, size, 32, 8)


def test_a_share_of_the_labels_is_that_of_evaluate(tmp_path: Path) -> None:
    for name, count in (("a", 40), ("b", 10)):
        for number in range(count):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"never read")
    opened = open_dataset(tmp_path, "class_folder")
    labels = {n: entry.label for n, entry in enumerate(opened.dataset.entries)}
    few, shot = label_subset(opened, 0.25, seed=3), label_subset(opened, shots=2, seed=3)
    for part in ("train", "val"):
        numbers = getattr(opened.split, part)
        own = torch.tensor([labels[n] for n in numbers])
        expected = [numbers[at] for at in share_of(own, 0.25, 3, part)]
        assert getattr(few.split, part) == expected
        expected = [numbers[at] for at in few_of_each(own, 2, 2, 3, part, 0)]
        assert getattr(shot.split, part) == expected
        assert Counter(labels[n] for n in expected) == {0: 2, 1: 2}
    assert few.split.test == shot.split.test == opened.split.test
    assert label_subset(opened) is opened


def test_a_share_of_items_with_several_labels() -> None:
    opened = toy("multilabel", ((8, 8),) * 8)
    split = opened.split._replace(val=opened.split.train)
    opened = replace(opened, split=split)
    assert len(label_subset(opened, 0.5).split.train) == 4
    kept = label_subset(opened, shots=1).split.train
    flags = np.stack([opened.dataset.dataset[n]["label"] for n in kept])
    assert flags.any(axis=0).all()
    assert len(kept) <= 3


def test_shots_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="but pixels have labels here; leave --shots out"):
        label_subset(toy("mask"), shots=1)
    with pytest.raises(ConfigError, match="but train_fraction is given too; leave --shots out"):
        label_subset(toy("classes"), 0.5, shots=1)
