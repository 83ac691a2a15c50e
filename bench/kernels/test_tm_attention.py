"""tm_attention against what PyTorch offers for the same result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels import common
from seamo_fast.kernels import tm_attention

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

_PAIRS = [(t, m) for t in range(common.SEASONS) for m in range(common.MODALITIES)]


def adjacency() -> Tensor:
    """Same modality at another season, or another modality at the same season."""
    return torch.tensor([[(t == s) != (m == n) for s, n in _PAIRS] for t, m in _PAIRS])


def by_head(x: Tensor) -> Tensor:
    """[B, T, M, K, H, d] to [B, H, T * M * K, d]."""
    return x.flatten(1, 3).transpose(1, 2)


def by_group(x: Tensor, like: Tensor) -> Tensor:
    """Back from :func:`by_head`, in the shape of ``like``."""
    return x.transpose(1, 2).unflatten(1, like.shape[1:4])


class Contestants:
    """Each is complete on its own: masks and lists of groups are made once, as a model would."""

    def __init__(self) -> None:
        seen = adjacency().to(common.device())
        tokens = common.TOKENS
        self.adjacency = seen
        self.valid = torch.ones(
            common.BATCH, common.SEASONS, common.MODALITIES, dtype=torch.bool, device=seen.device
        )
        self.mask = seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
        # every group sees equally many
        self.lists = torch.stack([row.nonzero()[:, 0] for row in seen])
        same_season = torch.eye(common.SEASONS, device=seen.device)
        blocks = same_season.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
        self.other_season = torch.zeros_like(blocks).masked_fill(blocks > 0, -torch.inf)

    def ours(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The operation under test."""
        return tm_attention(q, k, v, self.adjacency, self.valid)

    def eager(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All scores of a sample, masked."""
        scores = by_head(q) @ by_head(k).mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~self.mask, -torch.inf)
        return by_group(scores.softmax(-1) @ by_head(v), q)

    def sdpa_mask(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One call with a boolean mask."""
        out = F.scaled_dot_product_attention(by_head(q), by_head(k), by_head(v), self.mask)
        return by_group(out, q)

    def sdpa_concatenated(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One call, the groups as its batch, each with a copy of the keys and values it sees."""
        keys, values = (
            x.flatten(1, 2).index_select(1, self.lists.flatten()).unflatten(1, self.lists.shape)
            for x in (k, v)
        )
        keys, values = (x.flatten(0, 1).flatten(1, 2).transpose(1, 2) for x in (keys, values))
        out = F.scaled_dot_product_attention(q.flatten(0, 2).transpose(1, 2), keys, values)
        return out.transpose(1, 2).unflatten(0, q.shape[:3])

    def sdpa_merged(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Two calls, see :class:`Merged`."""
        return Merged.apply(q, k, v, self.other_season.to(q.dtype))


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


COMPOSITIONS = ("eager", "sdpa_mask", "sdpa_concatenated", "sdpa_merged")
NAMES = ("ours", *COMPOSITIONS, *(f"{name} compiled" for name in COMPOSITIONS))


@functools.cache
def attention_of(name: str) -> Attention:
    """The contestant of that name."""
    function: Attention = getattr(Contestants(), name.removesuffix(" compiled"))
    return torch.compile(function) if name.endswith(" compiled") else function


@functools.cache
def inputs_of(size: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q, k, v, and the gradient of the result."""
    width, heads = common.SIZES[size]
    shape = (common.BATCH, common.SEASONS, common.MODALITIES, common.TOKENS, heads, width // heads)
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(shape, generator=generator) for _ in range(4))
    return tuple(x.to(common.device(), dtype) for x in (q, k, v, grad))


def call(name: str, size: str, direction: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The result of a contestant, and the gradients if asked for."""
    q, k, v, grad = inputs_of(size, dtype)
    if direction == "forward":
        with torch.no_grad():
            return (attention_of(name)(q, k, v),)
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out = attention_of(name)(q, k, v)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), grad)


def work_of(size: str, direction: str, dtype: torch.dtype) -> common.Work:
    """Two products of matrices forward and five backward, for each pair of groups."""
    width, _ = common.SIZES[size]
    pairs = common.BATCH * int(adjacency().sum())
    products, tensors = (2, 4) if direction == "forward" else (7, 12)
    return common.Work(
        operations=2 * products * pairs * common.TOKENS**2 * width,
        bytes=tensors * common.BATCH * len(_PAIRS) * common.TOKENS * width * dtype.itemsize,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("size", common.SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tm_attention(
    benchmark: Any, name: str, direction: str, size: str, dtype: torch.dtype
) -> None:
    """Ours against one contestant."""
    benchmark.group = f"tm_attention, {size}, {direction}, {dtype}"
    contestant = functools.partial(call, name, size, direction, dtype)
    ours = functools.partial(call, "ours", size, direction, dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    common.assert_agree({"ours": ours(), name: contestant()}, tolerance)
    common.race(benchmark, contestant, ours, work_of(size, direction, dtype))
