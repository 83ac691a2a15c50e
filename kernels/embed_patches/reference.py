"""embed_patches in plain PyTorch, on any device: the oracle of the other backends."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from .. import _checks
from .._dtypes import accumulation


def forward(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """Adds bias, positions and offset to one matrix product."""
    _checks.in_range("index", index, table.shape[0])
    exact = accumulation(patches)
    tokens = F.linear(patches.to(exact), weight.to(exact))
    tokens += table[index.long()]
    if bias is not None:
        tokens += bias
    if offset is not None:
        tokens += offset.unsqueeze(-2)
    return tokens.to(patches.dtype)


def backward(
    grad: Tensor, patches: Tensor, index: Tensor, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of weight, bias, table and offset; empty where not needed."""
    exact = accumulation(patches)
    grad = grad.to(exact)
    rows = grad.flatten(0, -2)
    none = grad.new_empty(0)
    weight, bias, table, offset = none, none.clone(), none.clone(), none.clone()
    if needed[0]:
        weight = rows.mT @ patches.flatten(0, -2).to(exact)
    if needed[1]:
        bias = rows.sum(0)
    if needed[2]:
        table = grad.new_zeros(positions, grad.shape[-1]).index_add_(0, index.flatten(), rows)
    if needed[3]:
        offset = grad.sum(-2)
    return weight, bias, table, offset
