"""Reading the items of a dataset chunk by chunk, and the band statistics of what was read."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import LabelledDataset, LabelledTile, OnBad, Task

_CHUNK: Final[dict[Task, int]] = {"classes": 256, "multilabel": 256, "mask": 16, "change": 4}


def chunked(numbers: Sequence[int], task: Task) -> list[Sequence[int]]:
    """Returns numbers of items in chunks that fit in memory whatever the images are."""
    size = _CHUNK[task]
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def read_chunks(
    dataset: LabelledDataset[Any], chunks: Sequence[Sequence[int]], on_bad: OnBad
) -> Iterator[tuple[dict[int, LabelledTile], list[str]]]:
    """Yields the items of each chunk by number, and why others were left out.

    Threads read, one chunk ahead.

    Raises:
        DataError: An item cannot be read and `on_bad` is "stop".
    """

    def read(number: int) -> LabelledTile | DataError:
        try:
            return dataset.read(number)
        except DataError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coming: deque[dict[int, Future[LabelledTile | DataError]]] = deque()
        for at in range(len(chunks) + 1):
            if at < len(chunks):
                coming.append({n: pool.submit(read, n) for n in chunks[at]})
            if at:
                found = {n: future.result() for n, future in coming.popleft().items()}
                yield _sorted(found, on_bad)


def _sorted(
    found: Mapping[int, LabelledTile | DataError], on_bad: OnBad
) -> tuple[dict[int, LabelledTile], list[str]]:
    tiles, reasons = {}, []
    for number, each in found.items():
        if isinstance(each, LabelledTile):
            tiles[number] = each
        elif on_bad == "stop":
            raise each
        else:
            reasons.append(str(each))
    return tiles, reasons


def no_statistics(opened: Opened) -> dict[str, BandStatistics]:
    """Returns the statistics of each modality of a dataset before any item."""
    return {each.name: BandStatistics(len(each.bands)) for each in opened.dataset.modalities}


def add_tile(statistics: Mapping[str, BandStatistics], opened: Opened, tile: LabelledTile) -> None:
    """Takes the images of an item into the statistics."""
    for modality in opened.dataset.modalities:
        grids = [grid.numpy() for grid in tile.bands[modality.name]]
        statistics[modality.name].add(modality, grids, np.array(tile.valid[modality.name]))


def with_statistics(
    opened: Opened, statistics: Mapping[str, BandStatistics]
) -> tuple[Modality, ...]:
    """Returns the modalities of a dataset with the statistics of its training part.

    Raises:
        DataError: A band has the same value everywhere, or was nowhere measured.
    """
    release = f"{opened.name} training part"
    return tuple(statistics[each.name].apply(each, release) for each in opened.dataset.modalities)
