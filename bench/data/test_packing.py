"""Packing: the rate beside reading and summing the same files with tifffile in two processes."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import tifffile

from bench.data.formats import Arrays, write_geotiff
from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source

WORKERS = 2
ROUNDS = 3


def summed(folder: str) -> float:
    """Reads every file of a location's folder; returns the sum of their values."""
    return sum(float(tifffile.imread(path).sum()) for path in sorted(Path(folder).rglob("*.tif")))


@pytest.mark.full
def test_locations(benchmark: Any, samples: list[Arrays], tmp_path: Path) -> None:
    """`times_tifffile` is the ratio of the rates; each process sums whole locations."""
    count = int(os.environ.get("SEAMO_FAST_BENCH_LOCATIONS", "100"))
    source = tmp_path / "source"
    write_geotiff(list(islice(cycle(samples), count)), source)
    locations = [str(each) for kind in ("s1", "s2c") for each in (source / kind).iterdir()]
    seconds: dict[str, list[float]] = {"tifffile": [], "pack": []}
    with get_context("spawn").Pool(WORKERS) as pool:

        def read() -> None:
            start = time.perf_counter()
            pool.map(summed, locations, chunksize=8)
            seconds["tifffile"].append(time.perf_counter() - start)

        def run() -> None:
            start = time.perf_counter()
            opened = open_source(source, modalities=["s2l1c", "s1grd"])
            pack(opened, tmp_path / "out", shard_size=count // 8 or 1, workers=WORKERS)
            seconds["pack"].append(time.perf_counter() - start)
            assert len(ShardSet(tmp_path / "out")) == count
            shutil.rmtree(tmp_path / "out")

        read()
        benchmark.pedantic(run, setup=read, rounds=ROUNDS)
    ratio = statistics.median(seconds["tifffile"][1:]) / statistics.median(seconds["pack"])
    benchmark.extra_info.update(
        table="packing",
        locations=count,
        locations_per_second=count / statistics.median(seconds["pack"]),
        times_tifffile=ratio,
    )
