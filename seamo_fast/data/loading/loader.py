"""The torch loader: batches are a pure function of the seed and their number.

Batch i takes the positions i*B .. (i+1)*B - 1 of an endless stream; position p is sample
order_e[p mod S] of epoch e = p // S. So a run resumes at any batch, and its data do not depend on
the number of workers.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from seamo_fast.data.loading.stream import Buffers, Stream, ahead
from seamo_fast.data.shards import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.tiles import TileBatch

_LOG = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A batch, and for each damaged record in it the sample's number and a message."""

    batch: TileBatch
    bad: list[tuple[int, str]]


class Loader(ABC):
    """Yields `TileBatch`es without end; `TileLoader` describes the arguments.

    Attributes:
        bad_records: A message for each damaged record met so far.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        batch_size: int,
        seed: int,
        modalities: Sequence[str],
        seasons: int,
        fraction: float = 1.0,
        workers: int = 0,
        prefetch: int = 2,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        on_bad: str = "skip",
        verify: bool = True,
    ) -> None:
        if on_bad not in ("skip", "stop"):
            raise ValueError(f"on_bad must be 'skip' or 'stop', but got {on_bad!r}")
        if workers < 0 or prefetch < 1:
            raise ValueError(
                f"workers must be at least 0 and prefetch at least 1, but got {workers} and "
                f"{prefetch}"
            )
        self._stream = Stream(
            shards,
            batch_size=batch_size,
            seed=seed,
            modalities=modalities,
            seasons=seasons,
            fraction=fraction,
            rank=rank,
            world=world,
        )
        self._workers = workers
        self._prefetch = prefetch
        self._start = start
        self._on_bad = on_bad
        self._verify = verify
        self.bad_records: list[str] = []
        self._damaged: set[int] = set()

    @property
    def samples(self) -> int:
        """Number of samples an epoch, over all ranks."""
        return len(self._stream.subset)

    def __iter__(self) -> Iterator[TileBatch]:
        for batch, bad in self._load():
            self._report(bad)
            yield batch

    @abstractmethod
    def _load(self) -> Iterator[Loaded]:
        """Yields batches from number `start` on."""

    def _report(self, bad: Sequence[tuple[int, str]]) -> None:
        for index, message in bad:
            self._damaged.add(index)
            if self._on_bad == "stop":
                raise DataError(message)
            if message not in self.bad_records:
                self.bad_records.append(message)
                _LOG.warning("skipped a damaged record: %s", message)
        if len(self._damaged) >= self.samples:
            raise DataError(
                f"all {self.samples} samples are damaged, the last one: {self.bad_records[-1]}"
            )


class TileLoader(Loader):
    """Yields `TileBatch`es without end, in page-locked memory where there is a GPU.

    Args:
        shards: Where the samples come from.
        batch_size: Samples a batch over all ranks, divisible by `world`.
        seed: Decides the order of samples, the subset of `fraction` and the choice of seasons.
        modalities: Names in the order of the M axis.
        seasons: T; if fewer than stored, each draw of a sample chooses some, in their order,
            those with a valid group first.
        fraction: Share of the samples to use, a fixed subset.
        workers: Threads that read ahead; 0 reads when a batch is asked for.
        prefetch: Batches that each of them reads ahead.
        start: Number of the first batch.
        rank: Which contiguous part of each batch to yield.
        world: Number of ranks.
        on_bad: What a damaged record does: "skip" yields it with all groups invalid and adds its
            message to `bad_records`, "stop" raises.
        verify: Whether to compare each record's checksum when it is first read.

    Attributes:
        bad_records: A message for each damaged record met so far.

    Raises:
        DataError: A modality is not stored, or more seasons are asked for than are stored.
        ValueError: Another argument is out of its range.
    """

    def _load(self) -> Iterator[Loaded]:
        # read ahead, in the making, waiting for or with views, and in use
        buffers = Buffers(self._workers * (self._prefetch + 1) + 4)
        pin = torch.cuda.is_available()

        def make(number: int) -> Loaded:
            batch, bad = read_batch(self._stream, number, buffers, self._verify)
            return Loaded(batch.pin_memory() if pin else batch, bad)

        return ahead(make, count(self._start), self._workers, self._prefetch)


def read_batch(stream: Stream, number: int, buffers: Buffers, verify: bool) -> Loaded:
    """Returns batch `number` of a stream, read in this thread."""
    part = stream.part(number)
    specs = stream.shards.manifest.arrays
    tiles = {
        array: buffers.take(
            (len(part.drawn), stream.seasons, *specs[array].shape[1:]), specs[array].dtype
        )
        for arrays in stream.arrays.values()
        for array in arrays
    }
    for row, (_, index) in enumerate(part.drawn):
        seasons = part.seasons[row]
        if seasons is not None:
            try:
                for array, out in tiles.items():
                    _copy(stream.shards.tiles(index, array, seasons, verify), out[row])
            except DataError as error:
                part.damage(row, str(error))
        if part.seasons[row] is None:
            for out in tiles.values():
                out[row] = 0
    bands = {
        name: [torch.from_numpy(tiles[array]) for array in arrays]
        for name, arrays in stream.arrays.items()
    }
    return Loaded(part.batch(stream.modalities, bands), part.bad)


def _copy(tiles: Sequence[np.ndarray], out: np.ndarray) -> None:
    for t, tile in enumerate(tiles):
        out[t] = tile
