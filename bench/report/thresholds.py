"""What has to be reached, and what was missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.kernels.common import BOTH, COMPILED, FORWARD, OURS
from bench.report.records import Record, is_rival


class Threshold(NamedTuple):
    """What has to be reached at the small shape."""

    op: str
    sizes: tuple[str, ...]
    direction: str
    contestants: tuple[str, ...]  # none: every rival
    least: float
    quantity: str = "ratio"

    def covers(self, record: Record) -> bool:
        """Whether it speaks of a record."""
        name = record["contestant"]
        named = name in self.contestants if self.contestants else is_rival(record)
        place = (record["op"], record["direction"]) == (self.op, self.direction)
        return named and place and record["size"] in self.sizes


_TILES = ("s2l2a", "s2l2a nodata")
_CHAINS = (f"crop{COMPILED}", f"grid_sample{COMPILED}")

THRESHOLDS = (
    Threshold("gather_patches", _TILES, FORWARD, ("crop",), 6),
    Threshold("gather_patches", _TILES, FORWARD, _CHAINS, 2.5),
    Threshold("gather_patches", _TILES, FORWARD, (OURS,), 0.5, "of copy"),
    Threshold("tm_attention", ("small",), BOTH, (), 1.8),
    Threshold("norm_pix_loss", ("s2l2a",), BOTH, ("eager",), 4),
    Threshold("norm_pix_loss", ("s2l2a",), BOTH, (f"eager{COMPILED}",), 1.5),
    Threshold("assemble_tokens", ("small",), BOTH, ("cat", "unshuffle"), 2),
    Threshold("embed_patches", ("small",), BOTH, ("all patches",), 3),
    Threshold("embed_patches", ("small",), BOTH, ("bare product",), 0.95),
)
# nothing is slower than any rival, at any size
NEVER_BELOW = 1.0
BOUNDARY_US = 5.0


def missed(records: Sequence[Record]) -> list[str]:
    """The thresholds that were not reached, or not measured."""
    races = [record for record in records if record["table"] == "ops"]
    found = [
        f"{_name(record)}: ratio {record['ratio']:.2f}, but nothing may be faster than ours"
        for record in races
        if is_rival(record) and record["ratio"] < NEVER_BELOW
    ]
    for threshold in THRESHOLDS:
        found += _below(threshold, [record for record in races if threshold.covers(record)])
    boundaries = [record for record in records if record["table"] == "boundary"]
    found += [] if boundaries else ["the boundary was not measured"]
    return found + [
        f"boundary of {record['op']}: {record['boundary us']:.1f} us, at most {BOUNDARY_US} allowed"
        for record in boundaries
        if record["boundary us"] > BOUNDARY_US
    ]


def _below(threshold: Threshold, covered: Sequence[Record]) -> Iterator[str]:
    measured = {(record["size"], record["contestant"]) for record in covered}
    for size in threshold.sizes:
        for name in threshold.contestants or ("any rival",):
            if (size, name) not in measured and not (name == "any rival" and measured):
                yield f"{threshold.op}, {size}, {threshold.direction}, {name}: not measured"
    for record in covered:
        value, quantity = record[threshold.quantity], threshold.quantity
        if value < threshold.least:
            yield f"{_name(record)}: {quantity} {value:.2f}, at least {threshold.least} expected"


def _name(record: Record) -> str:
    return ", ".join(record[part] for part in ("op", "size", "direction", "contestant"))
