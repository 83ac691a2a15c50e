"""What the soak says of runs that are made up: good ones, leaking ones, short ones."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from bench.training.soak import Criterion, Sample, draw, judge, take

ROWS = 300


def judged(
    steps: int, leak: float = 0.0, descriptors: int = 0, slower: float = 0.0
) -> dict[str, Criterion]:
    """Judges a run that leaks so many MB per 1,000 steps, and so on; warm-up takes 100 MB."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(1, ROWS + 1):
        step = steps * number // ROWS
        held = 300 + min(1, 4 * step / steps) * 100 + leak * step / 1000 + 3 * rng.random()
        files = 9 + int(rng.integers(3)) + descriptors * number // ROWS
        rows.append(Sample(number, step, 2 * held, held, files, 4, number, 0.1 * number))
    times = [
        (step, 12 * rng.uniform(0.9, 1.1) * (1 + slower * (step > steps / 2)))
        for step in range(20, steps + 1, 20)
    ]
    return {each.name.partition(",")[0]: each for each in judge(rows, times)}


def test_a_flat_run_is_good() -> None:
    assert {each.verdict for each in judged(100_000).values()} == {"ok"}


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"leak": 2.0}, "anonymous memory"),
        ({"leak": 2.0}, "resident memory"),
        ({"descriptors": 3}, "growth of descriptors"),
        ({"slower": 0.1}, "change of the step time"),
    ],
)
def test_what_grows_is_found(fault: dict[str, float], name: str) -> None:
    assert judged(100_000, **fault)[name].verdict == "FAILED"


def test_the_slope_is_that_of_the_run_after_its_warm_up() -> None:
    found = judged(100_000, leak=2.0)
    assert found["anonymous memory"].found == pytest.approx(2.0, abs=0.02)
    assert found["resident memory"].found == pytest.approx(4.0, abs=0.04)


def test_a_short_run_is_not_judged_by_its_slope() -> None:
    assert judged(2000, leak=2.0)["anonymous memory"].verdict == "too short"
    assert judged(2000, descriptors=3)["growth of descriptors"].verdict == "FAILED"


def test_a_sample_is_what_the_process_holds(tmp_path: Path) -> None:
    before = take(os.getpid(), 0.0, 1)
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        # never what was freed before
        block = np.frombuffer(mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE), np.uint8)
        block[:] = 1
        after = take(os.getpid(), 1.0, 2)
    assert after.descriptors == before.descriptors + 2
    assert after.threads == before.threads
    assert after.anonymous - before.anonymous == pytest.approx(len(block) / 1e6, abs=5)
    assert after.processor >= before.processor


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    rows = [Sample(n, 20 * n, 2.0, 1.0, 9, 4, n, n) for n in range(1, 9)]
    draw(rows, [(row.step, 12.0) for row in rows], tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
