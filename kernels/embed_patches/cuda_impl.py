"""embed_patches in CUDA: a product on tensor cores that adds the other terms before it is stored.

A weight of another dtype than the patches is rounded to theirs, as autocast does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._gpu import _cuda
from .._gpu._cuda_rows import spans, sum_by_position, sum_groups, sum_rows, sum_spans

_SIDE = 128  # of the part of a result that a block makes


def forward(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor | None:
    """One launch."""
    if not _cuda.takes(patches):
        return None
    width, size = weight.shape
    out = patches.new_empty((*patches.shape[:-1], width))
    if out.numel() == 0:
        return out
    _cuda.run(
        "embed_patches",
        patches=_cuda.matrix(patches),
        weight=_cuda.matrix(weight.to(patches.dtype)),
        storage=_cuda.storage(patches),
        bias=_cuda.floats(bias),
        table=_cuda.floats(table),
        index=index.contiguous(),
        index_is_long=index.dtype == torch.int64,
        offset=_cuda.floats(offset),
        count=index.numel(),
        group=index.shape[-1],
        values=size,
        width=width,
        tf32=_cuda.tf32(),
        out=out,
    )
    return out


def backward(
    grad: Tensor, patches: Tensor, index: Tensor, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Gradients of weight, bias, table and offset; empty where not needed."""
    if not _cuda.takes(grad, patches):
        return None
    none = grad.new_empty(0, dtype=torch.float32)
    weight, bias, table, offset = none, none.clone(), none.clone(), none.clone()
    if needed[0]:
        weight = _weight_grad(grad.to(patches.dtype), patches)
    if needed[3]:
        offset = sum_groups(grad)
    if needed[1]:
        bias = sum_rows(offset) if needed[3] and offset.dim() > 1 else sum_rows(grad)
    if needed[2]:
        table = sum_by_position(grad, index, positions)
    return weight, bias, table, offset


def _weight_grad(grad: Tensor, patches: Tensor) -> Tensor:
    """``grad.T @ patches`` in float32, [D, P]: spans of rows, then their sum."""
    count, width, size = grad.shape[:-1].numel(), grad.shape[-1], patches.shape[-1]
    if count == 0 or size == 0 or width == 0:
        return grad.new_zeros((width, size), dtype=torch.float32)
    blocks = -(-width // _SIDE) * -(-size // _SIDE)
    partial = spans(grad, blocks, width, size)
    _cuda.run(
        "embed_patches_backward",
        grad=_cuda.matrix(grad),
        patches=_cuda.matrix(patches),
        storage=_cuda.storage(patches),
        count=count,
        span=-(-count // len(partial)),
        values=size,
        width=width,
        tf32=_cuda.tf32(),
        to=partial,
    )
    return sum_spans(partial)
