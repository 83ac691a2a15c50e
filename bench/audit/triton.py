"""Every Triton kernel in every configuration, compiled for GPUs that are not there.

The operations are called as at run time, and a driver that names the wanted GPU stands in for
CUDA's: what is compiled is what will run.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.autotuner import Autotuner
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from bench.audit.binary import Binary, Kernel, functions, read_amdgcn, read_function
from bench.audit.cases import Case

_TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class _Device:
    """The driver of a GPU that is not there."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return _TARGETS[self.target]

    def get_current_device(self) -> str:
        return self.target

    def get_current_stream(self, device: str) -> int:
        return 0


def compiled(case: Case, target: str) -> Iterator[Kernel]:
    """Compiles and reads every kernel that a case launches."""
    results: list[tuple[str, str, Any]] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        result = run(kernel, *args, grid=grid, warmup=True, **options)
        sizes = [
            f"{name.removeprefix('BLOCK_').lower()} {value}"
            for name, value in sorted(options.items())
            if name.startswith("BLOCK_")
        ]
        shape = (f"warps {result.metadata.num_warps}", f"stages {result.metadata.num_stages}")
        name = kernel.fn.__name__.strip("_").removesuffix("_kernel")
        results.append((name, ", ".join((*sizes, *shape)), result))

    def every_configuration(tuner: Autotuner, *args: Any, **options: Any) -> None:
        for config in tuner.configs:
            tuner.fn.run(*args, **options, **config.all_kwargs())

    with (
        _replaced(driver, "_active", _Device(target)),
        _replaced(torch.version, "hip", "any" if target == "gfx942" else None),
        _replaced(JITFunction, "run", compile_only),
        _replaced(Autotuner, "run", every_configuration),
    ):
        case.call(importlib.import_module(f"seamo_fast.kernels.{case.op}.triton_impl"))
    found: dict[tuple[str, str], Binary] = {}
    for name, configuration, result in results:
        binary = _read(result, target)
        # the same kernel built for other strides or sizes: the neediest counts
        found[name, configuration] = max(
            found.get((name, configuration), binary),
            binary,
            key=lambda x: (x.spill_bytes, x.registers),
        )
    for (name, configuration), binary in found.items():
        yield Kernel(name, configuration, binary)


def _read(result: Any, target: str) -> Binary:
    meta = result.metadata
    if target == "gfx942":
        return read_amdgcn(result.asm["amdgcn"], warps=meta.num_warps, shared=meta.shared)
    (function,) = functions(result.asm["cubin"], target).values()
    return read_function(
        function,
        target,
        warps=meta.num_warps,
        shared=meta.shared,
        tensor_columns=getattr(meta, "tmem_size", 0) or 0,
    )


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
