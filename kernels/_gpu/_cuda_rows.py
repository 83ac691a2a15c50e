"""Sums over rows of tokens, in CUDA: in float32, always in the same order."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _cuda

_SPANS = 1024  # parts of a long sum: enough to fill the largest GPU
_LEAST = 1024  # rows of a span: enough to be worth its pass through memory


def sum_groups(rows: Tensor) -> Tensor:
    """The sums over K of rows [..., K, D]: [..., D]."""
    sums = rows.new_empty((*rows.shape[:-2], rows.shape[-1]), dtype=torch.float32)
    if sums.numel() and rows.shape[-2]:
        _sum(rows, rows.shape[-2], sums)
    return sums if rows.shape[-2] else sums.zero_()


def sum_rows(rows: Tensor) -> Tensor:
    """The sum of all rows [..., K, D]: [D]."""
    count, width = rows.shape[:-1].numel(), rows.shape[-1]
    span = max(8, -(-count // _SPANS))
    partial = rows.new_empty((-(-count // span), width), dtype=torch.float32)
    if partial.numel():
        _sum(rows, span, partial)
    return partial[0] if len(partial) == 1 else sum_groups(partial)


def sum_by_position(rows: Tensor, index: Tensor, positions: int) -> Tensor:
    """Sums the rows [..., K, D] of each position: [positions, D].

    Args:
        rows: [..., K, D].
        index: [..., K], int32 or int64, positions in [0, positions).
        positions: how many there are.
    """
    count, width = index.numel(), rows.shape[-1]
    if count == 0 or positions == 0 or width == 0:
        return rows.new_zeros((positions, width), dtype=torch.float32)
    blocks = -(-positions // 8) * -(-width // 256)
    partial = spans(rows, blocks, positions, width)
    _cuda.run(
        "position_sums",
        rows=_cuda.rows(rows),
        storage=_cuda.storage(rows),
        index=index.contiguous(),
        index_is_long=index.dtype == torch.int64,
        count=count,
        span=-(-count // len(partial)),
        positions=positions,
        width=width,
        to=partial,
    )
    return sum_spans(partial)


def spans(rows: Tensor, blocks: int, *shape: int) -> Tensor:
    """Room for what spans of rows [..., K, D] give to a result of this shape: [spans, *shape].

    Each span has the same number of rows, but for the last.
    """
    count = rows.shape[:-1].numel()
    span = max(_LEAST, -(-count * blocks // _SPANS))
    return rows.new_empty((-(-count // span), *shape), dtype=torch.float32)


def sum_spans(partial: Tensor) -> Tensor:
    """The sum of what each span found: float32 [spans, ...] to [...]."""
    return (
        partial[0] if len(partial) == 1 else sum_groups(partial.flatten(1)).view(partial[0].shape)
    )


def _sum(rows: Tensor, group: int, to: Tensor) -> None:
    _cuda.run(
        "group_sums",
        rows=_cuda.rows(rows),
        storage=_cuda.storage(rows),
        count=rows.shape[:-1].numel(),
        group=group,
        width=rows.shape[-1],
        to=to,
    )
