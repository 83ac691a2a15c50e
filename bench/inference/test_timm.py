"""Inference of ViT-B/16: our backbone beside timm's model, as its users run it.

timm's has a class token, so that features are not compared here: tests/bench/test_timm.py shows
that without it both compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch

from bench.inference import models
from bench.kernels import common
from bench.training.contestant import Machine


def _nothing(
    inputs: Any, actual: common.Results, expected: common.Results
) -> tuple[common.Results, common.Results]:
    return (), ()


def _timm(
    function: common.Function,
    compiled: Callable[[common.Function], common.Function] | None = None,
    eager: bool = True,
) -> common.Contestant:
    return common.Contestant(function, compiled, eager, compared=_nothing, obstacle=models.obstacle)


BENCH = common.Bench(
    op=models,
    cases=[common.Case("base", batch=batch) for batch in (1, 16)],
    inputs=models.inputs_of,
    arguments=lambda x: x.images,
    contestants={
        common.OURS: common.Contestant(models.ours, compiled=None),
        "timm": _timm(models.timm_features, common.whole),
        "timm, channels last": _timm(models.channels_last),
        "timm, frozen": _timm(models.timm_features, models.frozen, eager=False),
    },
    brief=("timm",),
    least_rounds=3,
    table="inference",
)


@pytest.mark.timeout(900)
@common.contest(BENCH)
def test_timm(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch", [1, 16])
def test_utilisation(benchmark: Any, batch: int) -> None:
    """The machine's time for the products of timm's model, one by one, over the time of ours."""
    case = common.Case("base", batch=batch)
    reason = models.obstacle(case)
    if reason is not None:
        pytest.skip(reason)
    inputs = models.inputs_of(case)
    with torch.no_grad():  # inference mode hides products from what counts them
        machine = Machine(lambda: models.timm_features(inputs), inputs.images.device)
    shares: list[float] = []

    def alternate() -> None:
        bare = machine.step()["seconds"]
        with torch.inference_mode():
            shares.append(bare / common.clock(lambda: models.ours(inputs)))

    benchmark.pedantic(alternate, rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {
        "table": "utilisation",
        "model": "ViT-B/16",
        "batch": batch,
        "utilisation": median(shares[1:]),
    }
