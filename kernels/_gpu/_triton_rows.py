"""Sums over rows of tokens, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _triton
from ._triton import cast, dot


@triton.jit
def _sums_kernel(
    rows, index, partial, row_stride, col_stride, ROWS, POSITIONS, D, SPAN,
    BLOCK_POSITIONS: tl.constexpr, BLOCK_SPAN: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A matrix product with ones where a row has a position: exact, and without atomics."""
    positions = tl.program_id(0) * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    cols = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    first = tl.program_id(2) * SPAN
    acc = tl.zeros([BLOCK_POSITIONS, BLOCK_D], tl.float32)
    for start in range(first, tl.minimum(first + SPAN, ROWS), BLOCK_SPAN):
        row = start + tl.arange(0, BLOCK_SPAN)
        position = tl.load(index + row, mask=row < ROWS, other=-1)
        places = rows + row.to(tl.int64)[:, None] * row_stride + cols[None, :] * col_stride
        values = tl.load(places, mask=(row[:, None] < ROWS) & (cols[None, :] < D), other=0.0)
        ones = cast((positions[:, None] == position[None, :]).to(tl.float32), values.dtype)
        acc = dot(ones, values, acc, "ieee")
    own = (tl.program_id(2).to(tl.int64) * POSITIONS + positions[:, None]) * D + cols[None, :]
    tl.store(partial + own, acc, mask=(positions[:, None] < POSITIONS) & (cols[None, :] < D))


def sums_by_position(rows: Tensor, index: Tensor, positions: int) -> Tensor:
    """Sums the rows [..., D] of each position: float32 [positions, D].

    A row that is not finite spoils the sums of others too.

    Args:
        rows: [..., D], float32 or narrower.
        index: [...], int32 or int64, positions in [0, positions).
        positions: how many there are.
    """
    count, width = index.numel(), rows.shape[-1]
    rows = rows.reshape(count, width)
    if count == 0 or positions == 0 or width == 0:
        return rows.new_zeros((positions, width), dtype=torch.float32)
    half = _triton.is_half(rows.dtype)
    blocks = (64, 64 if half else 32, 64)
    tiles = triton.cdiv(positions, blocks[0]) * triton.cdiv(width, blocks[2])
    span = max(1024, 64 * triton.cdiv(count, 64 * triton.cdiv(512, tiles)))
    spans = triton.cdiv(count, span)
    partial = rows.new_empty((spans, positions, width), dtype=torch.float32)
    grid = (triton.cdiv(positions, blocks[0]), triton.cdiv(width, blocks[2]), spans)
    with _triton.device_of(rows):
        _sums_kernel[grid](
            rows, index.reshape(count).contiguous(), partial, *rows.stride(),
            count, positions, width, span, *blocks, num_warps=4, num_stages=3,
        )  # fmt: skip
    return partial[0] if spans == 1 else partial.sum(0)
