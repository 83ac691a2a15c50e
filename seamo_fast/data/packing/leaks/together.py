"""Which places a split must keep together, and where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from seamo_fast.data.packing.jobs import Tick
from seamo_fast.data.packing.leaks.groups import connected, listed
from seamo_fast.data.packing.leaks.overlap import overlapping
from seamo_fast.data.packing.leaks.scan import Scanned, same_content, scan, suspects
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards.remarks import Remark

_SHARED: Final = {"content": "hold tiles of the same pixels", "ground": "share ground"}


@dataclass(frozen=True)
class Together:
    """Where places go that share ground or pixels with others.

    Attributes:
        moved: For each item the places whose split is not that of their own name, and that split.
        noted: For each split what its places share.
    """

    moved: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    noted: Mapping[str, Sequence[Remark]] = field(default_factory=dict)

    @property
    def remarks(self) -> list[Remark]:
        """Those of all splits."""
        return [remark for noted in self.noted.values() for remark in noted]

    def of(self, items: Sequence[str]) -> dict[str, str]:
        """Returns the split of each place in some items that is moved, sorted by place."""
        found = {
            place: split for item in items for place, split in self.moved.get(item, {}).items()
        }
        return dict(sorted(found.items()))


def find_together(
    source: Source, splits: Splits, *, workers: int = 1, tick: Tick = lambda done: None
) -> Together:
    """Looks for places of different names whose footprints overlap or that hold the same pixels.

    Whatever is connected by such pairs makes a group. It goes where its smallest name goes; with
    cells, where the smallest name goes whose position is known.

    Args:
        source: What is to be split.
        splits: How a place by itself is drawn.
        workers: Processes.
        tick: Called with the number of items that were looked at since the last call.

    Raises:
        DataError: A process died.
    """
    items = source.items()
    scanned = scan(source, items, workers, tick)
    names = sorted(set(scanned.places))
    numbers = {name: number for number, name in enumerate(names)}
    owners = np.array([numbers[place] for place in scanned.places], np.int64)
    doubtful = [items[number] for number in suspects(scanned, owners)]
    content = list(same_content(source, doubtful, numbers, workers))
    ground = [pair for found in overlapping(scanned.corners, owners) for pair in found.tolist()]
    chosen = _draw(splits, names, connected(len(names), [*content, *ground]), scanned, owners)
    # a cell is drawn by the position that reading finds, so with cells every split is laid down
    moved = {
        names[number]: split
        for number, split in chosen.items()
        if splits.cell or splits.choose(names[number], None) != split
    }
    groups = {"content": connected(len(names), content), "ground": connected(len(names), ground)}
    return Together(_by_item(items, scanned, moved), _remarks(names, groups, chosen))


def _draw(
    splits: Splits,
    names: Sequence[str],
    groups: Sequence[Sequence[int]],
    scanned: Scanned,
    owners: np.ndarray,
) -> dict[int, str]:
    """Returns the split of each place that is in a group; none if cells need a position."""
    positions = _positions(scanned, owners) if splits.cell else {}
    chosen: dict[int, str] = {}
    for group in groups:
        leader = next((number for number in group if number in positions), group[0])
        if leader in positions or not splits.cell:
            split = splits.choose(names[leader], positions.get(leader))
            chosen.update(dict.fromkeys(group, split))
    return chosen


def _positions(scanned: Scanned, owners: np.ndarray) -> dict[int, tuple[float, float]]:
    """Returns the centre of the first footprint of each place that has one."""
    x = scanned.corners[..., 0]
    x = x[:, :1] + (x - x[:, :1] + 180) % 360 - 180  # on one side of the antimeridian
    found: dict[int, tuple[float, float]] = {}
    centres = zip(x.mean(1).tolist(), scanned.corners[..., 1].mean(1).tolist(), strict=True)
    for number, centre in zip(owners.tolist(), centres, strict=True):
        if np.isfinite(centre).all():
            found.setdefault(number, centre)
    return found


def _by_item(
    items: Sequence[str], scanned: Scanned, moved: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for number, place in zip(scanned.items.tolist(), scanned.places, strict=True):
        if place in moved:
            found.setdefault(items[number], {})[place] = moved[place]
    return found


def _remarks(
    names: Sequence[str], groups: Mapping[str, list[list[int]]], chosen: Mapping[int, str]
) -> dict[str, list[Remark]]:
    """Returns a remark for each group of each kind, or one where content tells of the ground."""
    told: set[tuple[int, ...]] = set()
    found: dict[str, list[Remark]] = {}
    for kind, why in _SHARED.items():
        for group in map(tuple, groups[kind]):
            split = chosen.get(group[0])
            if split is not None and group not in told:
                told.add(group)
                what = listed([names[number] for number in group])
                remark = Remark(what, f"{why}, so all go to {split}", kind)
                found.setdefault(split, []).append(remark)
    return found
