"""embed_patches against the embedding of all patches, and of the visible alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from bench.kernels import common
from bench.ops import embed_patches as op
from bench.sizes import POSITIONS, SEASONS, VALUES
from seamo_fast.kernels import embed_patches


class Inputs(NamedTuple):
    """Of one modality; all patches are there for those who project all."""

    patches: Tensor  # [B, T, K, P]
    all_patches: Tensor  # [B, T, N, P]
    weight: Tensor  # [D, P]
    bias: Tensor  # [D]
    table: Tensor  # [N, D]
    index: Tensor  # int32 [B, T, K]
    index_long: Tensor
    offset: Tensor  # [B, T, D]
    grad: Tensor  # [B, T, K, D]


def inputs_of(case: common.Case) -> Inputs:
    """The table, which is fixed in the model, gets no gradient."""
    width = case.model.width
    images = (case.batch, SEASONS)
    everything, weight, bias, table, offset, grad = common.randoms(
        (*images, POSITIONS, VALUES),
        (width, VALUES),
        (width,),
        (POSITIONS, width),
        (*images, width),
        (*images, case.tokens, width),
        dtype=case.dtype,
    )
    index = common.permutations(case)[..., : case.tokens].contiguous()
    patches = _rows(everything, index.long())
    return Inputs(patches, everything, weight, bias, table, index, index.long(), offset, grad)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))


def ours(x: Inputs) -> Tensor:
    """The operation under test."""
    return embed_patches(x.patches, x.weight, x.bias, x.table, x.index, x.offset)


def all_patches(x: Inputs) -> Tensor:
    """Every patch of the image, then the visible tokens."""
    tokens = F.linear(x.all_patches, x.weight, x.bias) + x.table + x.offset[..., None, :]
    return _rows(tokens, x.index_long)


def visible_patches(x: Inputs) -> Tensor:
    """Only what is visible."""
    return F.linear(x.patches, x.weight, x.bias) + x.table[x.index_long] + x.offset[..., None, :]


def bare_product(x: Inputs) -> Tensor:
    """The matrix product alone: the least time."""
    return F.linear(x.patches, x.weight)


def of_the_product(
    x: Inputs, actual: common.Results, expected: common.Results
) -> tuple[common.Results, common.Results]:
    """The other terms, and no gradient but that of the weight."""
    tokens = actual[0] + x.bias + x.table[x.index_long] + x.offset[..., None, :]
    return (tokens, *actual[1:2]), expected[:2]


def arguments(x: Inputs) -> op.Arguments:
    """What ours takes."""
    return op.Arguments(x.patches, x.weight, x.bias, x.table, x.index, x.offset)


BENCH = common.Bench(
    op=op,
    cases=common.cases(),
    inputs=inputs_of,
    arguments=arguments,
    contestants={
        common.OURS: common.Contestant(ours, compiled=None),
        "all patches": common.Contestant(all_patches),
        "visible patches": common.Contestant(visible_patches),
        "bare product": common.Contestant(
            bare_product, compiled=None, yardstick=True, compared=of_the_product
        ),
    },
    brief=("visible patches", "visible patches compiled"),
    leaves=("weight", "bias", "offset"),
)


@common.contest(BENCH)
def test_embed_patches(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
