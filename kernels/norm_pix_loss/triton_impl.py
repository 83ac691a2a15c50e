"""norm_pix_loss in Triton: one pass over the patches in each direction.

Each program sums a fixed share of the patches, a second kernel adds the shares: always in the same
order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._gpu import _triton
from .._gpu._triton import cast

_PROGRAMS = 1024  # fill the largest GPU; one program adds their sums


@triton.jit
def _error(
    pred, target, rows, used, pred_row, pred_col, target_row, target_col, P,
    NORMALIZE: tl.constexpr, EPS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Prediction minus target of a block of rows; patches that are not used are not read."""
    cols = tl.arange(0, BLOCK_P).to(tl.int64)[None, :]
    inside = used[:, None] & (cols < P)
    row = rows.to(tl.int64)[:, None]
    goal = tl.load(target + row * target_row + cols * target_col, mask=inside, other=0.0)
    guess = tl.load(pred + row * pred_row + cols * pred_col, mask=inside, other=0.0)
    goal = goal.to(tl.float32)
    if NORMALIZE:
        goal = tl.where(inside, goal - (tl.sum(goal, 1) / P)[:, None], 0.0)
        variance = tl.sum(goal * goal, 1) / (P - 1)
        goal *= (1.0 / tl.sqrt_rn(variance + EPS))[:, None]
    return tl.where(inside, guess.to(tl.float32) - goal, 0.0)


@triton.jit
def _forward_kernel(
    pred, target, weight, partial, pred_row, pred_col, target_row, target_col, ROWS, P,
    NORMALIZE: tl.constexpr, EPS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    loss = tl.zeros([BLOCK_ROWS], tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    for start in range(program * BLOCK_ROWS, ROWS, programs * BLOCK_ROWS):
        rows = start + tl.arange(0, BLOCK_ROWS)
        share = tl.load(weight + rows, mask=rows < ROWS, other=0).to(tl.float32)
        error = _error(
            pred, target, rows, share != 0, pred_row, pred_col, target_row, target_col, P,
            NORMALIZE, EPS, BLOCK_P,
        )  # fmt: skip
        loss += share * (tl.sum(error * error, 1) / P)
        total += share
    tl.store(partial + program, tl.sum(loss, 0))
    tl.store(partial + programs + program, tl.sum(total, 0))


@triton.jit
def _finish_kernel(partial, loss, total, PROGRAMS, BLOCK: tl.constexpr):
    programs = tl.arange(0, BLOCK)
    inside = programs < PROGRAMS
    weight = tl.sum(tl.load(partial + PROGRAMS + programs, mask=inside, other=0.0), 0)
    value = tl.sum(tl.load(partial + programs, mask=inside, other=0.0), 0)
    tl.store(loss, tl.where(weight == 0, 0.0, value / tl.where(weight == 0, 1.0, weight)))
    tl.store(total, weight)


@triton.jit
def _backward_kernel(
    grad, pred, target, weight, total, pred_grad, pred_row, pred_col, target_row, target_col,
    ROWS, P, NORMALIZE: tl.constexpr, EPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.arange(0, BLOCK_P)[None, :]
    weights = tl.load(total)
    none = weights == 0
    factor = tl.where(none, 0.0, tl.load(grad) * 2.0 / P / tl.where(none, 1.0, weights))
    share = tl.load(weight + rows, mask=rows < ROWS, other=0).to(tl.float32)
    error = _error(
        pred, target, rows, share != 0, pred_row, pred_col, target_row, target_col, P,
        NORMALIZE, EPS, BLOCK_P,
    )  # fmt: skip
    slope = error * (share * factor)[:, None]
    places = pred_grad + rows.to(tl.int64)[:, None] * P + cols
    inside = (rows[:, None] < ROWS) & (cols < P)
    tl.store(places, cast(slope, pred_grad.dtype.element_ty), mask=inside)


def forward(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> tuple[Tensor, Tensor] | None:
    """The loss and the sum of the weights."""
    if not _triton.takes(pred, target):
        return None
    loss, total = (pred.new_empty((), dtype=torch.float32) for _ in range(2))
    rows, constants = _rows(pred, target, weight, normalize, eps)
    programs = max(1, min(_PROGRAMS, triton.cdiv(weight.numel(), constants["BLOCK_ROWS"])))
    partial = pred.new_empty((2, programs), dtype=torch.float32)
    with _triton.device_of(pred):
        _forward_kernel[(programs,)](
            *rows, partial, *rows[0].stride(), *rows[1].stride(), *rows[0].shape, **constants
        )
        _finish_kernel[(1,)](partial, loss, total, programs, BLOCK=triton.next_power_of_2(programs))
    return loss, total


def backward(
    grad: Tensor,
    pred: Tensor,
    target: Tensor,
    weight: Tensor,
    total: Tensor,
    normalize: bool,
    eps: float,
) -> Tensor | None:
    """The gradient of pred."""
    if not _triton.takes(pred, target):
        return None
    pred_grad = torch.empty(pred.shape, dtype=pred.dtype, device=pred.device)
    if pred_grad.numel() == 0:
        return pred_grad
    rows, constants = _rows(pred, target, weight, normalize, eps)
    programs = triton.cdiv(weight.numel(), constants["BLOCK_ROWS"])
    with _triton.device_of(pred):
        _backward_kernel[(programs,)](
            grad, *rows, total, pred_grad, *rows[0].stride(), *rows[1].stride(),
            *rows[0].shape, **constants,
        )  # fmt: skip
    return pred_grad


def _rows(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Inputs as rows of patches, and what the kernels are built for: 32 values a thread."""
    count, size = weight.numel(), pred.shape[-1]
    block = triton.next_power_of_2(size)
    rows = (
        pred.reshape(count, size),
        target.reshape(count, size),
        weight.reshape(count).contiguous(),
    )
    constants = {
        "NORMALIZE": normalize,
        "EPS": eps,
        "BLOCK_ROWS": max(1, 4096 // block),
        "BLOCK_P": block,
        "num_warps": min(16, max(4, block // 1024)),
    }
    return rows, constants
