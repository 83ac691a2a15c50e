"""assemble_tokens in plain PyTorch, on any device: the oracle of the other backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _checks
from .._dtypes import accumulation


def forward(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Adds tokens in place to the gathered positions."""
    _checks.in_range("index", index, table.shape[0])
    count = visible.shape[-2]
    rows = table.to(accumulation(visible)).index_select(0, index.flatten())
    tokens = rows.view(*index.shape, table.shape[1])
    tokens[..., :count, :] += visible
    tokens[..., count:, :] += mask_token
    return tokens.to(visible.dtype)


def backward(
    grad: Tensor, index: Tensor, count: int, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of visible, mask_token and table; empty where not needed."""
    exact = grad.to(accumulation(grad))
    visible, none = grad.new_empty(0), exact.new_empty(0)
    mask_token, table = none, none.clone()
    if needed[0]:
        visible = grad[..., :count, :].clone(memory_format=torch.contiguous_format)
    if needed[1]:
        mask_token = exact[..., count:, :].flatten(0, -2).sum(0)
    if needed[2]:
        table = exact.new_zeros(positions, grad.shape[-1])
        table.index_add_(0, index.flatten(), exact.flatten(0, -2))
    return visible, mask_token, table
