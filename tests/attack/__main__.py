"""`python -m tests.attack`: many wrong inputs at every door, and a table of what came of them.

python -m tests.attack --cases 5000
python -m tests.attack --seed 7 --only 12    # one of them again
python -m tests.attack --kinds weights       # those whose kind has this word
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import torch

from tests.attack.campaign import Result, attack, prepare
from tests.attack.isolate import BAD, GOOD
from tests.attack.kinds import KINDS
from tests.say import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the attack; returns 1 if an input did harm."""
    given = _parse(arguments)
    torch.set_num_threads(1)
    folder = Path(given.folder or mkdtemp(prefix="seamo_fast-attack-"))
    kinds = [kind for kind in KINDS if given.kinds in kind]
    numbers = range(given.cases) if given.only is None else [given.only]
    say(f"attack with {len(numbers)} inputs of {len(kinds)} kinds, --seed {given.seed}")
    ground = prepare(folder)
    began = time.monotonic()
    show = _show if given.all else _show_bad
    results = attack(ground, folder, kinds, given.seed, numbers, given.jobs, show)
    say(table(results))
    bad = [each for each in results if each.verdict in BAD]
    Path(given.json).parent.mkdir(parents=True, exist_ok=True)
    Path(given.json).write_text(json.dumps(summary(results, given.seed), indent=1))
    took = time.monotonic() - began
    say(f"{len(results)} inputs in {took:.0f} s, {len(bad)} bad; all in {given.json}")
    if bad:
        say(f"repeat one: python -m tests.attack --seed {given.seed} --only NUMBER")
    if not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def _show(result: Result) -> None:
    text = " ".join(f"{result.what}: {result.text}".split())
    say(f"{result.number:5d}  {result.kind}  {result.verdict}  {result.seconds:.1f} s  {text}")


def _show_bad(result: Result) -> None:
    if result.verdict in BAD:
        _show(result)


def table(results: Sequence[Result]) -> str:
    """Returns a line for each kind: how many inputs, and how they ended."""
    lines = [
        f"{'':28}{'inputs':>7}"
        + "".join(f"{name:>11}" for name in (*GOOD, *BAD))
        + f"{'seconds':>10}"
    ]
    for kind in [*sorted({result.kind for result in results}), "all"]:
        of_kind = [each for each in results if kind in (each.kind, "all")]
        count = Counter(each.verdict for each in of_kind)
        cells = "".join(f"{count[name]:11}" for name in (*GOOD, *BAD))
        mean = sum(each.seconds for each in of_kind) / len(of_kind)
        lines.append(f"{kind:28}{len(of_kind):7}{cells}{mean:10.2f}")
    most = max(results, key=lambda each: each.peak)
    slow = max(results, key=lambda each: each.seconds)
    lines.append(f"most memory: {most.peak / 2**20:.0f} MiB, {most.kind} {most.number}")
    lines.append(f"longest: {slow.seconds:.1f} s, {slow.kind} {slow.number}")
    return "\n".join(lines)


def summary(results: Sequence[Result], seed: int) -> dict[str, object]:
    """Returns what the JSON file holds: counts, and each input that did harm."""
    counts = Counter(f"{each.kind}: {each.verdict}" for each in results)
    bad = [each._asdict() for each in results if each.verdict in BAD]
    return {
        "seed": seed,
        "inputs": len(results),
        "counts": dict(sorted(counts.items())),
        "bad": bad,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", type=int, default=5000, help="inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--only", type=int, help="number of the one input to try")
    parser.add_argument("--kinds", default="", help="only kinds with this word in their name")
    parser.add_argument("--all", action="store_true", help="show the good ones too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at the same time")
    parser.add_argument("--json", default="build/attack.json", help="where the results go")
    parser.add_argument("--folder", help="where to work; kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
