"""The torch loader: batches are a pure function of the seed and their number.

Batch i takes the positions i*B .. (i+1)*B - 1 of an endless stream; position p is sample
order_e[p mod S] of epoch e = p // S. So a run resumes at any batch, and its data do not depend on
the number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from seamo_fast.counter import generator
from seamo_fast.data.manifest import array_names
from seamo_fast.data.shards import Sample, ShardSet
from seamo_fast.errors import DataError
from seamo_fast.tiles import MISSING_DATE, TileBatch

_LOG = logging.getLogger(__name__)


class TileLoader:
    """Yields `TileBatch`es without end.

    Args:
        shards: Where the samples come from.
        batch_size: Samples a batch over all ranks, divisible by `world`.
        seed: Decides the order of samples, the subset of `fraction` and the choice of seasons.
        modalities: Names in the order of the M axis.
        seasons: T; if fewer than stored, each draw of a sample chooses some, in their order,
            those with a valid group first.
        fraction: Share of the samples to use, a fixed subset.
        workers: Processes that read ahead; 0 reads in this one.
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
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        on_bad: str = "skip",
        verify: bool = True,
    ) -> None:
        if on_bad not in ("skip", "stop"):
            raise ValueError(f"on_bad must be 'skip' or 'stop', but got {on_bad!r}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], but got {fraction}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in [0, {world}), but got {rank}")
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"batch_size must be a positive multiple of the {world} ranks, but got {batch_size}"
            )
        self._batches = _Batches(
            shards, batch_size, seed, tuple(modalities), seasons, fraction, rank, world, verify
        )
        self._workers = workers
        self._start = start
        self._on_bad = on_bad
        self.bad_records: list[str] = []

    @property
    def samples(self) -> int:
        """Number of samples an epoch, over all ranks."""
        return len(self._batches.subset)

    def __iter__(self) -> Iterator[TileBatch]:
        loader: DataLoader[Any] = DataLoader(
            self._batches,
            batch_size=None,
            sampler=count(self._start),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # leaves the global generator alone
        )
        batches = iter(loader)
        while True:
            with dead_workers_explained():
                batch, bad = _receive(batches)
            self._report(bad)
            yield batch

    def _report(self, bad: Sequence[str]) -> None:
        for message in bad:
            if self._on_bad == "stop":
                raise DataError(message)
            if message not in self.bad_records:
                self.bad_records.append(message)
                _LOG.warning("skipped a damaged record: %s", message)
        if len(self.bad_records) >= self.samples:
            raise DataError(
                f"all {self.samples} samples are damaged, the last one: {self.bad_records[-1]}"
            )


def _receive(batches: Iterator[tuple[TileBatch, list[str]]]) -> tuple[TileBatch, list[str]]:
    try:
        return next(batches)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # The tensors of a batch are fetched from the process that made it.
        raise RuntimeError(f"DataLoader worker is gone: {error}") from error


@contextmanager
def dead_workers_explained() -> Iterator[None]:
    """Turns torch's RuntimeError about a loader worker that died into a DataError.

    torch raises it when the signal of the death arrives, so anywhere in the main thread; a command
    puts its loop into this context, too.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader worker died ({str(error).splitlines()[0].strip()}); most often memory or "
            "/dev/shm is full: use fewer workers or a smaller batch"
        ) from error


def _as_it_is(batch: Any) -> Any:
    return batch


class _Batches(Dataset[tuple[TileBatch, list[str]]]):
    """Map from a batch number to this rank's part of the batch and the damaged records in it."""

    def __init__(
        self,
        shards: ShardSet,
        batch_size: int,
        seed: int,
        modalities: tuple[str, ...],
        seasons: int,
        fraction: float,
        rank: int,
        world: int,
        verify: bool,
    ) -> None:
        shards.select(modalities)
        if not 1 <= seasons <= shards.seasons:
            raise DataError(
                f"{shards.path} holds {shards.seasons} seasons a sample, but {seasons} were asked "
                "for; set fewer seasons, or pack the data with more"
            )
        self.shards = shards
        self.batch_size = batch_size
        self.seed = seed
        self.modalities = modalities
        self.seasons = seasons
        self.verify = verify
        self.part = range(rank * batch_size // world, (rank + 1) * batch_size // world)
        self.subset = np.arange(len(shards))
        if fraction < 1:
            drawn = generator(seed, "fraction").permutation(len(shards))
            self.subset = np.sort(drawn[: max(1, round(fraction * len(shards)))])
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> tuple[TileBatch, list[str]]:
        drawn = [self._draw(number * self.batch_size + place) for place in self.part]
        bands = self._allocate(len(drawn))
        valid = np.zeros((len(drawn), self.seasons, len(self.modalities)), bool)
        dates = np.full(valid.shape, MISSING_DATE, np.int32)
        bad = []
        for row, (epoch, index) in enumerate(drawn):
            rows = {name: [grid[row] for grid in grids] for name, grids in bands.items()}
            try:
                sample = self.shards.read(index, self.modalities, verify=self.verify)
            except DataError as error:
                bad.append(str(error))
                _clear(rows)
                continue
            chosen = self._choose(epoch, index, sample)
            _copy(sample, chosen, rows)
            valid[row], dates[row] = sample.valid[chosen], sample.dates[chosen]
        epochs, ids = torch.tensor(drawn, dtype=torch.int64).unbind(dim=1)
        batch = TileBatch(
            modalities=self.modalities,
            bands={name: [torch.from_numpy(grid) for grid in bands[name]] for name in bands},
            valid=torch.from_numpy(valid),
            dates=torch.from_numpy(dates),
            ids=ids.contiguous(),
            epochs=epochs.contiguous(),
            complete=bool(valid.all()),
        )
        return batch, bad

    def _draw(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, len(self.subset))
        if epoch not in self._orders:
            order = generator(self.seed, "order", epoch).permutation(self.subset)
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = order
        return epoch, int(self._orders[epoch][place])

    def _choose(self, epoch: int, index: int, sample: Sample) -> list[int]:
        stored = self.shards.seasons
        if self.seasons == stored:
            return list(range(stored))
        drawn = generator(self.seed, "seasons", epoch, index).permutation(stored)
        missing = np.logical_not(sample.valid.any(axis=1))[drawn]
        return sorted(drawn[np.argsort(missing, kind="stable")][: self.seasons].tolist())

    def _allocate(self, samples: int) -> dict[str, list[np.ndarray]]:
        specs = self.shards.manifest.arrays
        return {
            modality.name: [
                np.empty((samples, self.seasons, *specs[name].shape[1:]), specs[name].dtype)
                for name in array_names(modality)
            ]
            for modality in self.shards.select(self.modalities)
        }


def _copy(sample: Sample, seasons: Sequence[int], rows: dict[str, list[np.ndarray]]) -> None:
    for name, grids in rows.items():
        for grid, stored in zip(grids, sample.bands[name], strict=True):
            for t, season in enumerate(seasons):
                grid[t] = stored[season]


def _clear(rows: dict[str, list[np.ndarray]]) -> None:
    for grids in rows.values():
        for grid in grids:
            grid[:] = 0
