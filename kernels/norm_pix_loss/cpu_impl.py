"""norm_pix_loss in C++: one pass over the patches in each direction, in eager mode one for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _native

_module: Any = _native.load()

forward = _module.norm_pix_loss
backward = _module.norm_pix_loss_backward


class Eager(torch.autograd.Function):
    """Loss and gradient in one pass: the backward pass has nothing to do unless it scales."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor] | None:
        """Arguments and results of the schema; None for what the kernel does not take."""
        if not ctx.needs_input_grad[0]:
            return forward(*arguments)
        result = _module.norm_pix_loss_and_gradient(*arguments)
        if result is None:
            return None
        loss, total, pred_grad = result
        ctx.save_for_backward(pred_grad)
        ctx.mark_non_differentiable(total)
        return loss, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, total_grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient found in the forward pass."""
        (pred_grad,) = ctx.saved_tensors
        if grad.item() != 1:
            pred_grad = pred_grad * grad
        return pred_grad, None, None, None, None
