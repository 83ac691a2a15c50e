"""What the Triton kernels share: choice of configurations, widths, devices, precision of products.

The configurations of one kernel differ in the number of warps, in pipeline stages and in how many
results a program computes, never in the order of a sum: results do not depend on which is fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def cast(x, dtype: tl.constexpr):
    """Rounds float32 ``x`` to the nearest number of ``dtype``, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        # the interpreter cuts the lower half off
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """``acc + a @ b`` in float32."""
    if INTERPRETED:
        # the interpreter multiplies the bits of bfloat16 numbers (triton-lang/triton#11584)
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


def tuned(kernel: Any, configs: Sequence[triton.Config], key: Sequence[str]) -> Any:
    """A kernel that runs the fastest of ``configs``, searched for each value of ``key``."""
    # the interpreter cannot time: the first configuration runs
    chosen = configs[:1] if INTERPRETED else configs
    return triton.autotune(configs=list(chosen), key=list(key), cache_results=True)(kernel)


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's device the one that kernels are launched on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def padded(size: int, least: int = 16) -> int:
    """The power of two that holds ``size`` (block sizes are powers of two; of products >= 16)."""
    return max(least, triton.next_power_of_2(size))


def precision(dtype: torch.dtype) -> str:
    """How products of ``dtype`` are computed: float32 in TF32 only where PyTorch may do so too."""
    if dtype != torch.float32 or torch.version.hip is not None:
        return "ieee"  # products of half-precision numbers are exact in float32
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels compute in the dtypes of these tensors."""
    return all(tensor.dtype in _DTYPES for tensor in tensors)


def is_half(dtype: torch.dtype) -> bool:
    """Whether numbers of ``dtype`` take two bytes."""
    return dtype.itemsize == 2
