"""norm_pix_loss in plain PyTorch, on any device: the oracle of the other backends."""

from __future__ import annotations

from torch import Tensor

from .._dtypes import accumulation


def forward(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """The loss and the sum of the weights."""
    error = _error(pred, target, weight, normalize, eps)
    weight = weight.to(error.dtype)
    total = weight.sum()
    loss = (error.square().mean(-1) * weight).sum() / total
    return loss.masked_fill_(total == 0, 0), total


def backward(
    grad: Tensor,
    pred: Tensor,
    target: Tensor,
    weight: Tensor,
    total: Tensor,
    normalize: bool,
    eps: float,
) -> Tensor:
    """The gradient of pred."""
    error = _error(pred, target, weight, normalize, eps)
    factor = (grad * 2 / pred.shape[-1] / total).masked_fill(total == 0, 0)
    return error.mul_((weight.to(error.dtype) * factor)[..., None]).to(pred.dtype).contiguous()


def _error(pred: Tensor, target: Tensor, weight: Tensor, normalize: bool, eps: float) -> Tensor:
    """Prediction minus (normalised) target, 0 for patches without weight whatever they hold."""
    exact = accumulation(pred, target)
    target = target.to(exact)
    if normalize:
        target = target - target.mean(-1, keepdim=True)
        variance = target.square().sum(-1, keepdim=True) / (target.shape[-1] - 1)
        target /= (variance + eps).sqrt()
    return (pred.to(exact) - target).masked_fill_((weight == 0)[..., None], 0)
