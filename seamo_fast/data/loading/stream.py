"""What both loaders share: which samples make a batch, reading ahead, and buffers used again."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from seamo_fast.data.shards import ShardSet, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import MISSING_DATE
from seamo_fast.randomness import generator
from seamo_fast.tiles import TileBatch

T = TypeVar("T")


class Part:
    """A rank's part of a batch before its tiles are read.

    Attributes:
        drawn: For each row (epoch, sample number).
        seasons: For each row the chosen stored seasons; None if the record is damaged.
        valid: bool [B, T, M].
        dates: int32 [B, T, M].
        bad: For each damaged record the sample's number and a message.

    Args:
        drawn: See above.
        seasons: T.
        modalities: M.
        complete: No group is missing in any sample of the stream.
    """

    def __init__(
        self, drawn: list[tuple[int, int]], seasons: int, modalities: int, complete: bool
    ) -> None:
        self.drawn = drawn
        self._complete = complete
        self.seasons: list[list[int] | None] = [None] * len(drawn)
        self.valid = np.zeros((len(drawn), seasons, modalities), bool)
        self.dates = np.full(self.valid.shape, MISSING_DATE, np.int32)
        self.bad: list[tuple[int, str]] = []

    def damage(self, row: int, message: str) -> None:
        """Makes all groups of a row invalid."""
        self.seasons[row] = None
        self.valid[row], self.dates[row] = False, MISSING_DATE
        self.bad.append((self.drawn[row][1], message))

    def batch(self, modalities: tuple[str, ...], bands: dict[str, list[Tensor]]) -> TileBatch:
        """Returns the batch with these tiles."""
        epochs, ids = torch.tensor(self.drawn, dtype=torch.int64).unbind(dim=1)
        return TileBatch(
            modalities=modalities,
            bands=bands,
            valid=torch.from_numpy(self.valid),
            dates=torch.from_numpy(self.dates),
            ids=ids.contiguous(),
            epochs=epochs.contiguous(),
            complete=self._complete and bool(self.valid.all()),
        )


class Stream:
    """The endless stream of samples: batch i is a pure function of the seed and i.

    Position p of the stream is sample order_e[p mod S] of epoch e = p // S. The arguments are
    those of `seamo_fast.data.TileLoader`.

    Raises:
        DataError: A modality is not stored, or more seasons are asked for than are stored.
        ValueError: Another argument is out of its range.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        batch_size: int,
        seed: int,
        modalities: Sequence[str],
        seasons: int,
        fraction: float,
        rank: int,
        world: int,
    ) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], but got {fraction}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in [0, {world}), but got {rank}")
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"batch_size must be a positive multiple of the {world} ranks, but got {batch_size}"
            )
        chosen = shards.select(modalities)
        if not 1 <= seasons <= shards.seasons:
            raise DataError(
                f"{shards.path} holds {shards.seasons} seasons a sample, but {seasons} were asked "
                "for; set fewer seasons, or pack the data with more"
            )
        self.shards = shards
        self.seed = seed
        self.modalities = tuple(modalities)
        self.arrays = {modality.name: array_names(modality) for modality in chosen}
        self.seasons = seasons
        self.batch_size = batch_size
        self.rows = range(rank * batch_size // world, (rank + 1) * batch_size // world)
        self.subset = np.arange(len(shards))
        if fraction < 1:
            drawn = generator(seed, "fraction").permutation(len(shards))
            self.subset = np.sort(drawn[: max(1, round(fraction * len(shards)))])
        # of all samples: a compiled model would meet two kinds of batches otherwise
        self._complete = shards.complete(self.modalities)
        # batches of two epochs may be in the making at once
        self._order = lru_cache(maxsize=3)(self._permute)

    def part(self, number: int) -> Part:
        """Returns this rank's part of batch `number`."""
        drawn = [self._draw(number * self.batch_size + row) for row in self.rows]
        part = Part(drawn, self.seasons, len(self.modalities), self._complete)
        for row, (epoch, index) in enumerate(drawn):
            try:
                valid, dates = self.shards.groups(index, self.modalities)
            except DataError as error:
                part.damage(row, str(error))
                continue
            chosen = self._choose(epoch, index, valid)
            part.seasons[row] = chosen
            part.valid[row], part.dates[row] = valid[chosen], dates[chosen]
        return part

    def _permute(self, epoch: int) -> np.ndarray:
        return generator(self.seed, "order", epoch).permutation(self.subset)

    def _draw(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, len(self.subset))
        return epoch, int(self._order(epoch)[place])

    def _choose(self, epoch: int, index: int, valid: np.ndarray) -> list[int]:
        stored = self.shards.seasons
        if self.seasons == stored:
            return list(range(stored))
        drawn = generator(self.seed, "seasons", epoch, index).permutation(stored)
        missing = np.logical_not(valid.any(axis=1))[drawn]
        return sorted(drawn[np.argsort(missing, kind="stable")][: self.seasons].tolist())


def ahead(
    make: Callable[[int], T], numbers: Iterable[int], workers: int, depth: int
) -> Generator[T, None, None]:
    """Yields make(number) for each number, in their order.

    Args:
        make: Called in other threads if there are workers.
        numbers: The arguments, maybe without end.
        workers: Threads; 0 calls `make` when its result is wanted.
        depth: Calls a thread that are made ahead.
    """
    if not workers:
        yield from map(make, numbers)
        return
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, "seamo_fast loader")
    try:
        for number in numbers:
            pending.append(pool.submit(make, number))
            if len(pending) > workers * depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # never waits: the garbage collector may run this in any thread, under any lock
        pool.shutdown(wait=False, cancel_futures=True)


def _references(arrays: list[np.ndarray], number: int) -> int:
    return sys.getrefcount(arrays[number])


class Buffers:
    """Lends arrays, and lends them again when nothing refers to them any more.

    Fresh memory costs a page fault every 4 KiB, which takes longer than filling it. A tensor made
    by `torch.from_numpy` refers to its array as long as it or any view of it lives.

    Args:
        kept: Arrays of a shape that are remembered.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lent: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = {}
        self._lock = Lock()
        self._idle = _references([np.empty(0)], 0)

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Returns an array with arbitrary values."""
        with self._lock:
            lent = self._lent.setdefault((shape, dtype), [])
            for number in range(len(lent)):
                if _references(lent, number) == self._idle:
                    lent.append(lent.pop(number))
                    return lent[-1]
            lent.append(np.empty(shape, dtype))
            del lent[: -self._kept]
            return lent[-1]
