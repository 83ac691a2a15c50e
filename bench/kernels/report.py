"""Reads what the kernel benchmarks recorded: ``python -m bench.kernels.report FILE.json ...``.

Prints tables in Markdown, the worst ratio of each operation first, ours last. With ``--best`` ours
and the fastest rival of each race alone. With ``--check`` it also says on stderr which thresholds
were missed, and then exits 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.kernels.common import BOTH, COMPILED, FORWARD, OURS

Record = dict[str, Any]


class Threshold(NamedTuple):
    """What has to be reached at the small shape."""

    op: str
    sizes: tuple[str, ...]
    direction: str
    contestants: tuple[str, ...]  # none: every rival
    least: float
    quantity: str = "ratio"

    def covers(self, record: Record) -> bool:
        """Whether it speaks of a record."""
        name = record["contestant"]
        named = name in self.contestants if self.contestants else _is_rival(record)
        place = (record["op"], record["direction"]) == (self.op, self.direction)
        return named and place and record["size"] in self.sizes


_TILES = ("s2l2a", "s2l2a nodata")
_CHAINS = (f"crop{COMPILED}", f"grid_sample{COMPILED}")

THRESHOLDS = (
    Threshold("gather_patches", _TILES, FORWARD, ("crop",), 6),
    Threshold("gather_patches", _TILES, FORWARD, _CHAINS, 2.5),
    Threshold("gather_patches", _TILES, FORWARD, (OURS,), 0.5, "of copy"),
    Threshold("tm_attention", ("small",), BOTH, (), 1.8),
    Threshold("norm_pix_loss", ("s2l2a",), BOTH, ("eager",), 4),
    Threshold("norm_pix_loss", ("s2l2a",), BOTH, (f"eager{COMPILED}",), 1.5),
    Threshold("assemble_tokens", ("small",), BOTH, ("cat", "unshuffle"), 2),
    Threshold("embed_patches", ("small",), BOTH, ("all patches",), 3),
    Threshold("embed_patches", ("small",), BOTH, ("bare product",), 0.95),
)
_RACE = ("op", "size", "direction")
# nothing is slower than any rival, at any size
NEVER_BELOW = 1.0
BOUNDARY_US = 5.0


def read(path: Path) -> list[Record]:
    """What was recorded, with the median in milliseconds as ``ms``."""
    found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return [
        {**each["extra_info"], "ms": each["stats"]["median"] * 1e3}
        for each in found
        if "op" in each["extra_info"]
    ]


def _races(records: Iterable[Record]) -> list[Record]:
    found = [record for record in records if "ratio" in record]
    return sorted(found, key=lambda r: (r["op"], r["contestant"] == OURS, r["ratio"]))


def _boundaries(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if "boundary us" in record]


def _is_rival(record: Record) -> bool:
    return record["contestant"] != OURS and not record["yardstick"]


def best(records: Sequence[Record]) -> list[Record]:
    """Ours and the fastest rival of each race, and the boundary."""
    fastest: dict[tuple[str, ...], Record] = {}
    for record in filter(_is_rival, _races(records)):
        fastest.setdefault(tuple(record[part] for part in _RACE), record)
    ours = [record for record in records if record.get("contestant") == OURS]
    return [*fastest.values(), *ours, *_boundaries(records)]


def tables(records: Sequence[Record]) -> str:
    """The races, then the boundary."""
    races = (
        (
            record["op"],
            record["size"],
            record["direction"],
            record["contestant"] + (" (bound)" if record["yardstick"] else ""),
            "" if record["contestant"] == OURS else f"{record['ratio']:.2f}",
            f"{record['ms']:.3f}",
            f"{record['of matmul']:.0%}",
            f"{record['of copy']:.0%}",
            "?" if record["extra MiB"] is None else f"{record['extra MiB']:.1f}",
        )
        for record in _races(records)
    )
    boundaries = (
        (
            record["op"],
            "yes" if record["gradient"] else "no",
            *(f"{record[f'{part} us']:.1f}" for part in ("call", "kernel", "boundary")),
        )
        for record in _boundaries(records)
    )
    units = ("ratio", "ms", "of matmul", "of copy", "extra MiB")
    return "\n".join(
        (
            *_table(("op", "size", "direction", "contestant"), units, races),
            "",
            *_table(("op", "gradient"), ("call, us", "kernel, us", "boundary, us"), boundaries),
        )
    )


def _table(
    words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]
) -> Iterator[str]:
    yield _line((*words, *numbers))
    yield _line([*("---" for _ in words), *("---:" for _ in numbers)])
    yield from map(_line, rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def missed(records: Sequence[Record]) -> list[str]:
    """The thresholds that were not reached, or not measured."""
    races = _races(records)
    found = [
        f"{_name(record)}: ratio {record['ratio']:.2f}, but nothing may be faster than ours"
        for record in races
        if _is_rival(record) and record["ratio"] < NEVER_BELOW
    ]
    for threshold in THRESHOLDS:
        found += _below(threshold, [record for record in races if threshold.covers(record)])
    boundaries = _boundaries(records)
    found += [] if boundaries else ["the boundary was not measured"]
    return found + [
        f"boundary of {record['op']}: {record['boundary us']:.1f} us, at most {BOUNDARY_US} allowed"
        for record in boundaries
        if record["boundary us"] > BOUNDARY_US
    ]


def _below(threshold: Threshold, covered: Sequence[Record]) -> Iterator[str]:
    measured = {(record["size"], record["contestant"]) for record in covered}
    for size in threshold.sizes:
        for name in threshold.contestants or ("any rival",):
            if (size, name) not in measured and not (name == "any rival" and measured):
                yield f"{threshold.op}, {size}, {threshold.direction}, {name}: not measured"
    for record in covered:
        value, quantity = record[threshold.quantity], threshold.quantity
        if value < threshold.least:
            yield f"{_name(record)}: {quantity} {value:.2f}, at least {threshold.least} expected"


def _name(record: Record) -> str:
    return ", ".join(record[part] for part in ("op", "size", "direction", "contestant"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="what pytest wrote to --benchmark-json")
    parser.add_argument("--best", action="store_true", help="ours and the fastest rivals alone")
    parser.add_argument("--check", action="store_true", help="exit 1 if a threshold was missed")
    options = parser.parse_args(arguments)
    records = [record for path in options.files for record in read(path)]
    sys.stdout.write(f"{tables(best(records) if options.best else records)}\n")
    wrong = missed(records) if options.check else []
    sys.stderr.writelines(f"missed: {line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
