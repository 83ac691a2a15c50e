"""The dtype a kernel accumulates in."""

from __future__ import annotations

import torch
from torch import Tensor


def accumulation(*tensors: Tensor) -> torch.dtype:
    """float64 if any of the tensors is float64, else float32."""
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        return torch.float64
    return torch.float32
