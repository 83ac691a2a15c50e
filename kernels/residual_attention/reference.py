"""residual_attention in plain PyTorch: the layers themselves."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def forward(
    x: Tensor,
    norm: Callable[[Tensor], Tensor],
    attn: Callable[[Tensor, Tensor | None, int], Tensor],
    keep: Tensor | None,
    skip: int,
) -> Tensor:
    """Returns [B, L - skip, D] for x [B, L, D]."""
    return x[:, skip:] + attn(norm(x), keep, skip)
