"""Shards that an earlier run finished: kept only while the source is what it was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.shard_job import Shard, ShardJob
from seamo_fast.data.packing.sources.fingerprint import difference
from seamo_fast.data.shards.write_shard import finished_entry
from seamo_fast.errors import DataError
from seamo_fast.files import read_json, writing


class _Kept(NamedTuple):
    """The shards of one number that are there; what has changed since, empty if nothing has."""

    shards: dict[str, Shard]
    changed: str


@dataclass(frozen=True)
class _KeptJob:
    """Looks at the shards of one number that are there; picklable."""

    job: ShardJob

    def run(self) -> _Kept:
        targets = self.job.targets
        shards = {
            split: Shard(finished_entry(targets[split]), report, kept=True)
            for split, report in self.job.reports().items()
        }
        if self.job.plan.verify:
            changed = self._compare(shards)
        else:
            changed = self._changed(shards)
            if len(shards) == len(targets):  # others are read, and counted then
                count(sum(shard.entry.samples for shard in shards.values()))
        return _Kept(shards, changed)

    def _changed(self, shards: dict[str, Shard]) -> str:
        now = self.job.fingerprints()
        for split, shard in shards.items():
            found = difference(self.job.items, shard.report.files, now)
            if found:
                return f"{self.job.targets[split]} was packed from other files: {found}"
        return ""

    def _compare(self, shards: dict[str, Shard]) -> str:
        """Packs the shards once more, beside; where that gives the same, takes note of the files.

        Returns what differs.
        """
        folder = next(iter(self.job.plan.folders.values()))
        plan = replace(self.job.plan, out=folder / f".{self.job.name}.again")
        again = replace(self.job, plan=plan, missing=tuple(shards))
        try:
            for each in plan.folders.values():
                with writing(each):
                    each.mkdir(parents=True, exist_ok=True)
            packed = again.run()
            for split, shard in shards.items():
                target = self.job.targets[split]
                differs = _first_difference(target, again.targets[split])
                if differs:
                    return f"{target} holds other pixels or dates than the source: see {differs}"
                report = replace(shard.report, files=packed[split].report.files)
                report.save(target)
                shards[split] = shard._replace(report=report)
        finally:
            shutil.rmtree(plan.out, ignore_errors=True)
        return ""


def _first_difference(before: Path, now: Path) -> str:
    """Returns the first sample that two shards do not hold alike, empty if there is none."""
    for old, new in zip_longest(_records(before), _records(now), fillvalue=("nothing",)):
        if old != new:
            return str(old[0] if new == ("nothing",) else new[0])
    return ""


def _records(shard: Path) -> list[tuple[Any, ...]]:
    records = read_json(shard / "records.json")
    return [tuple(each.get(key) for key in ("id", "dates", "valid", "crc32")) for each in records]


def kept_shards(jobs: Sequence[ShardJob], workers: int, tick: Tick) -> dict[str, dict[str, Shard]]:
    """Returns the shards that are there, by name and split.

    Args:
        jobs: Of all shards.
        workers: Processes.
        tick: Called with the number of samples that were looked at since the last call.

    Raises:
        DataError: One was packed from other files, items or settings, is damaged, or holds other
            pixels than the source where the plan says to compare them. Nothing was written then.
    """
    there = [job for job in jobs if any(each.exists() for each in job.targets.values())]
    found = list(run_jobs([_KeptJob(job) for job in there], workers, tick))
    changed = [each.changed for each in found if each.changed]
    if changed:
        more = f" (the first of {len(changed)} such shards)" if changed[1:] else ""
        compare = (
            "" if there[0].plan.verify else ", --verify to compare pixels (copies have new times)"
        )
        raise DataError(
            f"{changed[0]}{more}; choose another folder, delete such shards and give the same "
            f"command again to pack them from what is there now{compare}, or give --overwrite"
        )
    return {job.name: each.shards for job, each in zip(there, found, strict=True)}
