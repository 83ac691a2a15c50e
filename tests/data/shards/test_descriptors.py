"""More shards than a process may open files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardWriter
from seamo_fast.modalities import Band, Modality

SHARDS, LIMIT = 600, 64
ONE = Modality("one", (Band("A", 10),), "dn", (1.0,), (1.0,))
READ = f"""
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
from seamo_fast.data import ShardSet, TileLoader
shards = ShardSet(sys.argv[1])
found = [int(shards.read(n).bands["one"][0][0, 0, 0, 0]) for n in range(len(shards))]
assert found == list(range({SHARDS})), found
loader = iter(TileLoader(
    shards, batch_size=60, seed=0, modalities=["one"], seasons=1, workers=4, on_bad="stop"))
seen = [int(value) for _ in range(10) for value in next(loader).bands["one"][0].flatten()]
assert sorted(seen) == list(range({SHARDS})), seen
print(len(list(Path("/proc/self/fd").iterdir())))
"""


def test_six_hundred_shards_and_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # 2,000 of them take a minute on some disks
    writer = ShardWriter(tmp_path / "shards", [ONE], 1, source="made", shard_size=1)
    for number in range(SHARDS):
        values = np.full((1, 1, 1, 1), number, np.uint16)
        writer.add(f"{number}", {"one": [values]}, {"one": [None]}, {"one": [True]})
    writer.finish()
    line = [sys.executable, "-c", READ, str(tmp_path / "shards")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT
