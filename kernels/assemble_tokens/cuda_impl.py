"""assemble_tokens in CUDA: every row of the sequence is read, added and written once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._gpu import _cuda
from .._gpu._cuda_rows import sum_by_position, sum_rows


def forward(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor | None:
    """One launch."""
    if not _cuda.takes(visible):
        return None
    out = visible.new_empty((*index.shape, visible.shape[-1]))
    if out.numel() == 0:
        return out
    _cuda.run(
        "assemble_tokens",
        visible=_cuda.rows(visible),
        storage=_cuda.storage(visible),
        mask_token=_cuda.floats(mask_token),
        table=_cuda.floats(table),
        index=index.contiguous(),
        index_is_long=index.dtype == torch.int64,
        count=index.numel(),
        visible_count=visible.shape[-2],
        length=index.shape[-1],
        width=visible.shape[-1],
        out=out,
    )
    return out


def backward(
    grad: Tensor, index: Tensor, count: int, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of visible, mask_token and table; empty where not needed."""
    if not _cuda.takes(grad):
        return None
    none = grad.new_empty(0, dtype=torch.float32)
    visible = _copy(grad[..., :count, :]) if needed[0] else grad.new_empty(0)
    mask_token = sum_rows(grad[..., count:, :]) if needed[1] else none
    table = sum_by_position(grad, index, positions) if needed[2] else none.clone()
    return visible, mask_token, table


def _copy(rows: Tensor) -> Tensor:
    copy = rows.new_empty(rows.shape)
    if copy.numel():
        _cuda.run(
            "copy_rows",
            rows=_cuda.rows(rows),
            storage=_cuda.storage(rows),
            count=copy.shape[:-1].numel(),
            width=copy.shape[-1],
            to=copy,
        )
    return copy
