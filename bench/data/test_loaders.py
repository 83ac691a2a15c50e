"""Batches: our two loaders, and torch's DataLoader over what people use, with 0, 1, 2 workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bench.data.formats import MODALITIES, READERS, SEASONS, Arrays, nbytes, write_shards
from seamo_fast.data import TileLoader
from seamo_fast.data.loading.dali import DaliLoader

BATCH = 4
RIVALS = ("rasterio per band", "tifffile per band", "zarr", "h5py", "lmdb")


class Files(Dataset[dict[str, np.ndarray]]):
    """A map-style dataset over a reader, opened in the process that reads."""

    def __init__(self, name: str, samples: list[Arrays], folder: Path) -> None:
        self._open: Callable[[], Any] = lambda: READERS[name](samples, folder)
        self._read: Any = None
        self._length = len(samples)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        self._read = self._read or self._open()
        return {name: values.copy() for name, values in self._read(index % self._length).items()}


def ours(kind: str, encoding: str, samples: list[Arrays], folder: Path, workers: int) -> Any:
    """Returns one of our loaders."""
    loader = {"torch": TileLoader, "dali": DaliLoader}[kind]
    return loader(
        write_shards(samples, folder / encoding, encoding),
        batch_size=BATCH,
        seed=0,
        modalities=[modality.name for modality in MODALITIES],
        seasons=SEASONS,
        workers=workers,
    )


def rival(name: str, samples: list[Arrays], folder: Path, workers: int) -> Iterator[Any]:
    """Returns the endless batches of a DataLoader."""
    files = Files(name, samples, folder / name.split()[-1])
    order = np.random.default_rng(0).permutation(len(samples)).tolist() * 1000
    loader: DataLoader[Any] = DataLoader(files, BATCH, sampler=order, num_workers=workers)
    return iter(loader)


CONTESTANTS = (
    *((kind, encoding) for kind in ("torch", "dali") for encoding in ("npy", "tiff")),
    *(("DataLoader", name) for name in RIVALS),
)
BRIEF = (("torch", "npy"), ("DataLoader", "lmdb"))  # without --full
NAMES = {"torch": "ours", "dali": "ours with DALI", "DataLoader": "torch's DataLoader"}


@pytest.mark.parametrize(
    ("kind", "what", "workers"),
    [
        pytest.param(*each, workers, marks=() if each in BRIEF else pytest.mark.full)
        for each in CONTESTANTS
        for workers in (0, 1, 2)
    ],
)
def test_batches(
    benchmark: Any, samples: list[Arrays], folder: Path, kind: str, what: str, workers: int
) -> None:
    """An epoch of batches after a first one, which fills caches and checks checksums."""
    if kind == "dali":
        pytest.importorskip("nvidia.dali")
    if kind == "DataLoader":
        batches = rival(what, samples, folder, workers)
    else:
        batches = iter(ours(kind, what, samples, folder, workers))
    count = max(1, len(samples) // BATCH)

    def epoch() -> None:
        for batch in islice(batches, count):
            del batch

    epoch()
    benchmark.pedantic(epoch, rounds=5)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        table="loaders",
        loader=f"{NAMES[kind]}, {what}",
        workers=workers,
        samples_per_second=count * BATCH / seconds,
        megabytes_per_second=count * BATCH * nbytes(samples[0]) / seconds / 1e6,
        threads=torch.get_num_threads(),
    )
