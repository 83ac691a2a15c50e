"""A step of full finetuning: ours beside timm's model in a plain PyTorch loop, losses equal."""

from __future__ import annotations

from operator import truediv
from statistics import median
from typing import Any

import pytest

from bench.training.process import race

_MODULE = "bench.tasks.finetuning"
_BATCH = 32


@pytest.mark.timeout(900)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.full)])
def test_finetuning(benchmark: Any, full: bool, compiled: bool) -> None:
    """What is recorded of a race; see `test_step`."""
    pytest.importorskip("timm", reason="timm is not installed")
    commands = [
        (_MODULE, "ours", str(_BATCH)),
        (_MODULE, "timm", str(_BATCH), *(["--compile"] if compiled else [])),
    ]
    rounds, warmup = (7, 2) if full else (3, 1)
    facts, answers = race(benchmark, *commands, rounds=rounds, warmup=warmup)
    for mine, other in answers:
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-4)
    mine, other = (
        [answer["seconds"] for answer in column] for column in zip(*answers[warmup:], strict=True)
    )
    benchmark.extra_info.update(
        table="steps",
        model="ViT-S/16, full finetuning, 224 px",
        ours="as it is",
        against="timm in a plain loop" + (", compiled" if compiled else ""),
        batch=_BATCH,
        headline="finetuning",
        seconds=median(mine),
        share=median(map(truediv, mine, other)),
        memory=answers[-1][0]["memory"] / answers[-1][1]["memory"],
        gigabytes=answers[-1][0]["memory"] / 1e9,
        threads=facts[0]["threads"],
    )
