"""Audits the GPU kernels without a GPU: ``python -m bench.audit``.

Compiles every kernel in every configuration for every target, reads the binaries, prints what they
need, and compares with the committed table. Exits 1 where one got worse: a spill, a lost
tensor-core instruction, lost loads of 16 bytes, lower occupancy, more shared memory than there is.
``--update`` writes the table again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from bench.audit import run
from bench.audit.binary import TARGETS
from bench.audit.roofline import DEVICES, least_time, works
from bench.audit.table import Row, faults, lost, read, regressions, write
from bench.ops import OPS


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit", description=__doc__)
    parser.add_argument("--backends", default=",".join(run.BACKENDS), help="which to audit")
    parser.add_argument("--targets", default=",".join(TARGETS), help="which to compile for")
    parser.add_argument("--ops", default=",".join(OPS), help="which to audit")
    parser.add_argument("--quick", action="store_true", help="the base shape in bfloat16 alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--update", action="store_true", help="write the expected table again")
    options = parser.parse_args(arguments)
    if options.update and options.quick:
        parser.error("the expected table holds all configurations: --update goes without --quick")
    backends = []
    for backend in options.backends.split(","):
        reason = run.obstacle(backend)
        if reason is None:
            backends.append(backend)
        else:
            sys.stderr.write(f"{backend} is left out: {reason}\n")
    targets, ops = options.targets.split(","), options.ops.split(",")
    rows = run.audit(run.Scope(backends, targets, ops, options.quick, options.jobs))
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
