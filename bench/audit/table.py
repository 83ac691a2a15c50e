"""The audit's table: a row a kernel, what is wrong with rows, and what got worse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.audit import cuda
from bench.audit.binary import TARGETS
from bench.ops import BY_NAME

EXPECTED = Path(__file__).with_name("expected.json")
# columns of the table
MEASURED = (
    *("registers", "spill_bytes", "shared", "occupancy", "tensor", "wide_loads", "wide_stores"),
)


@dataclass(frozen=True)
class Row:
    """One kernel in one configuration on one target."""

    backend: str
    op: str
    kernel: str
    inputs: str  # dtype and sizes
    configuration: str
    target: str
    registers: int
    spill_bytes: int
    shared: int
    occupancy: float
    tensor: str
    wide_loads: int
    wide_stores: int

    @property
    def name(self) -> str:
        """Identifies the row in the table."""
        parts = (self.backend, self.op, self.kernel, self.inputs, self.configuration, self.target)
        return " | ".join(parts)

    @property
    def half(self) -> bool:
        """Whether the inputs are bfloat16 or float16."""
        return self.inputs.split()[0] in ("bfloat16", "float16")


def faults(rows: Iterable[Row]) -> list[str]:
    """What no kernel may have, whatever the table says."""
    return [f"{row.name}: {fault}" for row in rows for fault in _faults(row)]


def _faults(row: Row) -> Iterator[str]:
    if row.configuration == cuda.NOT_LAUNCHED:
        yield "no case launches it"
    if row.shared > TARGETS[row.target].shared_block:
        yield f"{row.shared} bytes of shared memory are too many"
    if not row.half:
        return
    kernel = row.kernel.partition("<")[0]
    audited = BY_NAME[row.op].AUDITED
    multiplies = kernel in audited.products
    if row.spill_bytes > 0:
        yield f"spills {row.spill_bytes} bytes"
    if multiplies and not row.tensor:
        yield "no tensor-core instruction"
    if (multiplies or kernel in audited.streams) and row.wide_loads == 0:
        yield "no loads of 16 bytes"


def regressions(rows: Iterable[Row], expected: dict[str, Any]) -> list[str]:
    """What got worse than the table, or is not in it.

    Occupancy is compared only where the compiler is the one that made the table.
    """
    found = []
    for row in rows:
        before = expected["rows"].get(row.name)
        if before is None:
            found.append(f"{row.name}: not in the table")
            continue
        same_compiler = expected["compilers"].get(row.backend) == compiler(row.backend)
        if row.spill_bytes > before["spill_bytes"]:
            found.append(
                f"{row.name}: spills {row.spill_bytes} bytes, {before['spill_bytes']} before"
            )
        if same_compiler and row.occupancy < before["occupancy"]:
            found.append(f"{row.name}: occupancy {row.occupancy}, {before['occupancy']} before")
        if before["tensor"] and not row.tensor:
            found.append(f"{row.name}: lost {before['tensor']}")
        if before["wide_loads"] and not row.wide_loads:
            found.append(f"{row.name}: lost its loads of 16 bytes")
    return found


def compiler(backend: str) -> str:
    """The version of what compiles the kernels of a backend."""
    return cuda.compiler() if backend == "cuda" else metadata.version(backend)


def read() -> dict[str, Any]:
    """The committed table: ``compilers``, and ``rows`` by name."""
    found: dict[str, Any] = {"compilers": {}, "rows": {}}
    return json.loads(EXPECTED.read_text()) if EXPECTED.exists() else found


def write(rows: Sequence[Row]) -> None:
    """Writes the table, a line a row; what was not audited stays as it was."""
    before, audited = read(), _audited(rows)
    table = {name: row for name, row in before["rows"].items() if _part(name) not in audited}
    for row in rows:
        table[row.name] = {key: asdict(row)[key] for key in MEASURED}
    compilers = before["compilers"] | {row.backend: compiler(row.backend) for row in rows}
    lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(table.items()))
    EXPECTED.write_text(
        f'{{"compilers": {json.dumps(compilers)},\n"rows": {{\n' + ",\n".join(lines) + "\n}}\n"
    )


def lost(rows: Sequence[Row], expected: dict[str, Any]) -> list[str]:
    """What the table has for the backends, operations and targets of ``rows``, but they lack."""
    audited, names = _audited(rows), {row.name for row in rows}
    return [
        f"{name}: in the table, but not compiled"
        for name in expected["rows"]
        if _part(name) in audited and name not in names
    ]


def _audited(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    return {_part(row.name) for row in rows}


def _part(name: str) -> tuple[str, ...]:
    backend, op, *_, target = name.split(" | ")
    return backend, op, target
