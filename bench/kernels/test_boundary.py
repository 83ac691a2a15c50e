"""What a call of each operation costs in Python on top of its kernel, in eager mode on the CPU.

The smallest of many repetitions at the smallest shapes, less that of the C++ function alone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bench.ops import OPS
from seamo_fast import kernels
from seamo_fast.kernels import _registry

_CALLS, _REPETITIONS = 50, 1000


class Call(NamedTuple):
    """The public and the C++ function with the same arguments, and what gets a gradient."""

    public: Callable[[], object]
    native: Callable[[], object]
    leaves: list[Tensor]


def call_of(op: str) -> Call:
    """A call of an operation at its smallest shapes."""
    module: Any = importlib.import_module(f"bench.ops.{op}")
    torch.manual_seed(0)
    x = module.make(**module.SMALLEST)
    # tables are fixed in the model
    leaves = [getattr(x, name) for name in module.GRADIENTS if name != "table"]
    parameters = inspect.signature(module.FUNCTION).parameters.values()
    named = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    public = functools.partial(
        module.FUNCTION,
        *(value for name, value in x._asdict().items() if name not in named),
        **{name: getattr(x, name) for name in named},
    )
    native = _registry.implementation(op, "cpu").forward
    return Call(public, functools.partial(native, *x), leaves)


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


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_boundary(benchmark: Any, op: str, gradient: bool) -> None:
    """The public function less the C++ function."""
    benchmark.group = f"boundary of {op}"
    runs = {row.op: row.backend for row in kernels.explain("cpu") if row.chosen}
    if runs[op] != "cpu":
        pytest.skip(f"{op} runs on {runs[op]}: see seamo_fast.kernels.explain()")
    call = call_of(op)
    if gradient and not call.leaves:
        pytest.skip(f"{op} has no gradient")
    for leaf in call.leaves if gradient else ():
        leaf.requires_grad_()
    call.public()
    benchmark.pedantic(call.public, rounds=20, iterations=_CALLS, warmup_rounds=1)
    if benchmark.stats is None:  # --benchmark-disable
        return
    # the node that autograd makes is no part of the kernel
    seconds, bare = least((call.public, gradient), (call.native, False))
    benchmark.extra_info |= {
        "table": "boundary",
        "op": op,
        "gradient": gradient,
        "call us": seconds * 1e6,
        "kernel us": bare * 1e6,
        "boundary us": (seconds - bare) * 1e6,
    }
