"""`python -m bench.training.soak`: a long run is watched, and must not grow or slow down.

python -m bench.training.soak --minutes 45
python -m bench.training.soak --minutes 2     # a quick look

A pretraining run of a small model on demo scenes, with checkpoints, figures and TensorBoard, is
started as a user starts it and ended with SIGTERM. Meanwhile its memory, file descriptors and
threads are read from /proc once a second. The first third of the steps is warm-up. The folder then
holds soak.csv, soak.png and soak.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.errors import SeaMoError
from seamo_fast.training.reporting.telemetry import read_metrics

BATCH: Final = 4
SETTINGS: Final = """\
data: {{path: {shards}, batch_size: 4}}
model: {{width: 64, depth: 2, heads: 2, image_size: 32, patch_size: 8,
         decoder_width: 32, decoder_depth: 1, decoder_heads: 2}}
schedule: {{kind: direct, multi_season: {{epochs: 1000000}}}}
run: {{folder: {folder}, resume: none, device: cpu, figure_samples: 2, log_every: 20,
       checkpoint_every: 200, figures_every: 500}}
"""
MEMORY: Final = 1.0  # MB per 1,000 steps
STEP_TIME: Final = 0.05  # share
ENOUGH: Final = 10_000  # steps: below it, a few MB that come and go pass for a slope
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """The process at one moment; memory in MB of 10**6 bytes, processor time in seconds."""

    seconds: float
    step: int
    resident: float
    anonymous: float
    descriptors: int
    threads: int
    processor: float
    processor_of_others: float


@dataclass(frozen=True)
class Criterion:
    """One thing that is judged.

    Attributes:
        name: What, with its unit.
        found: Its value.
        limit: What it may be at most.
        verdict: "ok", "FAILED", or "too short" where the run had too few steps to judge.
        note: What helps to understand the value.
    """

    name: str
    found: float
    limit: float
    verdict: str
    note: str


def take(process: int, seconds: float, step: int) -> Sample:
    """Reads from /proc what a process holds now."""
    folder = Path(f"/proc/{process}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    processor = (int(fields[11]) + int(fields[12])) / _TICKS
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return Sample(
        seconds,
        step,
        int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        int(status["RssAnon"].split()[0]) * 1024 / 1e6,
        sum(1 for _ in (folder / "fd").iterdir()),
        int(status["Threads"]),
        processor,
        (user + nice + system) / _TICKS - processor,
    )


def soak(folder: Path, minutes: float) -> tuple[list[Sample], list[tuple[int, float]]]:
    """Watches a run for some minutes, in steps of a second.

    Returns:
        The samples, and (step, milliseconds a step) of each line of metrics.jsonl.

    Raises:
        SeaMoError: The run ended by itself, or not with its last step saved.
    """
    run = folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    shards = demo_shards(folder, samples=64, size=48)
    config = folder / "config.yaml"
    config.write_text(SETTINGS.format(shards=shards, folder=run))
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "seamo_fast.pretrain", "--config", str(config)],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            samples = _watch(process, run / "metrics.jsonl", 60 * minutes)
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        finally:
            process.kill()
    if "which is saved" not in output.read_text():
        raise SeaMoError(f"the run did not end as asked for; {output} says why")
    lines = read_metrics(run / "metrics.jsonl")
    return samples, [(line["step"], 1000 * BATCH / line["samples_per_second"]) for line in lines]


def _watch(process: subprocess.Popen[bytes], metrics: Path, seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds and process.poll() is None:
        step = _last_step(metrics)
        if step:
            samples.append(take(process.pid, passed, step))
        time.sleep(1)
    return samples


def _last_step(metrics: Path) -> int:
    """Returns the step of the last whole line, 0 if there is none, from the end of the file."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def judge(samples: Sequence[Sample], steps: Sequence[tuple[int, float]]) -> list[Criterion]:
    """Compares the last two thirds of a run with what is allowed.

    Args:
        samples: Of the process.
        steps: (step, milliseconds a step) of the run's intervals.
    """
    last = samples[-1].step
    enough = last >= ENOUGH
    middle, end = (
        [sample for sample in samples if low <= sample.step / last <= high]
        for low, high in ((1 / 3, 2 / 3), (2 / 3, 1))
    )
    return [
        _memory([*middle, *end], "anonymous", enough),
        _memory([*middle, *end], "resident", enough),
        *(_count(middle, end, name) for name in ("descriptors", "threads")),
        _step_time(middle, end, steps, enough),
    ]


def _memory(samples: Sequence[Sample], name: str, enough: bool) -> Criterion:
    thousands = np.array([sample.step for sample in samples]) / 1000
    held = np.array([getattr(sample, name) for sample in samples])
    (slope, _), covariance = np.polyfit(thousands, held, 1, cov=True)
    note = (
        f"standard error {covariance[0, 0] ** 0.5:.3f}; {held[0]:.1f} MB at first, {held[-1]:.1f} "
        f"at last, {held.max():.1f} at most"
    )
    verdict = _verdict(slope <= MEMORY, enough)
    return Criterion(f"{name} memory, MB per 1,000 steps", float(slope), MEMORY, verdict, note)


def _count(middle: Sequence[Sample], end: Sequence[Sample], name: str) -> Criterion:
    # figures and checkpoints open files for a moment: what leaks is there at all times
    least = [min(getattr(sample, name) for sample in part) for part in (middle, end)]
    most = [max(getattr(sample, name) for sample in part) for part in (middle, end)]
    note = f"{least[0]} to {most[0]} in the second third, {least[1]} to {most[1]} in the last"
    growth = least[1] - least[0]
    return Criterion(f"growth of {name}", growth, 0, _verdict(growth <= 0, True), note)


def _step_time(
    middle: Sequence[Sample],
    end: Sequence[Sample],
    steps: Sequence[tuple[int, float]],
    enough: bool,
) -> Criterion:
    parts = [
        [time for step, time in steps if part[0].step <= step <= part[-1].step]
        for part in (middle, end)
    ]
    medians = [float(np.median(part)) for part in parts]
    change = abs(medians[1] / medians[0] - 1)
    note = "; ".join(
        f"{name} third: median {np.median(part):.2f} ms, quartiles "
        f"{np.percentile(part, 25):.2f} and {np.percentile(part, 75):.2f}, "
        f"{_processor(rows):.2f} ms of processor time with all it does, other processes "
        f"{_others(rows):.1f} cores"
        for name, part, rows in zip(("second", "last"), parts, (middle, end), strict=True)
    )
    verdict = _verdict(change <= STEP_TIME, enough)
    return Criterion("change of the step time, share", change, STEP_TIME, verdict, note)


def _processor(rows: Sequence[Sample]) -> float:
    return 1000 * (rows[-1].processor - rows[0].processor) / (rows[-1].step - rows[0].step)


def _others(rows: Sequence[Sample]) -> float:
    seconds = rows[-1].seconds - rows[0].seconds
    return (rows[-1].processor_of_others - rows[0].processor_of_others) / seconds


def _verdict(good: bool, enough: bool) -> str:
    return "ok" if good else "FAILED" if enough else "too short"


def draw(samples: Sequence[Sample], steps: Sequence[tuple[int, float]], target: Path) -> None:
    """Draws memory, counts and step time over the steps as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    x = [sample.step for sample in samples]
    for axis, names, label in (
        (axes[0], ("resident", "anonymous"), "memory (MB)"),
        (axes[1], ("descriptors", "threads"), "number"),
    ):
        for name in names:
            axis.plot(x, [getattr(sample, name) for sample in samples], label=name)
        axis.set_ylabel(label)
        axis.legend()
    axes[2].plot(*zip(*steps, strict=True), ".", markersize=2)
    axes[2].set_ylabel("ms a step, mean of 20")
    axes[2].set_ylim(0, 1.5 * float(np.percentile([time for _, time in steps], 99)))
    axes[2].set_xlabel("step")
    for axis in axes:
        axis.axvline(x[-1] / 3, color="grey", linestyle="--", linewidth=0.8)
    figure.savefig(target, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; returns 1 if a criterion failed."""
    parser = argparse.ArgumentParser(
        "python -m bench.training.soak", description="Watches a long pretraining run."
    )
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    given = parser.parse_args(arguments)
    samples, steps = soak(given.folder, given.minutes)
    with (given.folder / "soak.csv").open("w", newline="") as file:
        csv.writer(file).writerows([Sample._fields, *samples])
    draw(samples, steps, given.folder / "soak.png")
    found = judge(samples, steps)
    text = json.dumps(
        {"minutes": given.minutes, "steps": samples[-1].step, "found": [asdict(c) for c in found]},
        indent=1,
    )
    (given.folder / "soak.json").write_text(text + "\n")
    sys.stdout.write(f"{samples[-1].step} steps in {given.minutes:g} minutes\n")
    for each in found:
        sys.stdout.write(
            f"{each.verdict:9}  {each.name}: {each.found:.3f}, at most {each.limit:g}\n"
            f"           {each.note}\n"
        )
    return 1 if any(each.verdict == "FAILED" for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
