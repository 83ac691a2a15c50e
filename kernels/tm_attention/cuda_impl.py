"""tm_attention in CUDA: attention on tensor cores over lists of groups, in both directions.

A block of queries walks the groups it sees; the gradients of keys and values walk the groups that
see them, so that no two blocks add to the same value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._gpu import _cuda

_WIDEST_HEAD = 128


def forward(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Lists of groups, then attention; lse as the schema says."""
    if not _takes(q):
        return None
    batch, seasons, modalities, tokens, heads, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = q.new_empty((batch, seasons, modalities, heads, tokens), dtype=torch.float32)
    if lse.numel() == 0:
        return out, lse
    q, k, v, adjacency, valid, links = _prepared(q, k, v, adjacency, valid, 1)
    inputs = _inputs(q, k, v, adjacency, valid, links)
    _cuda.run("tm_attention", inputs=inputs, out=out, lse=lse)
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
    """Lists of groups in both directions, gradients of queries, then of keys and values."""
    if not _takes(q):
        return None
    q_grad, k_grad, v_grad = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    if q.numel() == 0 or k.numel() == 0:
        return q_grad.zero_(), k_grad.zero_(), v_grad.zero_()
    grad, out, lse = _dense(grad), out.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)
    q, k, v, adjacency, valid, links = _prepared(q, k, v, adjacency, valid, 2)
    _cuda.run(
        "tm_attention_backward",
        inputs=_inputs(q, k, v, adjacency, valid, links),
        grad=_tokens(grad),
        out=out,
        lse=lse,
        delta=delta,
        q_grad=q_grad,
        k_grad=k_grad,
        v_grad=v_grad,
    )
    return q_grad, k_grad, v_grad


def _takes(q: Tensor) -> bool:
    return _cuda.takes(q) and q.shape[-1] <= _WIDEST_HEAD


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor, directions: int
) -> tuple[Tensor, ...]:
    """The inputs as the kernels read them, and room for the lists of groups."""
    groups = adjacency.shape[0]
    links = q.new_empty((directions, valid.shape[0], groups, 1 + groups), dtype=torch.int32)
    return _dense(q), _dense(k), _dense(v), adjacency.contiguous(), valid.contiguous(), links


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _tokens(x: Tensor) -> tuple[int, ...]:
    return x.data_ptr(), *x.stride()[:-1]


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor, links: Tensor
) -> Any:
    batch, seasons, modalities, queries, heads, width = q.shape
    return _cuda.struct("AttentionInputs")(
        q=_tokens(q),
        k=_tokens(k),
        v=_tokens(v),
        adjacency=adjacency.data_ptr(),
        valid=valid.data_ptr(),
        links=links.data_ptr(),
        storage=_cuda.storage(q),
        batch=batch,
        seasons=seasons,
        modalities=modalities,
        queries=queries,
        keys=k.shape[3],
        heads=heads,
        width=width,
        scale=width**-0.5,
        tf32=q.dtype == torch.float32 and _cuda.tf32(),
    )
