"""residual_mlp in plain PyTorch: the layers themselves."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def forward(x: Tensor, norm: Callable[[Tensor], Tensor], mlp: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns [..., D] for x [..., D]."""
    return x + mlp(norm(x))
