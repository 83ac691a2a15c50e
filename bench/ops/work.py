"""What a call has to do at least."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Work(NamedTuple):
    """Of one call, forward or in both directions."""

    operations: float  # floating-point, multiply-add counts as two
    bytes: float  # inputs that are needed read once, results written once; in each direction


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes of the elements of some tensors."""
    return sum(0 if x is None else x.numel() * x.element_size() for x in tensors)
