"""embed_patches in Triton: one matrix product whose epilogue adds bias, position and group offset.

A weight of another dtype than the patches is rounded to theirs, as autocast does. The gradients of
weight and table are sums over all patches: programs sum fixed spans, a second pass adds those.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._gpu import _triton
from .._gpu._triton import cast, dot
from .._gpu._triton_rows import sums_by_position


def _blocks(*shapes: tuple[int, int, int, int]) -> tuple[triton.Config, ...]:
    return tuple(
        triton.Config({"BLOCK_ROWS": rows, "BLOCK_COLS": cols}, num_warps=warps, num_stages=stages)
        for rows, cols, warps, stages in shapes
    )


# as large as registers and memory of every target hold; fewer programs would leave it idle below
_HALF = _blocks((128, 128, 8, 3), (64, 128, 4, 3), (128, 64, 4, 3))
_HALF_FEW = _blocks((64, 64, 4, 4), (32, 64, 4, 4))
_FLOAT = _blocks((64, 64, 4, 3))
_FEW = 4096  # patches


@triton.jit
def _forward_kernel(
    patches, weight, bias, table, index, offset, out,
    patch_row, patch_col, weight_row, weight_col, bias_col, table_row, table_col,
    offset_row, offset_col, ROWS, K, D, P,
    BIAS: tl.constexpr, OFFSET: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """A block of tokens; programs that share patches run side by side."""
    col_blocks = tl.cdiv(D, BLOCK_COLS)
    rows = tl.program_id(0) // col_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.program_id(0) % col_blocks * BLOCK_COLS + tl.arange(0, BLOCK_COLS).to(tl.int64)
    # beyond the end the last row and column are computed again, and not stored
    row = tl.minimum(rows, ROWS - 1).to(tl.int64)
    col = tl.minimum(cols, D - 1)
    acc = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for start in range(0, P, BLOCK_P):
        inner = start + tl.arange(0, BLOCK_P).to(tl.int64)
        left = patches + row[:, None] * patch_row + inner[None, :] * patch_col
        right = weight + col[None, :] * weight_row + inner[:, None] * weight_col
        if EVEN:
            acc = dot(tl.load(left), tl.load(right), acc, PRECISION)
        else:
            left = tl.load(left, mask=inner[None, :] < P, other=0.0)
            right = tl.load(right, mask=inner[:, None] < P, other=0.0)
            acc = dot(left, right, acc, PRECISION)

    inside = (rows[:, None] < ROWS) & (cols[None, :] < D)
    position = tl.load(index + row).to(tl.int64)
    places = table + position[:, None] * table_row + cols[None, :] * table_col
    acc += tl.load(places, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        acc += tl.load(bias + cols * bias_col, mask=cols < D, other=0.0).to(tl.float32)[None, :]
    if OFFSET:
        places = offset + (row // K)[:, None] * offset_row + cols[None, :] * offset_col
        acc += tl.load(places, mask=inside, other=0.0).to(tl.float32)
    places = out + rows.to(tl.int64)[:, None] * D + cols[None, :]
    tl.store(places, cast(acc, out.dtype.element_ty), mask=inside)


@triton.jit
def _weight_grad_kernel(
    grad, patches, partial, grad_row, grad_col, patch_row, patch_col, COUNT, D, P, SPAN,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_SPAN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """The part of ``grad.T @ patches`` that a span of patches gives."""
    col_blocks = tl.cdiv(P, BLOCK_COLS)
    rows = tl.program_id(0) // col_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS).to(tl.int64)
    cols = tl.program_id(0) % col_blocks * BLOCK_COLS + tl.arange(0, BLOCK_COLS).to(tl.int64)
    row_in, col_in = (rows < D)[:, None], (cols < P)[None, :]
    first = tl.program_id(1) * SPAN
    acc = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for start in range(first, tl.minimum(first + SPAN, COUNT), BLOCK_SPAN):
        inner = start + tl.arange(0, BLOCK_SPAN).to(tl.int64)
        left = grad + rows[:, None] * grad_col + inner[None, :] * grad_row
        right = patches + inner[:, None] * patch_row + cols[None, :] * patch_col
        left_in, right_in = row_in, col_in
        if not EVEN:
            left_in &= inner[None, :] < COUNT
            right_in &= inner[:, None] < COUNT
        left = tl.load(left, mask=left_in, other=0.0)
        right = tl.load(right, mask=right_in, other=0.0)
        acc = dot(left, right, acc, PRECISION)
    places = (tl.program_id(1) * D + rows[:, None]) * P + cols[None, :]
    tl.store(partial + places, acc, mask=row_in & col_in)


def forward(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor | None:
    """One program a block of patches and of columns."""
    if not _triton.takes(patches):
        return None
    width, size = weight.shape
    out = patches.new_empty((*patches.shape[:-1], width))
    if out.numel() == 0:
        return out
    count = index.numel()
    rows, weight = patches.reshape(count, size), weight.to(patches.dtype)
    groups = None if offset is None else offset.reshape(-1, width)
    block = 64 if _triton.is_half(patches.dtype) else 32
    kernel = _tuned("forward", _triton.is_half(patches.dtype), count < _FEW)
    with _triton.device_of(patches):
        kernel[_grid(count, width)](
            rows, weight, bias, table, index.reshape(count).contiguous(), groups, out,
            *rows.stride(), *weight.stride(), 1 if bias is None else bias.stride(0),
            *table.stride(), *((0, 1) if groups is None else groups.stride()),
            count, index.shape[-1], width, size,
            BIAS=bias is not None, OFFSET=offset is not None, EVEN=size % block == 0,
            PRECISION=_triton.precision(patches.dtype), BLOCK_P=block,
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, patches: Tensor, index: Tensor, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Gradients of weight, bias, table and offset; empty where not needed."""
    if not _triton.takes(patches):
        return None
    rows = grad.reshape(index.numel(), grad.shape[-1])
    none = grad.new_empty(0, dtype=torch.float32)
    weight, bias, table, offset = none, none.clone(), none.clone(), none.clone()
    if needed[0]:
        weight = _weight_grad(rows, patches.reshape(index.numel(), patches.shape[-1]))
    if needed[3]:
        offset = grad.sum(-2, dtype=torch.float32)
    if needed[1]:
        groups = offset.flatten(0, -2) if needed[3] and offset.dim() > 1 else rows
        bias = groups.sum(0, dtype=torch.float32)
    if needed[2]:
        table = sums_by_position(grad, index, positions)
    return weight, bias, table, offset


def _weight_grad(grad: Tensor, patches: Tensor) -> Tensor:
    """``grad.T @ patches`` in float32, [D, P]."""
    (count, width), size = grad.shape, patches.shape[1]
    if count == 0 or size == 0 or width == 0:
        return grad.new_zeros((width, size), dtype=torch.float32)
    # enough spans to fill a GPU, each long enough to be worth its pass through memory
    tiles = triton.cdiv(width, 128) * triton.cdiv(size, 128)
    span = max(1024, 64 * triton.cdiv(count, 64 * triton.cdiv(256, tiles)))
    spans = triton.cdiv(count, span)
    partial = grad.new_empty((spans, width, size), dtype=torch.float32)
    block = 64 if _triton.is_half(grad.dtype) else 32
    kernel = _tuned("weight_grad", _triton.is_half(grad.dtype), count < _FEW)
    with _triton.device_of(grad):
        kernel[_grid(width, size, spans)](
            grad, patches, partial, *grad.stride(), *patches.stride(), count, width, size, span,
            EVEN=count % block == 0, PRECISION=_triton.precision(grad.dtype), BLOCK_SPAN=block,
        )  # fmt: skip
    return partial[0] if spans == 1 else partial.sum(0)


@functools.cache
def _tuned(name: str, half: bool, few: bool) -> Any:
    kernel = {"forward": _forward_kernel, "weight_grad": _weight_grad_kernel}[name]
    configs = (_HALF_FEW if few else _HALF) if half else _FLOAT
    return _triton.tuned(kernel, configs, ("D", "P"))


def _grid(rows: int, cols: int, spans: int = 1) -> Callable[[dict[str, Any]], tuple[int, int]]:
    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        return triton.cdiv(rows, meta["BLOCK_ROWS"]) * triton.cdiv(cols, meta["BLOCK_COLS"]), spans

    return grid
