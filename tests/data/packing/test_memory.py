"""Memory does not grow with the size of a dataset: below 1.5 GB, all processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

from seamo_fast.data import ShardSet, TileLoader
from tests.data.packing.test_pack_kills import write_locations

MOST = 1500  # MB
GROWTH = 20  # MB, of what comes and goes while memory is used again


# ru_maxrss of a child begins with what its parent held, so a small process measures
WATCH = """
import pathlib, resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code
status = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1]
print(status.split()[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*command: object) -> float:
    """Runs a module of this package; returns the most MB that it and two workers held."""
    arguments = [sys.executable, "-c", WATCH, *map(str, command)]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    main, worker = map(int, output.splitlines()[-1].split())
    return (main + 2 * worker) / 1024


def own_memory() -> float:
    """Returns the MB that this process holds besides pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def test_packing_and_measuring(tmp_path: Path) -> None:
    write_locations(tmp_path / "few", 4, dates=1)
    write_locations(tmp_path / "many", 60, dates=1)
    peaks = [
        peak("seamo_fast.pack", tmp_path / name, tmp_path / "out" / name, *options)
        for name, *options in (("few", "--shard_size=2"), ("many", "--shard_size=30"))
    ]
    assert peaks[1] < min(peaks[0] + GROWTH, MOST)
    peaks = [peak("seamo_fast.stats", tmp_path / name) for name in ("few", "many")]
    assert peaks[1] < min(peaks[0] + GROWTH, MOST)


def test_reading(tmp_path: Path) -> None:
    """600 shards of 5.3 MB, which are one on the disk."""
    write_locations(tmp_path / "source", 4, dates=1)
    out = tmp_path / "out"
    peak("seamo_fast.pack", tmp_path / "source", out)
    manifest = json.loads((out / "manifest.json").read_text())
    shard = manifest["shards"][0]
    for number in range(1, 600):
        copy = {**shard, "name": f"shard-{number:05d}"}
        manifest["shards"].append(copy)
        (out / copy["name"]).mkdir()
        for file in (out / shard["name"]).iterdir():
            os.link(file, out / copy["name"] / file.name)
    (out / "manifest.json").write_text(json.dumps(manifest))
    shards = ShardSet(out)
    assert len(shards) == 2400
    loader = TileLoader(
        shards, batch_size=8, seed=0, modalities=["s2l1c", "s1grd"], seasons=4, workers=1
    )
    batches = iter(loader)
    # how many batches exist at a moment is a matter of luck
    before = max(own_memory() for _ in islice(batches, 20))
    for _ in islice(batches, 280):
        pass
    # a sample that is kept from each batch would be 300 MB more
    assert own_memory() < before + 5 * GROWTH
