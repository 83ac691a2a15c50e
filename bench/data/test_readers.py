"""One core reads samples in random order: ours, a plain memory copy, and what people use."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.formats import READERS, Arrays, nbytes

OURS = "shards npy"
BRIEF = (OURS, "memory copy", "lmdb")  # warm, without --full


def timed(read: Callable[[int], Arrays], order: np.ndarray) -> float:
    """Returns the seconds that reading these samples takes."""
    start = time.perf_counter()
    for index in order:
        read(int(index))
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        pytest.param(
            name, cache, marks=() if name in BRIEF and cache == "warm" else pytest.mark.full
        )
        for name in READERS
        for cache in ("warm", "cold")
    ],
)
def test_one_core(
    benchmark: Any, samples: list[Arrays], folder: Path, name: str, cache: str, request: Any
) -> None:
    """Each reader in turn with ours; `times_ours` is the ratio of the medians of the rounds.

    A cold memory map holds its pages, so all are opened again for each cold round; ours then
    compares checksums again.
    """
    if (name, cache) == (OURS, "cold"):
        pytest.skip("two readers of one file share its pages")
    evict = request.getfixturevalue("evict") if cache == "cold" else None
    order = np.random.default_rng(0).permutation(len(samples))
    make, ours = (partial(READERS[key], samples, folder / key.split()[-1]) for key in (name, OURS))
    readers = {"other": make(), "ours": ours()}
    if name not in ("torchgeo (S2 alone)", "webdataset"):
        for values, expected in zip(readers["other"](1).values(), samples[1].values(), strict=True):
            np.testing.assert_array_equal(values, expected)
    seconds: dict[str, list[float]] = {"other": [], "ours": []}

    def prepare() -> None:
        if evict:
            readers.clear()
            gc.collect()
            evict()
            readers.update(other=make(), ours=ours())
        seconds["ours"].append(timed(readers["ours"], order))
        if evict:
            evict()

    def run() -> None:
        seconds["other"].append(timed(readers["other"], order))

    timed(readers["ours"], order)  # checks the checksums, which happens once
    timed(readers["other"], order)
    benchmark.pedantic(run, setup=prepare, rounds=5)
    other, ours_median = (statistics.median(seconds[key]) for key in ("other", "ours"))
    benchmark.extra_info.update(
        table="readers",
        reader=name,
        cache=cache,
        samples_per_second=len(samples) / other,
        megabytes_per_second=len(samples) * nbytes(samples[0]) / other / 1e6,
        times_ours=other / ours_median,
        megabytes_a_sample=nbytes(samples[0]) / 1e6,
    )
