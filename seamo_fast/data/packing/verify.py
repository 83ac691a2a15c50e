"""Reads shard sets back after packing and compares their checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.shards import ShardSet
from seamo_fast.errors import DataError


@dataclass(frozen=True)
class _Verification:
    """Reads one shard back; picklable."""

    path: Path
    shard: int

    def run(self) -> list[str]:
        shards = ShardSet(self.path)
        bad = shards.verify(self.shard)
        count(shards.manifest.shards[self.shard].samples)
        return bad


def verify(sets: Sequence[ShardSet], workers: int, tick: Tick = lambda done: None) -> None:
    """Compares every record of some shard sets with its checksum.

    Args:
        sets: What to read.
        workers: Processes.
        tick: Called with the number of samples that were read since the last call.

    Raises:
        DataError: A record does not read back as it was packed; the message names the first.
    """
    jobs = [_Verification(each.path, n) for each in sets for n in range(len(each.manifest.shards))]
    bad = [message for found in run_jobs(jobs, workers, tick) for message in found]
    if bad:
        samples = sum(len(each) for each in sets)
        raise DataError(f"{len(bad)} of {samples} samples are damaged; the first: {bad[0]}")
