"""What has to be reached, and what was missed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from bench.kernels.common import BOTH, FORWARD, OURS
from bench.ops import OPS
from bench.ops.work import Threshold
from bench.report.records import Record, is_rival

THRESHOLDS: dict[str, tuple[Threshold, ...]] = {
    op: importlib.import_module(f"bench.ops.{op}").THRESHOLDS for op in OPS
}
# nothing is slower than any rival, at any size
NEVER_BELOW = 1.0
BOUNDARY_US = 5.0
PROBE_SECONDS = 20.0


def missed(records: Sequence[Record]) -> list[str]:
    """The thresholds that were not reached, or not measured."""
    races = [record for record in records if record["table"] == "ops"]
    found = [
        f"{_name(record)}: ratio {record['ratio']:.2f}, but nothing may be faster than ours"
        for record in races
        if is_rival(record) and record["ratio"] < NEVER_BELOW
    ]
    for op, thresholds in THRESHOLDS.items():
        for threshold in thresholds:
            found += _below(op, threshold, [r for r in races if _covers(op, threshold, r)])
    found += [
        f"linear probe, {record['features']} features: {record['seconds']:.1f} s, at most "
        f"{PROBE_SECONDS:.0f} allowed"
        for record in records
        if record["table"] == "probes" and record["by"] == OURS
        if record["seconds"] > PROBE_SECONDS
    ]
    boundaries = [record for record in records if record["table"] == "boundary"]
    found += [] if boundaries else ["the boundary was not measured"]
    return found + [
        f"boundary of {record['op']}: {record['boundary us']:.1f} us, at most {BOUNDARY_US} allowed"
        for record in boundaries
        if record["boundary us"] > BOUNDARY_US
    ]


def _covers(op: str, threshold: Threshold, record: Record) -> bool:
    name = record["contestant"]
    named = name in threshold.contestants if threshold.contestants else is_rival(record)
    place = (record["op"], record["direction"]) == (op, _direction(threshold))
    return named and place and record["size"] in threshold.sizes


def _direction(threshold: Threshold) -> str:
    return BOTH if threshold.both else FORWARD


def _below(op: str, threshold: Threshold, covered: Sequence[Record]) -> Iterator[str]:
    measured = {(record["size"], record["contestant"]) for record in covered}
    for size in threshold.sizes:
        for name in threshold.contestants or ("any rival",):
            if (size, name) not in measured and not (name == "any rival" and measured):
                yield f"{op}, {size}, {_direction(threshold)}, {name}: not measured"
    for record in covered:
        value, quantity = record[threshold.quantity], threshold.quantity
        if value < threshold.least:
            yield f"{_name(record)}: {quantity} {value:.2f}, at least {threshold.least} expected"


def _name(record: Record) -> str:
    return ", ".join(record[part] for part in ("op", "size", "direction", "contestant"))
