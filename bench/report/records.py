"""What pytest-benchmark wrote, reduced to what tables need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.kernels.common import OURS

# one benchmark; "table" says which table of the report it belongs to
Record = dict[str, Any]

RESULTS = Path(__file__).parents[1] / "results.json"
_RACE = ("table", "op", "size", "direction")
_DIGITS = 4


@dataclass(frozen=True)
class Run:
    """One call of pytest."""

    processor: str
    capability: str  # the instruction set that torch found
    threads: int
    torch: str
    gpu: str | None
    command: str
    commit: str
    records: Sequence[Record]

    @property
    def origin(self) -> str:
        """The machine, the command and the commit."""
        parts = [self.gpu] if self.gpu else []
        parts += [self.processor, self.capability, f"{self.threads} threads"]
        return f"{', '.join(parts)}, torch {self.torch}, commit {self.commit}: `{self.command}`"


def read(path: Path) -> Run:
    """Reads what ``pytest --benchmark-json`` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    machine, commit = found["machine_info"], found["commit_info"]
    records = [
        {**each["extra_info"], "ms": each["stats"]["median"] * 1e3}
        for each in found["benchmarks"]
        if "table" in each["extra_info"]
    ]
    return Run(
        machine["cpu"].get("brand_raw", "unknown processor"),
        machine["capability"],
        machine["threads"],
        machine["torch"],
        machine["gpu"],
        machine["command"],
        commit["id"][:7] + ("+changes" if commit["dirty"] else ""),
        records,
    )


def is_rival(record: Record) -> bool:
    """Whether a race was against something that does what ours does."""
    return record["contestant"] != OURS and not record["yardstick"]


def best(records: Iterable[Record]) -> list[Record]:
    """Of the races of each operation, size and direction that with the fastest rival, and ours."""
    fastest: dict[tuple[str, ...], Record] = {}
    kept = []
    for record in records:
        if "contestant" not in record:
            kept.append(record)
            continue
        race = tuple(record[part] for part in _RACE)
        if record["contestant"] == OURS:
            kept.append(record)
        elif is_rival(record) and record["ratio"] < fastest.get(race, {"ratio": 1e9})["ratio"]:
            fastest[race] = record
    return [*fastest.values(), *kept]


def store(runs: Iterable[Run]) -> None:
    """Writes what the tables in the docs need of some runs, a line a record."""
    texts = []
    for run in runs:
        head = {key: value for key, value in asdict(run).items() if key != "records"}
        lines = ",\n".join(json.dumps(_rounded(record)) for record in best(run.records))
        texts.append(f'{json.dumps(head)[:-1]}, "records": [\n{lines}\n]}}')
    RESULTS.write_text("[\n" + ",\n".join(texts) + "\n]\n", encoding="utf-8")


def stored() -> list[Run]:
    """Reads what `store` wrote."""
    return [Run(**run) for run in json.loads(RESULTS.read_text(encoding="utf-8"))]


def _rounded(record: Record) -> Record:
    return {
        key: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
        for key, value in record.items()
    }
