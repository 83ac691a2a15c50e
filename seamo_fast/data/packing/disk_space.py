"""How much disk a pack will take, estimated before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seamo_fast.data.packing.shard_job import Plan
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.shards import record_bytes
from seamo_fast.data.shards.array_files import encode_tiff
from seamo_fast.data.shards.write_shard import finished_entry
from seamo_fast.errors import DataError

_RECORD: Final = 1024  # bytes of a record's line in records.json, about


@dataclass(frozen=True)
class Room:
    """What a pack is about to take.

    Attributes:
        samples: Samples, about.
        needed: Bytes still to be written, about.
        free: Bytes that are free where they go.
    """

    samples: int
    needed: int
    free: int

    def check(self, out: Path) -> None:
        """Raises DataError if it will not fit."""
        if self.needed > self.free:
            raise DataError(
                f"about {self.samples} samples take {_readable(self.needed)} in {out}, but "
                f"{_readable(self.free)} are free; free some space, choose another folder, or "
                "pack fewer modalities or seasons (--format tiff is smaller)"
            )

    def __str__(self) -> str:
        return (
            f"about {self.samples} samples, {_readable(self.needed)} to write, "
            f"{_readable(self.free)} free"
        )


def estimate(source: Source, plan: Plan) -> Room:
    """Returns what a pack takes, less what an earlier run has finished."""
    samples = source.estimate()
    finished = sum(
        finished_entry(shard).samples
        for folder in plan.folders.values()
        for shard in folder.glob("shard-*")
    )
    record = record_bytes(list(source.arrays.values()))
    if plan.encoding == "tiff":
        record = round(record * _deflated_share(source))
    existing = next(each for each in (plan.out, *plan.out.resolve().parents) if each.exists())
    needed = max(samples - finished, 0) * (record + _RECORD)
    return Room(samples, needed, shutil.disk_usage(existing).free)


def _deflated_share(source: Source) -> float:
    """How large the first readable sample is as TIFF, compared with its pixels."""
    for item in source.items():
        try:
            reading = next(source.read(item), None)
        except DataError:
            continue
        if reading is None or reading.empty:
            continue
        grids = [grid for each in reading.arrays.values() for grid in each]
        coded = sum(len(encode_tiff(image)) for grid in grids for image in grid)
        return coded / sum(grid.nbytes for grid in grids)
    return 1.0


def _readable(size: float) -> str:
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
