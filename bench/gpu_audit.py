"""Audits the GPU kernels without a GPU: ``python -m bench.gpu_audit``.

Compiles every kernel in every configuration for every target, reads the binaries, prints what they
need, and compares with the committed table. Exits 1 where one got worse: a spill, a lost
tensor-core instruction, lost loads of 16 bytes, lower occupancy, more shared memory than there is.
``--update`` makes the table anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import audit_cases, audit_cuda
from bench.audit_binary import TARGETS, Kernel
from bench.audit_table import Row, faults, lost, read, regressions, write
from bench.roofline import DEVICES, least_time, works

NVIDIA = ("sm_80", "sm_90", "sm_100")


@dataclass(frozen=True)
class Scope:
    """What an audit compiles."""

    backends: Sequence[str]
    targets: Sequence[str]
    ops: Sequence[str] = audit_cases.OPS
    quick: bool = False
    jobs: int = 1

    def cases(self) -> list[audit_cases.Case]:
        """The calls whose kernels are read."""
        return [case for case in audit_cases.cases(quick=self.quick) if case.op in self.ops]


def triton_rows(scope: Scope, target: str, number: int) -> list[Row]:
    """The rows of one case."""
    # the interpreter has no compiler
    os.environ.pop("TRITON_INTERPRET", None)
    from bench import audit_triton

    case = scope.cases()[number]
    return [
        _row("triton", case.op, case.inputs, target, kernel)
        for kernel in audit_triton.compiled(case, target)
    ]


def audit_with_triton(scope: Scope) -> list[Row]:
    """Compiles the Triton kernels, a few cases at a time."""
    numbers = range(len(scope.cases()))
    work = [(scope, target, number) for number, target in itertools.product(numbers, scope.targets)]
    with ProcessPoolExecutor(scope.jobs) as pool:
        found = pool.map(triton_rows, *zip(*work, strict=True))
        return list(itertools.chain.from_iterable(found))


def audit_with_cuda(scope: Scope) -> list[Row]:
    """Compiles the CUDA kernels, a few files at a time."""
    targets = [target for target in scope.targets if target in NVIDIA]
    if not targets:
        return []
    cases = scope.cases()
    if not scope.quick:
        cases += [case for case in audit_cases.others() if case.op in scope.ops]
    with tempfile.TemporaryDirectory() as folder:
        library = audit_cuda.Library(Path(folder), targets, scope.ops, scope.jobs)
        found = list(library.launched(cases))
        if not scope.quick and set(scope.ops) == set(audit_cases.OPS):
            found += library.not_launched()
        return [_row("cuda", *kernel) for kernel in found]


def _row(backend: str, op: str, inputs: str, target: str, kernel: Kernel) -> Row:
    return Row(backend, op, kernel.name, inputs, kernel.configuration, target, *kernel.binary)


def audit(scope: Scope) -> list[Row]:
    """Compiles and reads everything."""
    found = itertools.chain.from_iterable(BACKENDS[backend](scope) for backend in scope.backends)
    return sorted(found, key=lambda row: row.name)


BACKENDS = {"triton": audit_with_triton, "cuda": audit_with_cuda}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Text in columns."""
    lines = [tuple(map(str, line)) for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def kernel_table(rows: Iterable[Row]) -> str:
    """What each kernel needs."""
    header = (
        *("backend", "op", "kernel", "inputs", "configuration", "target"),
        *("registers", "spill", "shared", "occupancy", "tensor cores", "16-byte loads", "stores"),
    )
    return table(
        header,
        (
            (*row.name.split(" | "), row.registers, row.spill_bytes, row.shared,
             f"{row.occupancy:.0%}", row.tensor or "-", row.wide_loads, row.wide_stores)
            for row in rows
        ),
    )  # fmt: skip


def roofline_table() -> str:
    """The least time of each operation at the base shape on each GPU."""
    rows = []
    for work in works():
        cells = []
        for device in DEVICES.values():
            seconds, binding = least_time(work, device)
            cells.append(f"{seconds * 1e6:.0f} us ({binding})")
        operations = (work.tensor_operations + work.plain_operations) / 1e9
        rows.append(
            (work.op, work.direction, f"{work.bytes / 1e6:.0f}", f"{operations:.1f}", *cells)
        )
    return table(("op", "direction", "MB", "GFLOP", *DEVICES), rows)


def obstacle(backend: str) -> str | None:
    """Why the kernels of a backend cannot be compiled here; None if they can."""
    if backend == "cuda":
        return audit_cuda.obstacle()
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_audit", description=__doc__)
    parser.add_argument("--backends", default=",".join(BACKENDS), help="which to audit")
    parser.add_argument("--targets", default=",".join(TARGETS), help="which to compile for")
    parser.add_argument("--ops", default=",".join(audit_cases.OPS), help="which to audit")
    parser.add_argument("--quick", action="store_true", help="the base shape in bfloat16 alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--update", action="store_true", help="make the expected table anew")
    options = parser.parse_args(arguments)
    if options.update and options.quick:
        parser.error("the expected table holds all configurations: --update goes without --quick")
    backends = []
    for backend in options.backends.split(","):
        reason = obstacle(backend)
        if reason is None:
            backends.append(backend)
        else:
            sys.stderr.write(f"{backend} is left out: {reason}\n")
    targets, ops = options.targets.split(","), options.ops.split(",")
    rows = audit(Scope(backends, targets, ops, options.quick, options.jobs))
    sys.stdout.write(f"{kernel_table(rows)}\n\n{roofline_table()}\n")
    wrong = faults(rows)
    if options.update:
        write(rows)
    else:
        wrong += regressions(rows, read())
        wrong += [] if options.quick else lost(rows, read())
    sys.stderr.writelines(f"\n{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
