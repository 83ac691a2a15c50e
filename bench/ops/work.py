"""What a call has to do at least, and how fast ours has to be."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Audited(NamedTuple):
    """What the audit of GPU binaries has to know of an operation.

    Attributes:
        products: Kernels that multiply matrices.
        streams: Kernels that only move memory.
        more: What `at_base` takes, beside each dtype.
        more_cuda: The same for CUDA alone: each takes Triton a compilation of its own.
        needed: Which gradients are asked for; all if empty.
    """

    products: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    more: tuple[dict[str, Any], ...] = ()
    more_cuda: tuple[dict[str, Any], ...] = ()
    needed: tuple[bool, ...] = ()


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes of the elements of some tensors."""
    return sum(0 if x is None else x.numel() * x.element_size() for x in tensors)


def without_memory(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of a shape alone: a backend computes its launches from shapes and strides."""
    return torch.empty(shape, dtype=dtype, device="meta")
