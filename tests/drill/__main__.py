"""`python -m tests.drill`: disturbs many runs at random moments and tells how each ended.

python -m tests.drill --runs 40
python -m tests.drill --seed 7 --only 12    # one of them again
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from seamo_fast.randomness import generator
from tests.drill.kinds import KINDS, ORDER, Drill, Ground, Skipped, prepare
from tests.say import say


class Result(NamedTuple):
    """How one drill ended: `verdict` is "ok", "skipped" or "FAILED"."""

    number: int
    kind: str
    moments: str
    restarts: int
    verdict: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the drill; returns 1 if a run did not end as it should."""
    given = _parse(arguments)
    folder = Path(given.folder or mkdtemp(prefix="seamo_fast-drill-"))
    numbers = range(given.runs) if given.only is None else [given.only]
    say(f"drill of {len(numbers)} runs, --seed {given.seed}, in {folder}")
    ground = prepare(folder)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda i: disturb(ground, folder, given.seed, i), numbers))
    say("\n" + table(results))
    failed = sum(result.verdict == "FAILED" for result in results)
    restarts = sum(result.restarts for result in results)
    say(f"{len(results)} runs, {restarts} restarts, {failed} failed")
    if failed:
        say(f"what they left is in {folder}; repeat one with --seed {given.seed} --only NUMBER")
    elif not given.folder:
        shutil.rmtree(folder)
    return 1 if failed else 0


def disturb(ground: Ground, folder: Path, seed: int, number: int) -> Result:
    """Does drill `number`, whose kind and moments follow from the seed."""
    kind = ORDER[number % len(ORDER)]
    home = folder / f"{number:03d}-{kind.replace(' ', '-').replace(',', '')}"
    began = time.monotonic()
    try:
        moments = KINDS[kind](Drill(ground, home, generator(seed, "drill", number)))
        verdict = "ok"
    except Skipped as reason:
        moments, verdict = str(reason), "skipped"
    except Exception:  # noqa: BLE001 (a drill that fails must not end the others)
        moments, verdict = traceback.format_exc(), "FAILED"
    starts = len(list(home.glob("job/output-*.txt")))
    result = Result(number, kind, moments, max(0, starts - 1), verdict, time.monotonic() - began)
    if verdict != "FAILED":
        shutil.rmtree(home, ignore_errors=True)
    say(table([result]))
    return result


def table(results: Sequence[Result]) -> str:
    """Returns the results as lines of columns."""
    return "\n".join(
        f"{r.number:3d}  {r.kind:24}  {r.verdict:7}  {r.restarts:2d} restarts  {r.seconds:5.1f} s  "
        f"{r.moments}"
        for r in results
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.drill", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="disturbed runs")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the moments")
    parser.add_argument("--only", type=int, help="number of the one run to do")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--folder", help="where to work; kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
