"""tm_attention: arguments, sizes, the formula and the work; read by tests, benches and audit."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import sizes
from bench.ops.work import Audited, Threshold, Work, nbytes, without_memory
from seamo_fast.kernels import tm_attention
from seamo_fast.kernels._dtypes import accumulation

FUNCTION = tm_attention
OUTPUTS = ("out", "lse")
GRADIENTS = ("q", "k", "v")


class Arguments(NamedTuple):
    """As in the schema."""

    q: Tensor  # [B, T, M, K, H, d]
    k: Tensor  # [B, T, M, K', H, d]
    v: Tensor  # [B, T, M, K', H, d]
    adjacency: Tensor  # bool [T * M, T * M]
    valid: Tensor  # bool [B, T, M]


def make(
    dtype: torch.dtype = torch.float32,
    *,
    b: int = 2,
    t: int = 3,
    m: int = 2,
    k: int = 4,
    keys: int = 4,
    h: int = 2,
    d: int = 5,
) -> Arguments:
    """Random groups, a random adjacency, a few groups missing."""
    q, key, value = (torch.randn(b, t, m, tokens, h, d).to(dtype) for tokens in (k, keys, keys))
    return Arguments(q, key, value, torch.rand(t * m, t * m) < 0.5, torch.rand(b, t, m) < 0.8)


def adjacency_of_the_paper(seasons: int, modalities: int) -> Tensor:
    """Same modality at another season, or another modality at the same season."""
    pairs = [(t, m) for t in range(seasons) for m in range(modalities)]
    return torch.tensor([[(t == s) != (m == n) for s, n in pairs] for t, m in pairs])


def formula(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """``F.scaled_dot_product_attention`` over the concatenated keys of the groups that are seen.

    Also the logarithms of the sums of exponentials, [B, T, M, H, K].
    """
    batch, seasons, modalities = valid.shape
    pairs = [(t, m) for t in range(seasons) for m in range(modalities)]
    out, sums = [], []
    for b in range(batch):
        for g, (t, m) in enumerate(pairs):
            seen = [pair for i, pair in enumerate(pairs) if adjacency[g, i] and valid[(b, *pair)]]
            query = q[b, t, m].transpose(0, 1)  # [H, K, d]
            if valid[b, t, m] and seen and k.shape[3] > 0:
                keys = torch.cat([k[(b, *pair)] for pair in seen]).transpose(0, 1)
                values = torch.cat([v[(b, *pair)] for pair in seen]).transpose(0, 1)
                out.append(F.scaled_dot_product_attention(query, keys, values).transpose(0, 1))
                scores = query @ keys.mT * q.shape[-1] ** -0.5
                sums.append(scores.to(accumulation(scores)).logsumexp(-1))
            else:
                out.append(torch.zeros_like(q[b, t, m]))
                sums.append(torch.full(query.shape[:2], torch.inf, device=q.device))
    shape = (batch, seasons, modalities, *q.shape[4:2:-1])
    if not out:
        return torch.zeros_like(q), q.new_zeros(shape)
    return torch.stack(out).reshape(q.shape), torch.stack(sums).reshape(shape)


def masked(q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor) -> Tensor:
    """One call of ``F.scaled_dot_product_attention`` with a boolean mask."""
    there = valid.flatten(1)
    allowed = adjacency & there[:, :, None] & there[:, None, :]
    mask = allowed.repeat_interleave(q.shape[3], 1).repeat_interleave(k.shape[3], 2)[:, None]
    queries, keys, values = (x.permute(0, 4, 1, 2, 3, 5).flatten(2, 4) for x in (q, k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    out = out.masked_fill(~mask.any(-1, keepdim=True), 0)
    return out.unflatten(2, q.shape[1:4]).permute(0, 2, 3, 4, 1, 5)


def backward_arguments(
    x: Arguments, outputs: tuple[Tensor, ...], grad: Tensor, needed: list[bool]
) -> tuple[Any, ...]:
    """What the backward operator takes."""
    return grad, x.q, x.k, x.v, *outputs, x.adjacency, x.valid


def at_base(dtype: torch.dtype, *, d: int = 64, k: int = 64) -> Arguments:
    """Shapes alone, but the paper's adjacency: 64 samples of the base model.

    Keys and values lie as one projection leaves them.
    """
    groups = (64, sizes.SEASONS, sizes.MODALITIES)
    heads = sizes.BASE.width // d
    key, value = without_memory(*groups, k, 2, heads, d, dtype=dtype).unbind(4)
    return Arguments(
        without_memory(*groups, k, heads, d, dtype=dtype),
        key,
        value,
        adjacency_of_the_paper(sizes.SEASONS, sizes.MODALITIES),
        without_memory(*groups, dtype=torch.bool),
    )


RIVALS = (formula, masked)


def shape(x: Arguments) -> tuple[int, ...]:
    """Of the result."""
    return tuple(x.q.shape)


def batch(size: int) -> dict[str, Any]:
    """What ``make`` takes for a batch of that size."""
    return {"b": size}


def computed(x: Arguments) -> list[torch.dtype]:
    """The dtypes that a backend has to compute in."""
    return [x.q.dtype]


def dtypes(x: Arguments) -> dict[str, torch.dtype]:
    """Of the results of the operators."""
    return {"lse": accumulation(x.q), **dict.fromkeys(("out", *GRADIENTS), x.q.dtype)}


def terms(x: Arguments, grad: Tensor) -> dict[str, float]:
    """Size of what the gradients of q and k sum: all of it cancels where there is one key.

    Root mean squares over the elements of the square roots of sums of squares, at least 1.
    """
    there = x.valid.flatten(1)
    allowed = (x.adjacency & there[:, :, None] & there[:, None, :])[:, None]
    allowed = allowed.repeat_interleave(x.q.shape[3], 2).repeat_interleave(x.k.shape[3], 3)
    slope, q, k, v = (
        y.double().permute(0, 4, 1, 2, 3, 5).flatten(2, 4) for y in (grad, x.q, x.k, x.v)
    )
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~allowed, -torch.inf)
    p = scores.softmax(-1).nan_to_num(0)
    size = slope.square() @ v.square().mT + (slope * (p @ v)).square().sum(-1, keepdim=True)
    size = p.square() * size / q.shape[-1]
    sums = {"q": size @ k.square(), "k": size.mT @ q.square()}
    return {name: max(1.0, float(y.mean().sqrt())) for name, y in sums.items() if y.numel()}


def work(x: Arguments, *, both: bool) -> Work:
    """Two products of matrices forward and five backward, for each pair of groups."""
    *_, tokens, heads, width = x.q.shape
    pairs = x.valid.shape[0] * int(x.adjacency.sum())
    products, tensors = (7, 12) if both else (2, 4)
    operations = 2 * products * pairs * tokens * x.k.shape[3] * heads * width
    return Work(operations, tensors // 4 * nbytes(x.q, x.k, x.v, x.q))


# CPU: 64 queries and keys of a block; Triton: 16 to 128 queries, 16 to 64 keys of a step; CUDA: 32
# or 64 queries, 16 or 32 keys of a step
SIZES: tuple[dict[str, int], ...] = (
    {"k": 1, "keys": 1},
    {"k": 1, "keys": 65},
    {"k": 70, "keys": 1},
    {"k": 64, "keys": 64},
    {"k": 70, "keys": 65},
    {"k": 70, "keys": 33, "d": 128},
    {"t": 1, "m": 2},
    {"t": 1, "m": 1},
    {"d": 1},
    {"h": 3, "d": 7},
    {"b": 2, "t": 3, "h": 2, "k": 17, "keys": 16, "d": 16},
)
MANY: tuple[dict[str, int], ...] = (  # for kernels that are not interpreted
    {"k": 130, "keys": 1, "d": 24},
    {"k": 63, "keys": 63, "d": 24},
    {"k": 64, "keys": 129, "d": 24},
    {"t": 1, "k": 16, "keys": 16, "d": 24},
    {"m": 1, "k": 16, "keys": 16, "d": 24},
    {"h": 7, "k": 16, "keys": 16, "d": 24},
    {"t": 7, "m": 3, "k": 16, "keys": 16, "d": 24},
    {"b": 1, "h": 1, "t": 4, "k": 70, "keys": 33, "d": 20},
    {"b": 4, "h": 5, "k": 70, "keys": 33, "d": 20},
    *({"b": 1, "k": 37, "keys": 66, "d": d} for d in (5, 48, 64, 80)),
)
# the widths that heads are padded to, and others between them
WIDTHS = (1, 7, 17, 32, 33, 40, 48, 64, 80, 96, 120, 128)
EMPTY: tuple[dict[str, int], ...] = ({"b": 0}, {"t": 0}, {"k": 0}, {"keys": 0}, {"h": 0})
SMALLEST: dict[str, Any] = {
    "b": 1,
    "t": 1,
    "m": 1,
    "k": 2,
    "keys": 2,
    "h": 1,
    "d": 8,
}  # where a call costs least
_PADDED = (32, 48, 80, 96, 128)  # widths, beside 64
AUDITED = Audited(
    products=("forward", "query_grad", "key_grad"),
    more=(  # few tokens have configurations of their own, 100 cut blocks
        *({"k": k} for k in (16, 32, 100)),
        *({"d": d, "k": k} for d in _PADDED for k in (64, 100)),
        *({"d": 96, "k": k} for k in (16, 32)),
    ),
    more_cuda=tuple(
        {"dtype": dtype, "d": d} for dtype in (torch.float16, torch.float32) for d in _PADDED
    ),
)
THRESHOLDS = (Threshold(("small",), (), 1.8),)
