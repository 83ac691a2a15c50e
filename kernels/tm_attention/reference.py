"""tm_attention in plain PyTorch, on any device: the oracle of the other backends.

Samples one by one: the scores of a sample stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dtypes import accumulation


def forward(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention of one sample after another; lse as the schema says."""
    batch, seasons, modalities, tokens, heads, width = q.shape
    allowed = _allowed(adjacency, valid)
    q_rows, k_rows, v_rows = (_by_head(x, valid) for x in (q, k, v))
    out = torch.empty_like(q_rows)
    lse = out.new_empty(batch, heads, seasons * modalities * tokens)
    for b in range(batch):
        scores = _scores(q_rows[b], k_rows[b], allowed[b], width)
        # +inf for a query without keys: its probabilities exp(score - lse) are then 0
        total = scores.logsumexp(-1)
        lse[b] = total.masked_fill_(total == -torch.inf, torch.inf)
        out[b] = scores.sub_(lse[b][..., None]).exp_() @ v_rows[b]
    lse = lse.unflatten(2, (seasons, modalities, tokens)).permute(0, 2, 3, 1, 4)
    return _by_group(out, q), lse.contiguous()


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    adjacency: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from probabilities computed again."""
    width = q.shape[-1]
    allowed = _allowed(adjacency, valid)
    rows = [_by_head(x, valid) for x in (q, k, v, grad, out)]
    totals = lse.permute(0, 3, 1, 2, 4).flatten(2)[..., None]  # [B, H, G * K, 1]
    q_grad, k_grad, v_grad = (torch.empty_like(x) for x in rows[:3])
    for b, (q_row, k_row, v_row, g_row, o_row) in enumerate(zip(*rows, strict=True)):
        p = _scores(q_row, k_row, allowed[b], width).sub_(totals[b]).exp_()
        v_grad[b] = p.mT @ g_row
        slope = (g_row @ v_row.mT).sub_((g_row * o_row).sum(-1, keepdim=True))
        slope.mul_(p).mul_(width**-0.5)
        q_grad[b] = slope @ k_row
        k_grad[b] = slope.mT @ q_row
    return _by_group(q_grad, q), _by_group(k_grad, k), _by_group(v_grad, v)


def _allowed(adjacency: Tensor, valid: Tensor) -> Tensor:
    """Whether query group g of a sample may see key group g', [B, G, G]."""
    valid = valid.flatten(1)
    return adjacency & valid[:, :, None] & valid[:, None, :]


def _by_head(x: Tensor, valid: Tensor) -> Tensor:
    """[B, T, M, K, H, d] to [B, H, T * M * K, d], invalid groups as zeros whatever they hold."""
    x = x.permute(0, 4, 1, 2, 3, 5)
    x = x.to(accumulation(x), copy=True, memory_format=torch.contiguous_format)
    return x.masked_fill_(~valid[:, None, :, :, None, None], 0).flatten(2, 4)


def _by_group(rows: Tensor, like: Tensor) -> Tensor:
    _, seasons, modalities, tokens, _, _ = like.shape
    rows = rows.unflatten(2, (seasons, modalities, tokens)).permute(0, 2, 3, 4, 1, 5)
    return rows.to(like.dtype).contiguous()


def _scores(q: Tensor, k: Tensor, allowed: Tensor, width: int) -> Tensor:
    """[H, G * K, G * K'], -inf where a query may not see a key."""
    scores = (q @ k.mT).mul_(width**-0.5)
    if scores.numel() > 0:
        groups = allowed.shape[0]
        blocks = scores.view(-1, groups, q.shape[1] // groups, groups, k.shape[1] // groups)
        blocks.masked_fill_(~allowed[:, None, :, None], -torch.inf)
    return scores
