"""What a call has to do at least, and how fast ours has to be."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Work(NamedTuple):
    """Of one call, forward or in both directions."""

    operations: float  # floating-point, multiply-add counts as two
    bytes: float  # inputs that are needed read once, results written once; in each direction


class Threshold(NamedTuple):
    """What ours has to reach in races of an operation, at some sizes."""

    sizes: tuple[str, ...]  # labels of the benches
    contestants: tuple[str, ...]  # none: every rival
    least: float
    quantity: str = "ratio"
    both: bool = True  # forward and backward


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes of the elements of some tensors."""
    return sum(0 if x is None else x.numel() * x.element_size() for x in tensors)


def without_memory(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of a shape alone: a backend computes its launches from shapes and strides."""
    return torch.empty(shape, dtype=dtype, device="meta")
