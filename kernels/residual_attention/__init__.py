"""residual_attention: a transformer block's first branch, in eager mode.

It is no operator of torch: a compiler, autocast, a mode or a transform sees the layers themselves.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from .._layers import are_as_built
from .._registry import call_native, implement
from . import reference

implement(__name__, "reference", "cpu")


class Attention(Protocol):
    """Multi-head self-attention."""

    qkv: nn.Linear  # from D to 3 D: queries, keys, values, each head by head
    proj: nn.Linear  # from D to D
    heads: int  # divides D

    def __call__(self, x: Tensor, keep: Tensor | None, skip: int) -> Tensor:
        """Returns [B, L - skip, D] for x [B, L, D]."""


def residual_attention(
    x: Tensor, norm: nn.LayerNorm, attn: Attention, keep: Tensor | None = None, skip: int = 0
) -> Tensor:
    """Adds to tokens what they attend to.

    The C++ kernel passes some sequences at a time, so that what lies between the products stays in
    the cache; queries, keys and values are read where their projection left them. It runs for
    float32 on the CPU where the class of ``attn`` is ``replaceable`` and its layers are as built;
    then the result is differentiable once, in x and the parameters. Everywhere else (GPUs, other
    dtypes, adapters, hooks, autocast, ``torch.compile``, transforms) the layers run.

    Equivalent to::

        out = x[:, skip:] + attn(norm(x), keep, skip)

    Args:
        x: [B, L, D], float.
        norm: over D.
        attn: softmax(q @ k.T / sqrt(D / heads)) @ v for each head, then proj.
        keep: bool [B, G], which of G equal parts of a sequence may be attended to; None: all. A
            sequence without any gives x + proj(0).
        skip: leading tokens that need no output.

    Returns:
        [B, L - skip, D] in the dtype that the layers give.
    """
    found: Tensor | None = None
    if are_as_built(norm, attn) and are_as_built(attn.qkv, attn.proj):
        found = call_native(
            "residual_attention",
            *(x, norm.weight, norm.bias, attn.qkv.weight, attn.qkv.bias),
            *(attn.proj.weight, attn.proj.bias, keep, attn.heads, skip, norm.eps),
        )
    return reference.forward(x, norm, attn, keep, skip) if found is None else found
