"""A training step of a masked autoencoder: ours beside Hugging Face's ViTMAE.

The same sizes, loss, patches, optimiser and allocator; tests/bench/test_vitmae.py shows that both
compute the same where ViTMAE goes without its class token.
"""

from __future__ import annotations

from operator import truediv
from statistics import median
from typing import Any

import pytest

from bench.training.process import race

_MODULE = "bench.training.vitmae"
_BATCH = 32


@pytest.mark.timeout(900)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.full)])
def test_vitmae(benchmark: Any, full: bool, compiled: bool) -> None:
    """What is recorded of a race; see `test_step`."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    commands = [
        (_MODULE, "ours", str(_BATCH)),
        (_MODULE, "huggingface", str(_BATCH), *(["--compile"] if compiled else [])),
        *([(_MODULE, "machine", str(_BATCH))] if full else []),
    ]
    rounds, warmup = (7, 2) if full else (3, 1)
    facts, answers = race(benchmark, *commands, rounds=rounds, warmup=warmup)
    mine, other, *bare = (
        [answer["seconds"] for answer in column] for column in zip(*answers[warmup:], strict=True)
    )
    benchmark.extra_info.update(
        table="steps",
        model="ViT-S/16 MAE, 224 px",
        ours="as it is",
        against="Hugging Face ViTMAE" + (", compiled" if compiled else ""),
        batch=_BATCH,
        headline="ViTMAE",
        seconds=median(mine),
        share=median(map(truediv, mine, other)),
        memory=answers[-1][0]["memory"] / answers[-1][1]["memory"],
        gigabytes=answers[-1][0]["memory"] / 1e9,
        threads=facts[0]["threads"],
    )
    if bare:
        benchmark.extra_info.update(mfu=median(map(truediv, bare[0], mine)))
