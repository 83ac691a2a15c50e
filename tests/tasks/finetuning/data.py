"""Small datasets in memory whose images say what their labels are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.datasets import TorchGeoDataset
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.splits import Split

OPTICAL = Modality("optical", (Band("B2", 10, 490), Band("B4", 10, 665)), "dn", scale=10000.0)
RADAR = Modality("radar", (Band("VV", 10),), "db")
BAD = {"nothing": 0}  # an item without its images


def item(
    number: int, task: Task, size: tuple[int, int], seasons: int, classes: int
) -> dict[str, Any]:
    """Band B2 of each season holds 100 + the mask, VV the mask, B4 the number of the pixel."""
    rng = np.random.default_rng(number)
    mask = rng.integers(0, classes, size)
    pixels = np.arange(mask.size).reshape(size) + 1
    optical = np.broadcast_to(np.stack([mask + 100, pixels]), (seasons, 2, *size))
    found: dict[str, Any] = {
        "optical": optical.astype(np.int32),
        "radar": np.broadcast_to(mask - 10.0, (seasons, 1, *size)).astype(np.float32),
    }
    if task in ("mask", "change"):
        return {**found, "mask": mask}
    label = np.array(number % classes)
    if task == "multilabel":
        label = np.arange(classes) <= number % classes
    return {**found, "label": label.astype(np.int64)}


def toy(
    task: Task = "mask",
    sizes: Sequence[tuple[int, int]] = ((16, 16),) * 6,
    *,
    seasons: int = 2,
    classes: int = 3,
    bad: Sequence[int] = (),
) -> Opened:
    """A dataset whose items all train."""
    items = [
        BAD if number in bad else item(number, task, size, seasons, classes)
        for number, size in enumerate(sizes)
    ]
    return of_items(items, task, classes)


def of_items(items: Sequence[dict[str, Any]], task: Task, classes: int = 3) -> Opened:
    names = [f"class {number}" for number in range(classes)]
    modalities = {"optical": OPTICAL, "radar": RADAR}
    dataset = TorchGeoDataset(list(items), modalities, names, task=task)
    return Opened("toy", dataset, Split(list(range(len(items))), [], []), Path("toy"))
