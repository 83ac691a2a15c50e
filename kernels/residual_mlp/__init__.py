"""residual_mlp: a transformer block's second branch, in eager mode.

It is no operator of torch: a compiler, autocast, a mode or a transform sees the layers themselves.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from .._layers import are_as_built
from .._registry import call_native, implement
from . import reference

implement(__name__, "reference", "cpu")


class Mlp(Protocol):
    """Two linear layers with an exact GELU between them."""

    fc1: nn.Linear  # from D to any width
    fc2: nn.Linear  # back to D

    def __call__(self, x: Tensor) -> Tensor:
        """Returns [..., D] for x [..., D]."""


def residual_mlp(x: Tensor, norm: nn.LayerNorm, mlp: Mlp) -> Tensor:
    """Adds to tokens what an MLP makes of each.

    The C++ kernel passes some rows at a time, so that what the GELU gives stays in the cache; the
    backward pass computes that again from what the GELU took. It runs for float32 on the CPU where
    the class of ``mlp`` is ``replaceable`` and its layers are as built; then the result is
    differentiable once, in x and the parameters. Everywhere else (GPUs, other dtypes, adapters,
    hooks, autocast, ``torch.compile``, transforms) the layers run.

    Equivalent to::

        out = x + mlp(norm(x))

    Args:
        x: [..., D], float.
        norm: over D.
        mlp: fc2(gelu(fc1(x))).

    Returns:
        [..., D] in the dtype that the layers give.
    """
    found: Tensor | None = None
    if are_as_built(norm, mlp) and are_as_built(mlp.fc1, mlp.fc2):
        found = call_native(
            "residual_mlp",
            *(x, norm.weight, norm.bias, mlp.fc1.weight, mlp.fc1.bias),
            *(mlp.fc2.weight, mlp.fc2.bias, norm.eps),
        )
    return reference.forward(x, norm, mlp) if found is None else found
