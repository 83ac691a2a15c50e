"""A training step: ours beside the reference of `seamo_fast.reference`, as it is and compiled.

Each runs in a process of its own, with its own memory. Both make the step of a run, with clipping
and AdamW. Their steps alternate, with the machine's bare matrix products as a third where --full
is given.
"""

from __future__ import annotations

from operator import truediv
from statistics import median
from typing import Any

import pytest

from bench.training.process import race

_MODULE = "bench.training.contestant"
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
_BRIEF, *_OTHERS = RACES


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("how", "rival", "decoded", "batch"),
    [_BRIEF, *(pytest.param(*race, marks=pytest.mark.full) for race in _OTHERS)],
)
def test_step(benchmark: Any, full: bool, how: str, rival: str, decoded: float, batch: int) -> None:
    """What is recorded of a race; medians over its rounds, in each of which all take their turn.

    `share`: time of ours over that of the reference. `mfu`: time that the machine takes for the
    matrix products of the reference's step, attention's too, one by one, over the time of ours;
    `mfu_needed` leaves out those that the loss does not need. `memory`: the most that ours held
    beyond what importing took, over that of the reference. The losses of every step have to agree
    where both decode the same.
    """
    commands = [
        (_MODULE, "ours", how, str(batch), str(decoded)),
        (_MODULE, "reference", rival, str(batch)),
        *([(_MODULE, "machine", "off", str(batch))] if full else []),
    ]
    rounds, warmup = (7, 2) if full else (3, 1)
    facts, answers = race(benchmark, *commands, rounds=rounds, warmup=warmup)
    if decoded == 1:
        for mine, other, *_ in answers:
            assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    mine, other, *bare = (
        [answer["seconds"] for answer in column] for column in zip(*answers[warmup:], strict=True)
    )
    against = "plain PyTorch" if rival == "off" else "plain PyTorch, compiled"
    benchmark.extra_info.update(
        table="steps",
        model="SeaMo `small`, four seasons of two modalities",
        ours=_described(how, decoded),
        against=against,
        batch=batch,
        headline=against if (how, decoded, batch) == ("off", 1.0, 8) else "",
        seconds=median(mine),
        share=median(map(truediv, mine, other)),
        memory=answers[-1][0]["memory"] / answers[-1][1]["memory"],
        gigabytes=answers[-1][0]["memory"] / 1e9,
        threads=facts[0]["threads"],
    )
    if bare:
        mfu = median(map(truediv, bare[0], mine))
        benchmark.extra_info.update(
            mfu=mfu,
            mfu_needed=mfu * facts[0]["flops"] / facts[2]["flops"],
            gflops=facts[2]["flops"] / median(bare[0]) / 1e9,
        )


def _described(how: str, decoded: float) -> str:
    parts = ["blocks compiled"] if how == "regional" else []
    parts += [f"{decoded:.0%} of the hidden patches decoded"] if decoded < 1 else []
    return ", ".join(parts) or "as it is"
