"""Ways to the result of tm_attention: what PyTorch offers, and libraries where installed."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bench.kernels import common
from bench.sizes import MODALITIES, SEASONS
from seamo_fast.kernels import tm_attention

GROUPS = [(t, m) for t in range(SEASONS) for m in range(MODALITIES)]


class Inputs(NamedTuple):
    """Masks and lists of groups are made once, as a model would."""

    q: Tensor  # [B, T, M, K, H, d]
    k: Tensor
    v: Tensor
    adjacency: Tensor  # bool [T * M, T * M]
    valid: Tensor  # bool [B, T, M]
    lists: Tensor  # int64 [T * M, groups that each sees], equally many
    mask: Tensor  # bool [T * M * K, T * M * K]
    other_season: Tensor  # [T * K, T * K], 0 or -inf
    blocks: BlockMask
    grad: Tensor


def adjacency() -> Tensor:
    """Same modality at another season, or another modality at the same season."""
    return torch.tensor([[(t == s) != (m == n) for s, n in GROUPS] for t, m in GROUPS])


def inputs_of(case: common.Case) -> Inputs:
    """All groups are valid: some alternatives could not leave one out."""
    width, heads = case.model.width, case.model.heads
    groups = (case.batch, SEASONS, MODALITIES)
    shape = (*groups, case.tokens, heads, width // heads)
    q, k, v, grad = common.randoms(shape, shape, shape, shape, dtype=case.dtype)
    seen = adjacency().to(q.device)
    valid = torch.ones(groups, dtype=torch.bool, device=q.device)
    lists = torch.stack([row.nonzero()[:, 0] for row in seen])
    same_season = _each_token(torch.eye(SEASONS, device=q.device), case.tokens) > 0
    other_season = torch.zeros(same_season.shape, dtype=q.dtype, device=q.device)
    other_season.masked_fill_(same_season, -torch.inf)
    blocks = _block_mask(seen, case.tokens)
    mask = _each_token(seen, case.tokens)
    return Inputs(q, k, v, seen, valid, lists, mask, other_season, blocks, grad)


def _each_token(groups: Tensor, tokens: int) -> Tensor:
    return groups.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


def _block_mask(seen: Tensor, tokens: int) -> BlockMask:
    def may_see(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return seen[query // tokens, key // tokens]

    length = len(GROUPS) * tokens
    # a block is a group where that is allowed; on GPUs it is 128 at least
    size = tokens if seen.device.type == "cpu" else 128
    return create_block_mask(may_see, None, None, length, length, seen.device, BLOCK_SIZE=size)


def ours(x: Inputs) -> Tensor:
    """The operation under test."""
    return tm_attention(x.q, x.k, x.v, x.adjacency, x.valid)


def _by_head(x: Tensor) -> Tensor:
    """[B, T, M, K, H, d] to [B, H, T * M * K, d]."""
    return x.flatten(1, 3).transpose(1, 2)


def _by_group(x: Tensor, like: Tensor) -> Tensor:
    return x.transpose(1, 2).unflatten(1, like.shape[1:4])


def eager(x: Inputs) -> Tensor:
    """All scores of a sample, masked."""
    scores = _by_head(x.q) @ _by_head(x.k).mT * x.q.shape[-1] ** -0.5
    scores = scores.masked_fill(~x.mask, -torch.inf)
    return _by_group(scores.softmax(-1) @ _by_head(x.v), x.q)


def sdpa_mask(x: Inputs) -> Tensor:
    """One call with a boolean mask."""
    q, k, v = (_by_head(part) for part in (x.q, x.k, x.v))
    return _by_group(F.scaled_dot_product_attention(q, k, v, x.mask), x.q)


def flex(x: Inputs, attend: Callable[..., Any] = flex_attention) -> Tensor:
    """One call that leaves out the blocks of groups that are not seen."""
    q, k, v = (_by_head(part) for part in (x.q, x.k, x.v))
    return _by_group(attend(q, k, v, block_mask=x.blocks), x.q)


def flex_compiled(function: Callable[..., Any]) -> common.Function:
    """The call alone: inductor's CPU template takes no views that were made in its graph."""
    return functools.partial(function, attend=common.whole(flex_attention))


def _copied(x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [groups, K, H, d] with a copy of the keys and values that each group sees."""
    keys, values = (
        part.flatten(1, 2).index_select(1, x.lists.flatten()).unflatten(1, x.lists.shape)
        for part in (x.k, x.v)
    )
    keys, values = (part.flatten(0, 1).flatten(1, 2) for part in (keys, values))
    return x.q.flatten(0, 2), keys, values


def sdpa_concatenated(x: Inputs) -> Tensor:
    """One call, the groups as its batch."""
    q, k, v = (part.transpose(1, 2) for part in _copied(x))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(x.q.shape)


def varlen(x: Inputs) -> Tensor:
    """The groups as sequences one after the other."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = _copied(x)
    count, queries, keys = *q.shape[:2], k.shape[1]
    ends = torch.arange(count + 1, dtype=torch.int32, device=q.device)
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    out = varlen_attn(q, k, v, ends * queries, ends * keys, queries, keys)
    assert isinstance(out, Tensor)
    return out.reshape(x.q.shape)


def flash_attn(x: Inputs) -> Tensor:
    """The groups as the batch of flash-attn."""
    from flash_attn import flash_attn_func

    return flash_attn_func(*_copied(x)).reshape(x.q.shape)


def xformers(x: Inputs) -> Tensor:
    """The groups as the batch of xformers."""
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(*_copied(x)).reshape(x.q.shape)


def sdpa_merged(x: Inputs) -> Tensor:
    """Two calls, see :class:`Merged`."""
    return Merged.apply(x.q, x.k, x.v, x.other_season)


class Merged(torch.autograd.Function):
    """Other seasons by one call, the other modality by a second, merged by log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Both calls, weighted by their shares of the sum of exponentials."""
        outs, totals = [], []
        for part, part_mask in ((_seasons, mask), (_modalities, None)):
            rows = (part(x, i) for i, x in enumerate((q, k, v)))
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *rows, attn_mask=part_mask
            )
            outs.append(_restore(out, part, q))
            totals.append(_restore(lse[..., None], part, q))
        total = torch.logaddexp(*totals)
        out = outs[0] * (totals[0] - total).exp() + outs[1] * (totals[1] - total).exp()
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, total, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Both calls with the merged result, which gives each its part of the gradients."""
        q, k, v, out, total, mask = ctx.saved_tensors
        sums: list[Tensor] = []
        for part, part_mask in ((_seasons, mask), (_modalities, None)):
            rows = [part(x, i) for i, x in enumerate((q, k, v))]
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                part(grad, 0),
                *rows,
                part(out, 0),
                part(total, 0)[..., 0],
                0.0,
                False,
                attn_mask=part_mask,
            )
            restored = [_restore(x, part, q, i) for i, x in enumerate(grads)]
            sums = restored if not sums else [a + b for a, b in zip(sums, restored, strict=True)]
        return *sums, None


def _seasons(x: Tensor, which: int) -> Tensor:
    """[B, T, M, K, H, d] to [B * M, H, T * K, d]."""
    return x.transpose(1, 2).flatten(0, 1).flatten(1, 2).transpose(1, 2)


def _modalities(x: Tensor, which: int) -> Tensor:
    """[B, T, M, K, H, d] to [B * T * M, H, K, d], keys and values of the other modality."""
    return (x.flip(2) if which > 0 else x).flatten(0, 2).transpose(1, 2)


def _restore(x: Tensor, part: Callable[..., Tensor], like: Tensor, which: int = 0) -> Tensor:
    batch, seasons, modalities, tokens = like.shape[:4]
    x = x.transpose(1, 2)
    if part is _seasons:
        return x.reshape(batch, modalities, seasons, tokens, *x.shape[2:]).transpose(1, 2)
    x = x.reshape(batch, seasons, modalities, tokens, *x.shape[2:])
    return x.flip(2) if which > 0 else x


def cpu_only(case: common.Case) -> str | None:
    """Why two calls cannot be merged."""
    return None if common.device() == "cpu" else "written for the CPU's kernel, which gives sums"


def flex_obstacle(case: common.Case) -> str | None:
    """Why FlexAttention cannot run."""
    if common.device() == "cpu" and case.direction == common.BOTH:
        return "FlexAttention has no backward pass on the CPU"
    return None


def gpu_obstacle(module: str | None) -> Callable[[common.Case], str | None]:
    """Why kernels that are for GPUs and half precision, perhaps of a module, cannot run."""

    def obstacle(case: common.Case) -> str | None:
        if common.device() != "cuda":
            return "it needs a CUDA device"
        if module is not None and importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
        if case.dtype == torch.float32 and module != "xformers":
            return "it takes half precision alone"
        return None

    return obstacle


CONTESTANTS = {
    common.OURS: common.Contestant(ours, compiled=None),
    "eager": common.Contestant(eager),
    "sdpa_mask": common.Contestant(sdpa_mask),
    "sdpa_concatenated": common.Contestant(sdpa_concatenated),
    "sdpa_merged": common.Contestant(sdpa_merged, obstacle=cpu_only),
    "flex": common.Contestant(flex, flex_compiled, eager=False, obstacle=flex_obstacle),
    "varlen_attn": common.Contestant(varlen, compiled=None, obstacle=gpu_obstacle(None)),
    "flash_attn": common.Contestant(flash_attn, compiled=None, obstacle=gpu_obstacle("flash_attn")),
    "xformers": common.Contestant(xformers, compiled=None, obstacle=gpu_obstacle("xformers")),
}
