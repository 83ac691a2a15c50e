"""tm_attention: temporal-multimodal attention between groups of tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import _checks
from .._dtypes import accumulation
from .._registry import define, implement


def _fake(
    q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    batch, seasons, modalities, tokens, heads, _ = q.shape
    lse = (batch, seasons, modalities, heads, tokens)
    return q.new_empty(q.shape), q.new_empty(lse, dtype=accumulation(q))


def _fake_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    adjacency: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, adjacency, valid = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, adjacency, valid)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad: Tensor | None, lse_grad: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    return *_backward(grad, *ctx.saved_tensors), None, None


def _check(q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor) -> None:
    _checks.shape("q", q, "B, T, M, K, H, d", (None,) * 6)
    batch, seasons, modalities, _, heads, width = q.shape
    if width == 0:
        raise ValueError(f"q must have a head width d of at least 1, but got {list(q.shape)}")
    keys = (batch, seasons, modalities, None, heads, width)
    _checks.shape("k", k, "B, T, M, K', H, d", keys)
    _checks.shape("v", v, "B, T, M, K', H, d", tuple(k.shape))
    groups = seasons * modalities
    _checks.shape("adjacency", adjacency, "T * M, T * M", (groups, groups))
    _checks.shape("valid", valid, "B, T, M", (batch, seasons, modalities))
    _checks.floating("q", q)
    _checks.same_dtype("k", k, "q", q.dtype)
    _checks.same_dtype("v", v, "q", q.dtype)
    _checks.boolean("adjacency", adjacency)
    _checks.boolean("valid", valid)
    for name, tensor in (("k", k), ("v", v), ("adjacency", adjacency), ("valid", valid)):
        _checks.same_device(name, tensor, q.device)


# also returns the log of the sum of exponentials of each query, [B, T, M, H, K] in float32 or
# float64: +inf for a query without keys; no gradient flows through it
_forward = define(
    "tm_attention",
    "forward",
    "_tm_attention(Tensor q, Tensor k, Tensor v, Tensor adjacency, Tensor valid) "
    "-> (Tensor, Tensor)",
    _fake,
    _differentiate,
    _setup_context,
    check=_check,
)
_backward = define(
    "tm_attention",
    "backward",
    "_tm_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    "Tensor adjacency, Tensor valid) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
implement(__name__, "reference", "cpu", "triton", "cuda")


def tm_attention(q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor) -> Tensor:
    """Attention of each group of tokens to the groups its row of ``adjacency`` allows.

    A query of group g = t * M + m sees the keys of all groups g' with ``adjacency[g, g']`` that are
    valid in its sample: ``out = softmax(q @ keys.T / sqrt(d)) @ values``. A query without keys, or
    of an invalid group, gives 0 and zero gradients; what an invalid group holds is never used.
    Accumulated in float32 (float64 for float64 inputs). Inputs are used in the dtype they come
    in; autocast changes nothing. Differentiable in q, k and v. With the adjacency "same modality at
    another season, or another modality at the same season" it is the TM fusion of SeaMo
    (arXiv 2412.19237).

    Equivalent to, for each sample b and valid group (t, m)::

        seen = [(s, n) for s, n in groups if adjacency[t * M + m, s * M + n] and valid[b, s, n]]
        keys = torch.cat([k[b, s, n] for s, n in seen]).transpose(0, 1)  # [H, len(seen) * K', d]
        values = torch.cat([v[b, s, n] for s, n in seen]).transpose(0, 1)
        heads = F.scaled_dot_product_attention(q[b, t, m].transpose(0, 1), keys, values)
        out[b, t, m] = heads.transpose(0, 1)

    Args:
        q: queries [B, T, M, K, H, d], float.
        k: keys [B, T, M, K', H, d], same dtype; K' may differ from K.
        v: values [B, T, M, K', H, d], same dtype.
        adjacency: bool [T * M, T * M], row: group of the query, column: group of the key.
        valid: bool [B, T, M], whether a group exists in the sample.

    Returns:
        [B, T, M, K, H, d] in the dtype of ``q``.

    Raises:
        ValueError: wrong shape or device.
        TypeError: wrong dtype.
    """
    out, _ = _forward(q, k, v, adjacency, valid)
    return out
