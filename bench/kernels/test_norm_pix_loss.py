"""norm_pix_loss against the formula of masked autoencoders.

The width of the model does not matter: sizes are modalities, with 12 and 2 channels a pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.kernels import common
from bench.ops import norm_pix_loss as op
from bench.sizes import CHANNELS, PATCH, POSITIONS, SEASONS
from seamo_fast.kernels import norm_pix_loss


class Inputs(NamedTuple):
    """The hidden patches of one modality; targets are never rounded, as in the model."""

    pred: Tensor  # [B, T, N - K, P]
    target: Tensor
    weight: Tensor  # bool [B, T, N - K]
    grad: None = None  # of a scalar


def inputs_of(case: common.Case) -> Inputs:
    """All patches count, as where nothing is lost."""
    hidden = (case.batch, SEASONS, POSITIONS - case.tokens)
    patches = (*hidden, CHANNELS[case.size] * PATCH**2)
    pred, target = common.randoms(patches, patches)
    weight = torch.ones(hidden, dtype=torch.bool, device=pred.device)
    return Inputs(pred.to(case.dtype), target, weight)


def ours(x: Inputs) -> Tensor:
    """The operation under test."""
    return norm_pix_loss(x.pred, x.target, x.weight)


def eager(x: Inputs) -> Tensor:
    """The formula, in float32."""
    mean, variance = x.target.mean(-1, keepdim=True), x.target.var(-1, keepdim=True)
    target = (x.target - mean) / (variance + 1e-6) ** 0.5
    loss = ((x.pred - target) ** 2).mean(-1)
    return (loss * x.weight).sum() / x.weight.sum()


def arguments(x: Inputs) -> op.Arguments:
    """What ours takes."""
    return op.Arguments(x.pred, x.target, x.weight)


BENCH = common.Bench(
    op=op,
    cases=common.cases(tuple(CHANNELS)),
    inputs=inputs_of,
    arguments=arguments,
    contestants={
        common.OURS: common.Contestant(ours, compiled=None),
        "eager": common.Contestant(eager),
    },
    brief=("eager", "eager compiled"),
    leaves=("pred",),
)


@common.contest(BENCH)
def test_norm_pix_loss(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
