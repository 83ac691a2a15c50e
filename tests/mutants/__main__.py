"""`python -m tests.mutants`: puts faults into a copy of the code and reports which go unnoticed.

python -m tests.mutants --sample 40 --seed 7
python -m tests.mutants --list seamo_fast/views.py
python -m tests.mutants --sample 40 --seed 7 --again --files 20    # survivors, with more tests
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from tests.mutants.campaign import Campaign, Copy, Verdict, sample, warm_up
from tests.mutants.faults import Mutant, find
from tests.say import say

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
PARTS = (
    *(f"seamo_fast/{name}.py" for name in ("views", "pack", "stats", "view")),
    *(f"seamo_fast/{part}/**/*.py" for part in ("model", "data", "training", "tasks")),
    *("kernels/_registry.py", "kernels/_checks.py", "kernels/*/__init__.py"),
    "kernels/*/reference.py",
)
TASTE = "seamo_fast/data/demo/scene/"  # constants of a made-up landscape; only if named
CAUGHT = ("killed", "timeout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a campaign; returns 1 if a mutant went unnoticed."""
    given = _parse(arguments)
    paths = sorted({str(p.relative_to(ROOT)) for each in given.paths for p in ROOT.glob(each)})
    if given.paths is PARTS:
        paths = [path for path in paths if not path.startswith(TASTE)]
    if given.list:
        for path in paths:
            say("\n".join(mutant.key for mutant in find(path, (ROOT / path).read_bytes())))
        return 0
    mutants = sample(ROOT, paths, given.sample, given.seed)
    store = Path(given.store)
    say(f"{len(mutants)} mutants of {len(paths)} files, --seed {given.seed}; kept in {store}")
    results = _gather(store)
    reasons = equivalents()
    work = [m for m in mutants if m.key not in reasons and not _done(results, m, given.again)]
    if work:
        warm_up()
        _share(work, paths, given, results)
    verdicts = [(m, _verdict(m, reasons, _read(store / "results.json"))) for m in mutants]
    say(table(verdicts))
    return int(any(verdict.status not in (*CAUGHT, "equivalent") for _, verdict in verdicts))


def _share(
    work: Sequence[Mutant],
    paths: Sequence[str],
    given: argparse.Namespace,
    results: dict[str, Verdict],
) -> None:
    """Divides the work among forked processes, each with a copy of its own."""
    store = Path(given.store)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # tests write and remove much
    folder = Path(mkdtemp(prefix="seamo_fast-mutants-", dir=memory))
    children = []
    try:
        for job in range(given.jobs):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    copy = Copy(ROOT, folder / str(job))
                    campaign = Campaign(copy, store / "tests", given.files, given.limit)
                    campaign.compile()
                    if job == 0:
                        campaign.check(paths)
                    _try(campaign, work[job :: given.jobs], store / f"results-{job}.json")
                    code = 0
                except BaseException:  # noqa: BLE001 (a forked process must not return)
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
        failed = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        results.update(_gather(store))
    if any(failed):
        sys.exit(1)


def _gather(store: Path) -> dict[str, Verdict]:
    """Returns all results, those of a killed campaign too, and makes one file of them."""
    store.mkdir(parents=True, exist_ok=True)
    results = _read(store / "results.json")
    parts = list(store.glob("results-*.json"))
    for part in parts:
        results.update(_read(part))
    _write(store / "results.json", results)
    for part in parts:
        part.unlink()
    return results


def _try(campaign: Campaign, mutants: Sequence[Mutant], file: Path) -> None:
    results: dict[str, Verdict] = {}
    for number, mutant in enumerate(mutants, 1):
        verdict = results[mutant.key] = campaign.judge(mutant)
        _write(file, results)
        say(
            f"{number:4d}/{len(mutants)}  {verdict.status:9}  {verdict.seconds:5.1f} s  "
            f"{verdict.tests:3d} tests  {mutant.key}" + (f"  <- {verdict.by}" if verdict.by else "")
        )


def equivalents(file: Path = EQUIVALENT) -> dict[str, str]:
    """Returns the reason of each mutant that no test could notice, by its key."""
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.rsplit(" | ", 1) for line in lines)


def table(verdicts: Sequence[tuple[Mutant, Verdict]]) -> str:
    """Returns counts by part of the package, and the mutants that went unnoticed."""
    names = ("killed", "timeout", "equivalent", "survived", "untested")
    counts: dict[str, Counter[str]] = {}
    for mutant, verdict in verdicts:
        part = mutant.path.removeprefix("seamo_fast/").split("/")[0]
        for key in (part, "all"):
            counts.setdefault(key, Counter())[verdict.status] += 1
    lines = ["", f"{'':12}{'mutants':>9}" + "".join(f"{name:>12}" for name in names)]
    for part in [*sorted(counts.keys() - {"all"}), "all"]:
        found = counts.get(part, Counter())
        lines.append(f"{part:12}{found.total():9}" + "".join(f"{found[n]:12}" for n in names))
    unnoticed = [m.key for m, v in verdicts if v.status in ("survived", "untested")]
    return "\n".join([*lines, *(["", "Unnoticed:", *unnoticed] if unnoticed else [])])


def _done(results: dict[str, Verdict], mutant: Mutant, again: bool) -> bool:
    known = results.get(mutant.key)
    return known is not None and (not again or known.status in CAUGHT)


def _verdict(mutant: Mutant, reasons: dict[str, str], results: dict[str, Verdict]) -> Verdict:
    if mutant.key in reasons:
        return Verdict("equivalent", reasons[mutant.key], 0.0, 0, "")
    return results[mutant.key]


def _read(file: Path) -> dict[str, Verdict]:
    if not file.exists():
        return {}
    return {key: Verdict(*value) for key, value in json.loads(file.read_text()).items()}


def _write(file: Path, results: dict[str, Verdict]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1))
    partial.replace(file)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", default=PARTS, help="files to put faults into")
    parser.add_argument("--sample", type=int, default=40, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--files", type=int, default=6, help="test files a mutant is tried on")
    parser.add_argument("--limit", type=float, default=60, help="seconds of tests a mutant")
    parser.add_argument("--again", action="store_true", help="try those that went unnoticed again")
    parser.add_argument("--list", action="store_true", help="list all mutants and end")
    parser.add_argument("--store", default=str(ROOT / "build/mutants"), help="remembered results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
