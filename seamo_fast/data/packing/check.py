"""Reads everything that packing would, and writes nothing: a dry audit of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.leaks.together import find_together
from seamo_fast.data.packing.offsets import (
    JudgedTiles,
    add_judged,
    judge_reading,
    offset_remarks,
)
from seamo_fast.data.packing.repeated import repeated
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards.remarks import Remark, unique
from seamo_fast.errors import DataError

_ITEMS: Final = 16  # of a job


class Audit(NamedTuple):
    """What was found.

    Attributes:
        samples: Samples that would be packed.
        skipped: What would be left out.
        noted: What is unusual.
    """

    samples: int
    skipped: tuple[Remark, ...]
    noted: tuple[Remark, ...]


@dataclass(frozen=True)
class _Part:
    """Some items of a source; picklable."""

    source: Source
    items: list[str]

    def run(self) -> tuple[Audit, dict[str, JudgedTiles], list[tuple[str, str]]]:
        names: list[tuple[str, str]] = []
        skipped, noted = [], []
        tiles: dict[str, JudgedTiles] = {}
        for item in self.items:
            try:
                for reading in self.source.read(item):
                    count()
                    skipped += reading.left_out
                    noted += reading.noted
                    if not reading.empty:
                        names.append((reading.id, item))
                        add_judged(tiles, reading, judge_reading(reading, self.source.modalities))
            except DataError as error:
                count()
                skipped.append(Remark(item, str(error), error.kind))
        return Audit(len(names), tuple(skipped), tuple(noted)), tiles, names


def check(
    source: Source,
    splits: Splits | None = None,
    *,
    workers: int = 1,
    tick: Tick = lambda done: None,
) -> Audit:
    """Returns what packing a source would report.

    Args:
        source: What would be packed.
        splits: What it would be split into; then places that share ground or pixels are found too.
        workers: Processes.
        tick: Called with the number of samples that were read since the last call.
    """
    shared = find_together(source, splits, workers=workers).remarks if splits else []
    items = source.items()
    parts = [_Part(source, items[start : start + _ITEMS]) for start in range(0, len(items), _ITEMS)]
    found = list(run_jobs(parts, workers, tick))
    audits = [audit for audit, *_ in found]
    offsets = offset_remarks(source.modalities, [tiles for _, tiles, _ in found])
    twice = repeated(name for *_, names in found for name in names)
    return Audit(
        sum(each.samples for each in audits),
        unique(each for audit in audits for each in audit.skipped),
        unique([*shared, *(each for audit in audits for each in audit.noted), *offsets, *twice]),
    )
