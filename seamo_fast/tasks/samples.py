"""Labelled images in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.tasks.datasets.reading.base import LabelledDataset, LabelledTile, OnBad

_CHUNK = 256


@dataclass
class Samples:
    """One part of a split, read once.

    Attributes:
        images: [n, C, H, W], stored values.
        labels: int64 [n].
        skipped: What could not be read, and why.
    """

    images: Tensor
    labels: Tensor
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


def load_samples(
    dataset: LabelledDataset[Any], numbers: Sequence[int], on_bad: OnBad = "skip"
) -> Samples:
    """Reads images into memory: EuroSAT's 27,000 take 0.33 GB as RGB and 2.9 GB as MS.

    Args:
        dataset: Gives one image and one class an item, all of one shape.
        numbers: Which items, in this order.
        on_bad: `skip` leaves out what cannot be read and says so in `Samples.skipped`, `stop`
            raises.

    Raises:
        DataError: An image cannot be read and `on_bad` is `stop`, or none can be read.
    """

    def read(number: int) -> LabelledTile | DataError:
        try:
            return dataset.read(number)
        except DataError as error:
            return error

    images = torch.empty(0)
    labels: list[int] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(read, numbers):
            if isinstance(found, DataError):
                if on_bad == "stop":
                    raise found
                skipped.append(str(found))
                continue
            assert found.label is not None
            if not labels:
                images = found.image.new_empty(len(numbers), *found.image.shape)
            images[len(labels)] = found.image
            labels.append(int(found.label))
    if not labels:
        raise DataError(f"none of {len(numbers)} images can be read: {'; '.join(skipped[:1])}")
    return Samples(images[: len(labels)], torch.tensor(labels), skipped)


def measure(modality: Modality, images: Tensor, release: str, strict: bool = False) -> Modality:
    """Returns the modality with the statistics of images [n, C, H, W], read once.

    A `UnitWarning` says where images look like another unit than the modality's.

    Raises:
        DataError: A band has the same value everywhere.
        UnitError: Images look like another unit, and `strict` is set.
    """
    UnitCheck(strict)(modality, images[:, None])
    statistics = BandStatistics(len(modality.bands))
    for chunk in images.split(_CHUNK):
        statistics.add(modality, [chunk.numpy()], torch.ones(len(chunk), dtype=torch.bool).numpy())
    return statistics.apply(modality, release)
