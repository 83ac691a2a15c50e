"""tm_attention in Triton: flash attention over lists of groups, in both directions.

For each sample and group there are two lists of groups: those it sees and those that see it. A
program walks its list block by block and never meets a forbidden or invalid group. The gradients of
keys and values walk the second list, so that no two programs add to the same value.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from .._gpu import _triton
from . import triton_kernels


def forward(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Attention, one program a block of queries of one head; lse as the schema says."""
    if not _triton.takes(q):
        return None
    batch, seasons, modalities, tokens, heads, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = q.new_empty((batch, seasons, modalities, heads, tokens), dtype=torch.float32)
    if lse.numel() == 0:
        return out, lse
    with _triton.device_of(q):
        seen = _links(adjacency, valid, 1)
        kernel, grid, sizes, constants = _launch("forward", q, k)
        strides = (stride for x in (q, k, v) for stride in x.stride())
        kernel[grid](q, k, v, seen, out, lse, *strides, *sizes, **constants)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    adjacency: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of queries over groups seen, then of keys and values over groups that see."""
    if not _triton.takes(q):
        return None
    q_grad, k_grad, v_grad = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    if q.numel() == 0 or k.numel() == 0:
        return q_grad.zero_(), k_grad.zero_(), v_grad.zero_()
    out, lse = out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    strides = [stride for x in (grad, q, k, v) for stride in x.stride()]
    with _triton.device_of(q):
        seen, seers = _links(adjacency, valid, 2).unbind()
        kernel, grid, sizes, constants = _launch("query_grad", q, k)
        kernel[grid](grad, q, k, v, out, lse, seen, delta, q_grad, *strides, *sizes, **constants)
        kernel, grid, sizes, constants = _launch("key_grad", q, k)
        kernel[grid](
            grad, q, k, v, lse, delta, seers, k_grad, v_grad, *strides, *sizes, **constants
        )
    return q_grad, k_grad, v_grad


def _links(adjacency: Tensor, valid: Tensor, directions: int) -> Tensor:
    """The groups each group sees, and with 2 directions those that see it.

    int32 [directions, B, G, G + 1]: how many, then which; the rest is not written.
    """
    batch, groups = valid.shape[0], adjacency.shape[0]
    links = adjacency.new_empty((directions, batch, groups, groups + 1), dtype=torch.int32)
    triton_kernels.links_kernel[batch, groups, directions](
        adjacency, valid.contiguous(), links, *adjacency.stride(), groups,
        BLOCK_G=triton.next_power_of_2(groups), num_warps=1,
    )  # fmt: skip
    return links


def _launch(name: str, q: Tensor, k: Tensor) -> tuple[Any, Any, tuple[int, ...], dict[str, Any]]:
    """A kernel for these tensors, its grid, sizes and constants."""
    batch, seasons, modalities, tokens, heads, width = q.shape
    keys, groups = k.shape[3], seasons * modalities
    block_d = _triton.padded(width)
    kernel, step = _plan(
        name, _triton.is_half(q.dtype), block_d,
        min(_triton.padded(tokens), 128), min(_triton.padded(keys), 128),
        torch.version.hip is not None,
    )  # fmt: skip
    own, walked, own_block, step_block = (
        (keys, tokens, "BLOCK_KEYS", "BLOCK_QUERIES")
        if name == "key_grad"
        else (tokens, keys, "BLOCK_QUERIES", "BLOCK_KEYS")
    )
    constants = {
        "SCALE2": width**-0.5 * math.log2(math.e),
        "WIDTH": width,
        "BLOCK_D": block_d,
        "EVEN": walked % step == 0,
        "PRECISION": _triton.precision(q.dtype),
        step_block: step,
    }
    sizes = (modalities, groups, heads, tokens, keys, triton.cdiv(walked, step))

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(own, meta[own_block]) * groups * heads * batch,)

    return kernel, grid, sizes, constants


@functools.cache
def _plan(
    name: str, half: bool, block_d: int, tokens: int, keys: int, hip: bool
) -> tuple[Any, int]:
    """A kernel with its configurations, and how many keys or queries its loop takes at a time.

    64 rows fill the tensor cores, more share what they read where there are more; steps are the
    largest that need no spill and leave room for two programs on a processor. float32, computed as
    three products, gets half of each.
    """
    by_keys = name == "key_grad"
    own, walked = (keys, tokens) if by_keys else (tokens, keys)
    wide = by_keys and block_d > 64
    if half:
        step = 64 if name == "forward" and block_d <= 64 else 32
        rows = min(64, own)
        warps = max(1, rows // (8 if wide else 16))
        shapes = [(rows, warps, 3), (rows, warps, 2)]
        if own >= 128 and not wide:
            shapes.append((128, 8, 3))
        if wide and hip:  # where eight warps leave each thread too few registers
            shapes = [(size, 4, 2) for size in sorted({rows, min(32, rows)})]
    else:
        step = 32 if name == "forward" else 16
        shapes = [(min(32, own), 8 if wide else 4, 2)]
    kernel, block = {
        "forward": (triton_kernels.forward_kernel, "BLOCK_QUERIES"),
        "query_grad": (triton_kernels.query_grad_kernel, "BLOCK_QUERIES"),
        "key_grad": (triton_kernels.key_grad_kernel, "BLOCK_KEYS"),
    }[name]
    configs = [
        triton.Config({block: rows}, num_warps=warps, num_stages=stages)
        for rows, warps, stages in shapes
    ]
    return _triton.tuned(kernel, configs, ("K", "KEYS", "WIDTH")), min(step, walked)
