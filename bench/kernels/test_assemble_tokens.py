"""assemble_tokens against concatenation, and against the unshuffling of masked autoencoders."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.kernels import common
from bench.ops import assemble_tokens as op
from bench.sizes import POSITIONS, SEASONS
from seamo_fast.kernels import assemble_tokens


class Inputs(NamedTuple):
    """Of the decoder of one modality; positions come as each contestant likes them."""

    visible: Tensor  # [B, T, K, D]
    mask_token: Tensor  # [D]
    table: Tensor  # [N, D]
    index: Tensor  # int32 [B, T, N], visible before hidden
    index_long: Tensor
    restore: Tensor  # int64 [B, T, N], where each patch stands in index
    grad: Tensor  # [B, T, N, D]
    grad_restored: Tensor  # in the order of the image


def inputs_of(case: common.Case) -> Inputs:
    """The mask token gets a gradient, the table, which is fixed in the model, none."""
    width = case.model.decoder_width
    images = (case.batch, SEASONS)
    shapes = ((case.tokens, width), (POSITIONS, width))
    visible, grad, token, table = common.randoms(
        *((*images, *shape) for shape in shapes), (width,), shapes[1], dtype=case.dtype
    )
    index = common.permutations(case)
    restore = index.argsort(-1)
    restored = _rows(grad, restore)
    return Inputs(visible, token, table, index, index.long(), restore, grad, restored)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(2, index[..., None].repeat(1, 1, 1, x.shape[-1]))


def ours(x: Inputs) -> Tensor:
    """The operation under test."""
    return assemble_tokens(x.visible, x.mask_token, x.table, x.index)


def concatenated(x: Inputs) -> Tensor:
    """Visible and mask tokens, then rows of the table."""
    hidden = x.mask_token.expand(*x.index.shape[:2], x.index.shape[2] - x.visible.shape[2], -1)
    return torch.cat([x.visible, hidden], dim=2) + x.table[x.index_long]


def unshuffled(x: Inputs) -> Tensor:
    """In the order of the image, as the code of masked autoencoders does it."""
    batch, seasons, tokens, _ = x.visible.shape
    hidden = x.mask_token.repeat(batch, seasons, x.restore.shape[2] - tokens, 1)
    return _rows(torch.cat([x.visible, hidden], dim=2), x.restore) + x.table


def shuffled(
    x: Inputs, actual: common.Results, expected: common.Results
) -> tuple[common.Results, common.Results]:
    """Brings tokens in the order of the image into that of ours."""
    out, *grads = actual
    return (_rows(out, x.index_long), *grads), expected


def arguments(x: Inputs) -> op.Arguments:
    """What ours takes."""
    return op.Arguments(x.visible, x.mask_token, x.table, x.index)


BENCH = common.Bench(
    op=op,
    cases=common.cases(),
    inputs=inputs_of,
    arguments=arguments,
    contestants={
        common.OURS: common.Contestant(ours, compiled=None),
        "cat": common.Contestant(concatenated),
        "unshuffle": common.Contestant(unshuffled, grad="grad_restored", compared=shuffled),
    },
    brief=("cat compiled", "unshuffle compiled"),
    leaves=("visible", "mask_token"),
)


@common.contest(BENCH)
def test_assemble_tokens(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
