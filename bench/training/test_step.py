"""A training step: ours beside the reference of `seamo_fast.reference`, as it is and compiled.

Each runs in a process of its own, with its own memory. Both make the step of a run, with clipping
and AdamW. Their steps alternate, with the machine's bare matrix products as a third.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import truediv
from statistics import median
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
    """Starts a contestant; what is yielded asks it for a step and returns its answer."""
    command = [sys.executable, "-m", "bench.training.contestant", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, receive = process.stdin, process.stdout

        def ask(step: bool = True) -> dict[str, float]:
            if step:
                send.write("\n")
                send.flush()
            answer: dict[str, float] = json.loads(receive.readline())
            return answer

        yield ask
        send.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("how", "rival", "decoded", "batch"), RACES)
def test_step(benchmark: Any, how: str, rival: str, decoded: float, batch: int) -> None:
    """What is recorded of a race; medians over its rounds, in each of which all take their turn.

    `share`: time of ours over that of the reference. `mfu`: time that the machine takes for the
    matrix products of the reference's step, attention's too, one by one, over the time of ours;
    `mfu_needed` leaves out those that the loss does not need. `memory`: the most that ours held
    beyond what importing took, over that of the reference. The losses of every step have to agree
    where both decode the same.
    """
    with (
        contestant("ours", how, str(batch), str(decoded)) as ours,
        contestant("reference", rival, str(batch)) as reference,
        contestant("machine", "off", str(batch)) as machine,
    ):
        facts, _, products = (ask(step=False) for ask in (ours, reference, machine))
        rounds: list[tuple[dict[str, float], ...]] = []
        benchmark.pedantic(
            lambda: rounds.append((ours(), reference(), machine())),
            rounds=ROUNDS,
            warmup_rounds=WARMUP,
        )
    if decoded == 1:
        for mine, other, _ in rounds:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    mine, other, bare = (
        [answer["seconds"] for answer in answers] for answers in zip(*rounds[WARMUP:], strict=True)
    )
    mfu = median(map(truediv, bare, mine))
    benchmark.extra_info.update(
        seconds=median(mine),
        share=median(map(truediv, mine, other)),
        mfu=mfu,
        mfu_needed=mfu * facts["flops"] / products["flops"],
        gflops=products["flops"] / median(bare) / 1e9,
        memory=rounds[-1][0]["memory"] / rounds[-1][1]["memory"],
        gigabytes=rounds[-1][0]["memory"] / 1e9,
        threads=facts["threads"],
    )
