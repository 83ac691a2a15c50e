"""norm_pix_loss in CUDA: one pass over the patches in each direction.

Each block sums a fixed share of the patches, a last one adds the shares: always in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._gpu import _cuda

_BLOCKS = 1024  # fill the largest GPU
_PATCHES = 8  # that a block takes at once


def forward(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> tuple[Tensor, Tensor] | None:
    """The loss and the sum of the weights."""
    if not _cuda.takes(pred, target):
        return None
    loss, total = (pred.new_empty((), dtype=torch.float32) for _ in range(2))
    blocks = max(1, min(_BLOCKS, -(-weight.numel() // _PATCHES)))
    partial = pred.new_empty((2, blocks), dtype=torch.float32)
    _cuda.run(
        "norm_pix_loss",
        **_inputs(pred, target, weight, normalize, eps),
        partial=partial,
        blocks=blocks,
        loss=loss,
        total=total,
    )
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
    if not _cuda.takes(pred, target):
        return None
    pred_grad = torch.empty(pred.shape, dtype=pred.dtype, device=pred.device)
    if pred_grad.numel() == 0:
        return pred_grad
    _cuda.run(
        "norm_pix_loss_backward",
        **_inputs(pred, target, weight, normalize, eps),
        grad=_cuda.floats(grad),
        total=_cuda.floats(total),
        pred_grad=pred_grad,
    )
    return pred_grad


def _inputs(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> dict[str, Any]:
    if target.dtype != pred.dtype:
        target = target.float()
    is_bool = weight.dtype == torch.bool
    return {
        "pred": _cuda.rows(pred),
        "target": _cuda.rows(target),
        "pred_storage": _cuda.storage(pred),
        "target_storage": _cuda.storage(target),
        "weight": weight.contiguous() if is_bool else _cuda.floats(weight),
        "weight_is_bool": is_bool,
        "count": weight.numel(),
        "width": pred.shape[-1],
        "normalize": normalize,
        "eps": eps,
    }
