"""A first look at all items of a source: where their places are, and which pixels come twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.sources import Reading, Source
from seamo_fast.data.packing.sources.formats.ground import Ground, bits_of, varies
from seamo_fast.errors import DataError

_ITEMS: Final = 16  # of a job


class Scanned(NamedTuple):
    """What a scan found, a row for each `Ground`.

    Attributes:
        places: Names, N of them.
        items: Number of the item of each, integers [N].
        corners: Of the footprints [N, 4, 2] in degrees, NaN where unknown.
        prints: Of all tiles, integers [tiles].
        rows: Which row each tile belongs to, integers [tiles].
    """

    places: list[str]
    items: np.ndarray
    corners: np.ndarray
    prints: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class _Look:
    """Some items of a source, from number `first` on; picklable."""

    source: Source
    first: int
    items: Sequence[str]

    def run(self) -> Scanned:
        rows = [
            (number, ground)
            for number, item in enumerate(self.items, self.first)
            for ground in self._grounds(item)
        ]
        unknown = ((np.nan,) * 2,) * 4
        counts = [len(ground.prints) for _, ground in rows]
        return Scanned(
            places=[ground.place for _, ground in rows],
            items=np.array([number for number, _ in rows], np.int64),
            corners=np.array(
                [ground.footprint or unknown for _, ground in rows], np.float64
            ).reshape(-1, 4, 2),
            prints=np.array([each for _, ground in rows for each in ground.prints], np.uint64),
            rows=np.repeat(np.arange(len(rows)), counts),
        )

    def _grounds(self, item: str) -> list[Ground]:
        count()
        try:
            return list(self.source.scan(item))
        except DataError:  # packing says why
            return []


def scan(source: Source, items: Sequence[str], workers: int, tick: Tick) -> Scanned:
    """Looks at items of a source; `tick` gets the number of items since its last call."""
    looks = [_Look(source, at, items[at : at + _ITEMS]) for at in range(0, len(items), _ITEMS)]
    parts = list(run_jobs(looks, workers, tick)) or [_Look(source, 0, ()).run()]
    sizes = [len(part.places) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])
    return Scanned(
        [place for part in parts for place in part.places],
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.prints for part in parts]),
        np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
    )


def suspects(scanned: Scanned, owners: np.ndarray) -> np.ndarray:
    """Returns the numbers of the items with a print that two places have.

    Args:
        scanned: What was found.
        owners: The number of each row's place [N].
    """
    rows = scanned.rows[_shared(scanned.prints, owners[scanned.rows])]
    return np.unique(scanned.items[rows])


def same_content(
    source: Source, items: Sequence[str], numbers: Mapping[str, int], workers: int
) -> Iterator[Sequence[int]]:
    """Reads items; yields pairs of places that share a tile, all its bands, as it is packed.

    Args:
        source: What was scanned.
        items: The suspects.
        numbers: The number of each place, by name.
        workers: Processes.
    """
    reads = [_Read(source, items[at : at + _ITEMS]) for at in range(0, len(items), _ITEMS)]
    first: dict[bytes, int] = {}
    for found in run_jobs(reads, workers):
        for place, digests in found:
            for digest in digests:
                yield numbers[place], first.setdefault(digest, numbers[place])


def _shared(prints: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Returns the numbers of those prints that more than one owner has."""
    order = np.lexsort((owners, prints))
    prints, owners = prints[order], owners[order]
    starts = np.flatnonzero(np.diff(prints, prepend=prints[:1] + 1))
    sizes = np.diff(starts, append=len(prints))
    several = owners[starts] != owners[starts + sizes - 1]
    return order[np.repeat(several, sizes)]


@dataclass(frozen=True)
class _Read:
    """Some items of a source, to be read; picklable."""

    source: Source
    items: Sequence[str]

    def run(self) -> list[tuple[str, list[bytes]]]:
        found = []
        for item in self.items:
            try:
                for reading in self.source.read(item):
                    found.append((reading.place or reading.id, list(_digests(reading))))
            except DataError:  # packing says why
                continue
        return found


def _digests(reading: Reading) -> Iterator[bytes]:
    """Yields what stands for the pixels of each group that is valid and not all one number."""
    for name, flags in reading.valid.items():
        for t in np.flatnonzero(flags):
            tiles = [grid[t] for grid in reading.arrays[name]]
            if any(varies(band) for tile in tiles for band in tile):
                digest = hashlib.blake2b(name.encode(), digest_size=16)
                for tile in tiles:
                    digest.update(bits_of(tile).data)
                yield digest.digest()
