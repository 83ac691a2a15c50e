"""Compiles the kernels of every backend, and reads what they need."""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.audit import cuda
from bench.audit.binary import Kernel
from bench.audit.cases import Case, cases, others
from bench.audit.table import Row
from bench.ops import OPS
from seamo_fast import kernels

NVIDIA = ("sm_80", "sm_90", "sm_100")


@dataclass(frozen=True)
class Scope:
    """What an audit compiles."""

    backends: Sequence[str]
    targets: Sequence[str]
    ops: Sequence[str] = OPS
    quick: bool = False
    jobs: int = 1

    def having(self, backend: str) -> list[str]:
        """The operations that a backend has kernels of."""
        places = {op: f"{kernels.__name__}.{op}.{backend}_impl" for op in self.ops}
        return [op for op, place in places.items() if importlib.util.find_spec(place)]

    def cases(self, backend: str) -> list[Case]:
        """The calls whose kernels are read."""
        found = cases(quick=self.quick)
        if backend == "cuda" and not self.quick:
            found += others()
        ops = self.having(backend)
        return [case for case in found if case.op in ops]


def triton_rows(scope: Scope, target: str, number: int) -> list[Row]:
    """The rows of one case."""
    # the interpreter has no compiler
    os.environ.pop("TRITON_INTERPRET", None)
    from bench.audit import triton

    case = scope.cases("triton")[number]
    return [
        _row("triton", case.op, case.inputs, target, kernel)
        for kernel in triton.compiled(case, target)
    ]


def audit_with_triton(scope: Scope) -> list[Row]:
    """Compiles the Triton kernels, a few cases at a time."""
    numbers = range(len(scope.cases("triton")))
    work = [(scope, target, number) for number, target in itertools.product(numbers, scope.targets)]
    with ProcessPoolExecutor(scope.jobs) as pool:
        found = pool.map(triton_rows, *zip(*work, strict=True))
        return list(itertools.chain.from_iterable(found))


def audit_with_cuda(scope: Scope) -> list[Row]:
    """Compiles the CUDA kernels, a few files at a time."""
    targets = [target for target in scope.targets if target in NVIDIA]
    if not targets:
        return []
    with tempfile.TemporaryDirectory() as folder:
        library = cuda.Library(Path(folder), targets, scope.having("cuda"), scope.jobs)
        found = list(library.launched(scope.cases("cuda")))
        if not scope.quick and set(scope.ops) == set(OPS):
            found += library.not_launched()
        return [_row("cuda", *kernel) for kernel in found]


def _row(backend: str, op: str, inputs: str, target: str, kernel: Kernel) -> Row:
    return Row(backend, op, kernel.name, inputs, kernel.configuration, target, *kernel.binary)


def audit(scope: Scope) -> list[Row]:
    """Compiles and reads everything."""
    found = itertools.chain.from_iterable(BACKENDS[backend](scope) for backend in scope.backends)
    return sorted(found, key=lambda row: row.name)


BACKENDS = {"triton": audit_with_triton, "cuda": audit_with_cuda}


def obstacle(backend: str) -> str | None:
    """Why the kernels of a backend cannot be compiled here; None if they can."""
    if backend == "cuda":
        return cuda.obstacle()
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    return None
