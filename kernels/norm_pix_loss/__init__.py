"""norm_pix_loss: mean squared error against patches normalised one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .._dtypes import accumulation
from .._registry import define, implement


def _fake(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> tuple[Tensor, Tensor]:
    exact = accumulation(pred, target)
    return pred.new_empty((), dtype=exact), pred.new_empty((), dtype=exact)


def _fake_backward(
    grad: Tensor,
    pred: Tensor,
    target: Tensor,
    weight: Tensor,
    total: Tensor,
    normalize: bool,
    eps: float,
) -> Tensor:
    return pred.new_empty(pred.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    pred, target, weight, normalize, eps = inputs
    ctx.save_for_backward(pred, target, weight, output[1])
    ctx.normalize, ctx.eps = normalize, eps
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad: Tensor | None, total_grad: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    pred_grad = _backward(grad, *ctx.saved_tensors, ctx.normalize, ctx.eps)
    return pred_grad, None, None, None, None


def _check(pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float) -> None:
    _checks.rank("pred", pred, "P", 1)
    _checks.shape("target", target, "..., P", tuple(pred.shape))
    _checks.shape("weight", weight, "...", tuple(pred.shape[:-1]))
    if pred.shape[-1] < (2 if normalize else 1):
        raise ValueError(
            f"pred must have at least {2 if normalize else 1} values a patch, "
            f"but got {list(pred.shape)}"
        )
    _checks.floating("pred", pred)
    _checks.floating("target", target)
    if weight.dtype != torch.bool:
        _checks.floating("weight", weight)
    for name, tensor in (("target", target), ("weight", weight)):
        _checks.same_device(name, tensor, pred.device)
        _checks.constant(name, tensor, "norm_pix_loss")


# also returns the sum of the weights, which the backward pass needs
_forward = define(
    "norm_pix_loss",
    "forward",
    "_norm_pix_loss(Tensor pred, Tensor target, Tensor weight, bool normalize, float eps) "
    "-> (Tensor, Tensor)",
    _fake,
    _differentiate,
    _setup_context,
    check=_check,
)
_backward = define(
    "norm_pix_loss",
    "backward",
    "_norm_pix_loss_backward(Tensor grad, Tensor pred, Tensor target, Tensor weight, Tensor total, "
    "bool normalize, float eps) -> Tensor",
    _fake_backward,
)
implement(__name__, "reference", "cpu", "triton", "cuda")


def norm_pix_loss(
    pred: Tensor, target: Tensor, weight: Tensor, *, normalize: bool = True, eps: float = 1e-6
) -> Tensor:
    """Weighted mean squared error of predicted patches, as in masked autoencoders (2111.06377).

    ``sum(weight * mean_P((pred - t) ** 2)) / sum(weight)`` with ``t = (target - mean) / sqrt(var +
    eps)``, mean and unbiased variance over the P values of each patch; 0 with zero gradients if the
    weights sum to 0. Patches of weight 0 are never used, whatever they hold. Computed in float32
    (float64 for float64 inputs), also under autocast. Differentiable in ``pred``.

    Equivalent to::

        t = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + eps).sqrt()
        loss = (weight * (pred - t).square().mean(-1)).sum() / weight.sum()

    Args:
        pred: [..., P], float.
        target: [..., P], float.
        weight: [...], float or bool: not negative.
        normalize: whether the target is normalised patch by patch; False: t = target.
        eps: added to the variance.

    Returns:
        Scalar, float32; float64 if ``pred`` or ``target`` is float64.

    Raises:
        ValueError: wrong shape or device, fewer than 2 values to normalise, or ``target`` or
            ``weight`` requires grad.
        TypeError: wrong dtype.
    """
    loss, _ = _forward(pred, target, weight, normalize, eps)
    return loss
