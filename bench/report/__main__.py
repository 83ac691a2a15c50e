"""Turns what pytest-benchmark wrote into tables: ``python -m bench.report FILE.json ...``.

``--details`` prints every race. ``--check`` names every threshold that was missed and then exits 1.
``--write`` stores what the tables need in bench/results.json, and writes the tables between the
markers in docs/benchmarks.md and README.md; without files it writes what is stored there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report import records, tables, thresholds
from bench.report.records import RESULTS, Run

DOCS = tuple(RESULTS.parents[1] / name for name in ("docs/benchmarks.md", "README.md"))
_BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, runs: Sequence[Run]) -> str:
    """A page with the tables between its markers, ``<!-- bench:NAME -->`` and ``<!-- end -->``."""
    return _BLOCK.sub(lambda found: f"{found[1]}{tables.block(found[2], runs)}\n{found[3]}", text)


def printed(runs: Sequence[Run], *, every_race: bool) -> str:
    """The tables of all that was measured, or all races of the operations."""
    if every_race:
        return tables.details([record for run in runs for record in run.records])
    return "\n\n".join(filter(None, (tables.block(name, runs) for name in tables.TABLES)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", help="what pytest wrote to --benchmark-json")
    parser.add_argument("--details", action="store_true", help="print every race")
    parser.add_argument("--check", action="store_true", help="exit 1 if a threshold was missed")
    parser.add_argument("--write", action="store_true", help="write the tables of the docs")
    options = parser.parse_args(arguments)
    runs = [records.read(path) for path in options.files] or records.stored()
    sys.stdout.write(f"{printed(runs, every_race=options.details)}\n")
    if options.write:
        records.store(runs)
        for page in DOCS:
            text = page.read_text(encoding="utf-8")
            page.write_text(filled(text, records.stored()), encoding="utf-8")
    wrong = thresholds.missed([r for run in runs for r in run.records]) if options.check else []
    sys.stderr.writelines(f"missed: {line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
