"""assemble_tokens in Triton: every row of the sequence is read, added and written once.

Backward, one pass over the gradient copies the rows of the visible tokens and sums the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._gpu import _triton
from .._gpu._triton import cast
from .._gpu._triton_rows import sums_by_position

# both move 16 bytes a thread; the second has more loads under way
_CONFIGS = tuple(triton.Config({"BLOCK_ROWS": rows}, num_warps=4) for rows in (4, 8))
_BLOCK_ROWS = 8
_SPANS = 1024  # programs that sum the gradient of the mask token


@triton.jit
def _forward_kernel(
    visible, mask_token, table, index, out,
    visible_lead, visible_row, visible_col, mask_col, table_row, table_col,
    ROWS, COUNT, LENGTH, D, BLOCK_D: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """A few rows of the sequence."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64))[None, :]
    position = tl.load(index + rows, mask=rows < ROWS, other=0).to(tl.int64)[:, None]
    place = (rows % LENGTH)[:, None]
    lead = (rows // LENGTH).to(tl.int64)[:, None]
    inside = (rows < ROWS)[:, None] & (cols < D)
    shown = visible + lead * visible_lead + place.to(tl.int64) * visible_row + cols * visible_col
    token = tl.load(shown, mask=inside & (place < COUNT), other=0.0).to(tl.float32)
    hidden = tl.load(mask_token + cols * mask_col, mask=cols < D, other=0.0).to(tl.float32)
    token = tl.where(place < COUNT, token, hidden)
    row = tl.load(table + position * table_row + cols * table_col, mask=inside, other=0.0)
    token += row.to(tl.float32)
    places = out + rows.to(tl.int64)[:, None] * D + cols
    tl.store(places, cast(token, out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    grad, visible_grad, partial, grad_lead, grad_row, grad_col,
    ROWS, COUNT, LENGTH, D, SPAN,
    VISIBLE: tl.constexpr, MASK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Rows of visible tokens are copied, the others of a span of rows summed."""
    cols = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64))[None, :]
    first = tl.program_id(0) * SPAN
    acc = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32)
    for start in range(first, tl.minimum(first + SPAN, ROWS), BLOCK_ROWS):
        rows = (start + tl.arange(0, BLOCK_ROWS))[:, None]
        place = rows % LENGTH
        lead = (rows // LENGTH).to(tl.int64)
        shown = place < COUNT
        inside = (rows < ROWS) & (cols < D)
        wanted = inside
        if not VISIBLE:
            wanted &= place >= COUNT
        if not MASK:
            wanted &= shown
        places = grad + lead * grad_lead + place.to(tl.int64) * grad_row + cols * grad_col
        slope = tl.load(places, mask=wanted, other=0.0)
        if VISIBLE:
            own = visible_grad + (lead * COUNT + place) * D + cols
            tl.store(own, slope, mask=inside & shown)
        if MASK:
            acc += tl.where(shown, 0.0, slope.to(tl.float32))
    if MASK:
        own = partial + tl.program_id(0).to(tl.int64) * D + cols
        tl.store(own, tl.sum(acc, 0)[None, :], mask=cols < D)


def forward(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor | None:
    """One program a few rows of the sequence."""
    if not _triton.takes(visible):
        return None
    count, width = visible.shape[-2:]
    rows, length = index.numel(), index.shape[-1]
    out = visible.new_empty((*index.shape, width))
    if out.numel() == 0:
        return out
    tokens = visible.reshape(rows // length, count, width)
    block = min(triton.next_power_of_2(width), 1024)
    with _triton.device_of(visible):
        _tuned()[lambda meta: (triton.cdiv(rows, meta["BLOCK_ROWS"]), triton.cdiv(width, block))](
            tokens, mask_token, table, index.reshape(rows).contiguous(), out,
            *tokens.stride(), *mask_token.stride(), *table.stride(),
            rows, count, length, width, BLOCK_D=block,
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, index: Tensor, count: int, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of visible, mask_token and table; empty where not needed."""
    if not _triton.takes(grad):
        return None
    none = grad.new_empty(0, dtype=torch.float32)
    visible, mask_token, table = grad.new_empty(0), none, none.clone()
    if needed[0] or needed[1]:
        visible, mask_token = _tokens_grad(grad, count, needed[0], needed[1])
    if needed[2]:
        table = sums_by_position(grad, index, positions)
    return visible, mask_token, table


@functools.cache
def _tuned() -> Any:
    return _triton.tuned(_forward_kernel, _CONFIGS, ("COUNT", "LENGTH", "D"))


def _tokens_grad(grad: Tensor, count: int, shown: bool, hidden: bool) -> tuple[Tensor, Tensor]:
    """Gradients of the visible tokens and of the mask token; empty where not needed."""
    *lead, length, width = grad.shape
    rows = math.prod(lead) * length
    visible = grad.new_empty((*lead, count, width) if shown else (0,))
    if grad.numel() == 0:
        return visible, grad.new_zeros((width,) if hidden else (0,), dtype=torch.float32)
    span = _BLOCK_ROWS * triton.cdiv(rows, _BLOCK_ROWS * _SPANS)
    spans = triton.cdiv(rows, span)
    partial = grad.new_empty((spans, width) if hidden else (0,), dtype=torch.float32)
    block = min(triton.next_power_of_2(width), 512)
    tokens = grad.reshape(rows // length, length, width)
    with _triton.device_of(grad):
        _backward_kernel[spans, triton.cdiv(width, block)](
            tokens, visible, partial, *tokens.stride(), rows, count, length, width, span,
            VISIBLE=shown, MASK=hidden, BLOCK_D=block, BLOCK_ROWS=_BLOCK_ROWS, num_warps=4,
        )  # fmt: skip
    return visible, partial.sum(0) if hidden else partial
