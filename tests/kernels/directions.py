"""Both directions of each operation by any implementation, and what they are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.kernels.budget import moved
from tests.kernels.test_tm_attention import concatenated

Results = dict[str, Tensor]


def assemble_tokens(implementation: Any, inputs: list[Any], grad: Tensor) -> Results:
    visible, _, table, index = inputs
    out = implementation.forward(*inputs)
    grads = implementation.backward(
        grad, index, visible.shape[-2], table.shape[0], [True, True, True]
    )
    return dict(zip(("out", "visible", "mask_token", "table"), (out, *grads), strict=True))


def gradient_of_tokens(inputs: list[Any]) -> Tensor:
    """A gradient of what assemble_tokens returns."""
    shape = (*inputs[3].shape, inputs[0].shape[-1])
    return torch.randn(shape, device=inputs[0].device).to(inputs[0].dtype)


def embed_patches(implementation: Any, inputs: list[Any], grad: Tensor) -> Results:
    out = implementation.forward(*inputs)
    patches, table, index = inputs[0], inputs[3], inputs[4]
    grads = implementation.backward(grad, patches, index, table.shape[0], [True] * 4)
    return dict(zip(("out", "weight", "bias", "table", "offset"), (out, *grads), strict=True))


def with_linear(inputs: list[Any]) -> Results:
    """What embed_patches returns, by ``F.linear``."""
    patches, weight, bias, table, index, offset = inputs
    out = F.linear(patches, weight.to(patches.dtype), bias.to(patches.dtype))
    return {"out": out + table[index.long()] + offset[..., None, :]}


def norm_pix_loss(implementation: Any, inputs: list[Any]) -> Results:
    loss, total = implementation.forward(*inputs)
    grad = torch.full_like(loss, 0.7)
    pred_grad = implementation.backward(grad, *inputs[:3], total, *inputs[3:])
    return {"loss": loss, "total": total, "pred": pred_grad}


def tm_attention(implementation: Any, inputs: list[Tensor]) -> Results:
    """Of the gradient of the result and the inputs, in this order."""
    out, lse = implementation.forward(*inputs[1:])
    grads = implementation.backward(*inputs[:4], out, lse, *inputs[4:])
    return dict(zip(("out", "lse", "q", "k", "v"), (out, lse, *grads), strict=True))


def with_sdpa(inputs: list[Tensor]) -> Results:
    """What tm_attention returns, and its gradients, by ``F.scaled_dot_product_attention``."""
    grad, *inputs = moved(inputs, "cpu")
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    out = concatenated(q, k, v, *inputs[3:])
    grads = torch.autograd.grad(out + 0 * (q.sum() + k.sum() + v.sum()), (q, k, v), grad)
    return dict(zip(("out", "q", "k", "v"), (out.detach(), *grads), strict=True))


def terms_of_gradients(inputs: list[Tensor]) -> dict[str, float]:
    """Size of the terms that tm_attention's gradients of q and k sum: all cancel where one key is.

    Root mean squares over the elements of the square roots of sums of squares, at least 1.
    """
    grad, q, k, v, adjacency, valid = moved(inputs, "cpu", torch.float64)
    there = valid.flatten(1)
    allowed = (adjacency & there[:, :, None] & there[:, None, :])[:, None]
    allowed = allowed.repeat_interleave(q.shape[3], 2).repeat_interleave(k.shape[3], 3)
    grad, q, k, v = (x.permute(0, 4, 1, 2, 3, 5).flatten(2, 4) for x in (grad, q, k, v))
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~allowed, -torch.inf)
    p = scores.softmax(-1).nan_to_num(0)
    slope = grad.square() @ v.square().mT + (grad * (p @ v)).square().sum(-1, keepdim=True)
    slope = p.square() * slope / q.shape[-1]
    sums = {"q": slope @ k.square(), "k": slope.mT @ q.square()}
    return {name: max(1.0, float(x.mean().sqrt())) for name, x in sums.items() if x.numel()}


def plain(x: Tensor) -> Tensor:
    return x


def heads_outside(x: Tensor) -> Tensor:
    return x.permute(0, 4, 1, 2, 3, 5).contiguous().permute(0, 2, 3, 4, 1, 5)


def reversed_in_memory(x: Tensor) -> Tensor:
    return x.permute(5, 4, 3, 2, 1, 0).contiguous().permute(5, 4, 3, 2, 1, 0)


def part_of_a_projection(x: Tensor) -> Tensor:
    wide = torch.full((*x.shape[:3], 2 * x.shape[3], x.shape[4], 3 * x.shape[5]), torch.nan)
    view = wide.to(x)[:, :, :, ::2, :, x.shape[5] : 2 * x.shape[5]]
    return view.copy_(x)
