"""What a call of each operation costs in Python on top of its kernel, in eager mode on the CPU.

The smallest of many repetitions at the smallest shapes, less that of the C++ function alone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seamo_fast import kernels
from seamo_fast.kernels import _registry

_CALLS, _REPETITIONS = 50, 1000
_B, _T, _M, _K, _N, _D, _P = 1, 1, 1, 2, 4, 8, 16

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], tuple[Any, ...]]


def call_of(op: str) -> Call:
    """Public function, its arguments by position and by name, and those that C++ takes beyond."""
    public = getattr(kernels, op)
    index = torch.arange(_N, dtype=torch.int32).expand(_B, _T, _N).contiguous()
    visible = index[..., :_K].contiguous()
    patches, tokens = torch.randn(_B, _T, _K, _P), torch.randn(_B, _T, _K, _D)
    weight, width, table = torch.randn(_D, _P), torch.randn(_D), torch.randn(_N, _D)
    offset, heads = torch.randn(_B, _T, _D), torch.randn(_B, _T, _M, _K, 1, _D)
    if op == "gather_patches":
        bands = [torch.zeros(_B, _T, 2, side, side, dtype=torch.uint16) for side in (8, 4)]
        boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        options = {"order": (0, 1, 2, 3), "image_size": (8, 8), "patch_size": 4, "nodata": 0.0}
        arguments = (bands, boxes, visible, torch.zeros(4), torch.ones(4))
        return public, arguments, options, (*options.values(), torch.float32)
    if op == "tm_attention":
        groups, valid = torch.ones(_T * _M, _T * _M) > 0, torch.ones(_B, _T, _M) > 0
        return public, (heads, heads, heads, groups, valid), {}, ()
    if op == "norm_pix_loss":
        return public, (patches, patches.clone(), torch.ones(_B, _T, _K)), {}, (True, 1e-6)
    if op == "assemble_tokens":
        return public, (tokens, width, table, index), {}, ()
    return public, (patches, weight, width, table, visible, offset), {}, ()


# which arguments get a gradient
LEAVES = {
    "assemble_tokens": (0, 1),
    "embed_patches": (1, 2, 5),
    "gather_patches": (),
    "norm_pix_loss": (0,),
    "tm_attention": (0, 1, 2),
}


def least(*calls: tuple[Callable[[], object], bool]) -> list[float]:
    """Seconds of one call of each function, with gradients or without, measured in turn."""
    found = [float("inf")] * len(calls)
    for _ in range(_REPETITIONS):
        for number, (function, gradient) in enumerate(calls):
            with torch.set_grad_enabled(gradient):
                start = time.perf_counter()
                for _ in range(_CALLS):
                    function()
                passed = time.perf_counter() - start
            found[number] = min(found[number], passed / _CALLS)
    return found


@pytest.mark.parametrize(
    ("op", "gradient"),
    [(op, way) for op in LEAVES for way in (False, True) if LEAVES[op] or not way],
)
def test_boundary(benchmark: Any, op: str, gradient: bool) -> None:
    """The public function less the C++ function."""
    benchmark.group = f"boundary of {op}"
    runs = {row.op: row.backend for row in kernels.explain("cpu") if row.chosen}
    if runs[op] != "cpu":
        pytest.skip(f"{op} runs on {runs[op]}: see seamo_fast.kernels.explain()")
    public, arguments, options, beyond = call_of(op)
    for number in LEAVES[op] if gradient else ():
        arguments[number].requires_grad_()
    native = _registry.implementation(op, "cpu").forward
    call = functools.partial(public, *arguments, **options)
    kernel = functools.partial(native, *arguments, *beyond)
    call()
    benchmark.pedantic(call, rounds=20, iterations=_CALLS, warmup_rounds=1)
    if benchmark.stats is None:  # --benchmark-disable
        return
    # the node that autograd makes is no part of the kernel
    seconds, bare = least((call, gradient), (kernel, False))
    benchmark.extra_info |= {
        "table": "boundary",
        "op": op,
        "gradient": gradient,
        "call us": seconds * 1e6,
        "kernel us": bare * 1e6,
        "boundary us": (seconds - bare) * 1e6,
    }
