"""A training step: ours beside the reference of `seamo_fast.reference`, as it is and compiled.

Each runs in a process of its own, with its own memory, and their steps alternate.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ROUNDS, WARMUP = 7, 2
# how ours is compiled, how the reference, the share of the hidden patches that ours decodes, and
# the samples of a batch
RACES = (
    ("off", "off", 1.0, 8),
    ("off", "off", 1.0, 16),
    ("off", "full", 1.0, 8),
    ("regional", "off", 1.0, 8),
    ("off", "off", 0.25, 8),
    ("off", "off", 0.25, 16),
)

Ask = Any


@contextmanager
def contestant(*arguments: str) -> Iterator[Ask]:
    """Starts a contestant; what is yielded sends it a line and returns its answer."""
    command = [sys.executable, "-m", "bench.training.contestant", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, receive = process.stdin, process.stdout

        def ask(line: str = "") -> dict[str, float]:
            if line:
                send.write(line + "\n")
                send.flush()
            answer: dict[str, float] = json.loads(receive.readline())
            return answer

        yield ask
        send.close()


@pytest.mark.parametrize(("how", "rival", "decoded", "batch"), RACES)
def test_step(benchmark: Any, how: str, rival: str, decoded: float, batch: int) -> None:
    """What is recorded of a race; medians of paired steps.

    `share`: time of ours over that of the reference. `mfu`: FLOPs that the loss needs, all patches
    decoded, over the time of ours, against the rate of the reference's products one by one on this
    machine. `memory`: the most that ours held beyond what importing took, over that of the
    reference. The losses of every step have to agree where both decode the same.
    """
    with (
        contestant("ours", how, str(batch), str(decoded)) as ours,
        contestant("reference", rival, str(batch)) as reference,
    ):
        facts = ours()
        reference()
        pairs: list[tuple[dict[str, float], dict[str, float]]] = []

        def pair() -> None:
            pairs.append((ours("step"), reference("step")))

        benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=WARMUP)
        measured = reference("rate") if rival == "off" else {}
    if decoded == 1:
        for mine, other in pairs:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    timed = pairs[WARMUP:]
    seconds = statistics.median(mine["seconds"] for mine, _ in timed)
    benchmark.extra_info.update(
        seconds=seconds,
        share=statistics.median(mine["seconds"] / other["seconds"] for mine, other in timed),
        memory=pairs[-1][0]["memory"] / pairs[-1][1]["memory"],
        gigabytes=pairs[-1][0]["memory"] / 1e9,
        threads=facts["threads"],
    )
    if measured:
        rate = measured["rate"]
        benchmark.extra_info.update(
            mfu=facts["flops"] / seconds / rate,
            gflops=rate / 1e9,
        )
