"""The tiles of a set whose radiometry is not that of their modality: named, or made right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Final

from seamo_fast.data.packing.radiometry import (
    ADDED,
    CIRRUS,
    LIKELY,
    UNCLEAR,
    WITH,
    WITHOUT,
    Judged,
    is_judged,
    judge,
    subtract,
)
from seamo_fast.data.packing.sources import Reading
from seamo_fast.data.shards import Remark
from seamo_fast.modalities import Modality

_KIND: Final = "offset"
_SHARE: Final = 0.1  # of likely tiles below which they are thin cloud
_MANY: Final = 10  # tiles that are not named one by one where they are more than half
_WINDOW: Final = re.compile(r"/t\d{3,}$")  # of a series: the same tile is in several


@dataclass
class JudgedTiles:
    """The judged tiles of one modality, sample by sample; JSON-able by `to_dict`.

    Attributes:
        ids: Names of the samples.
        days: Date of each tile such as 2020-08-13, None where unknown.
        verdicts: A letter a tile, as in `Judged`.
        floors: The darkest value of each tile.
    """

    ids: list[str] = field(default_factory=list)
    days: list[str | None] = field(default_factory=list)
    verdicts: str = ""
    floors: list[int] = field(default_factory=list)

    def add(self, id: str, dates: Sequence[date | None], judged: Judged) -> None:
        """Takes in the tiles of a sample."""
        self.ids.append(id)
        self.days += [day.isoformat() if day else None for day in dates]
        self.verdicts += judged.verdicts
        self.floors += judged.floors

    def extend(self, other: JudgedTiles) -> None:
        """Takes in the tiles of another part of the set."""
        self.ids += other.ids
        self.days += other.days
        self.verdicts += other.verdicts
        self.floors += other.floors

    def to_dict(self) -> dict[str, Any]:
        """Returns what report.json holds of it; as arguments it makes an equal object."""
        return asdict(self)

    def remarks(self, modality: Modality) -> list[Remark]:
        """Returns what contradicts the offset of the modality: of the whole set, then by tile.

        The tiles that are named are those that contradict; where they are many and more than half,
        those that do not.
        """
        counts = {
            letter: self.verdicts.count(letter) for letter in (WITH, LIKELY, WITHOUT, UNCLEAR)
        }
        total = sum(counts.values())
        shifted = modality.offset == ADDED
        added = WITH
        if shifted or counts[WITH] + counts[LIKELY] >= _SHARE * total:
            added += LIKELY
        groups = [WITHOUT, added] if shifted else [added, WITHOUT]
        wrong, right = (sum(counts[letter] for letter in group) for group in groups)
        if not wrong:
            return []
        summary = Remark(modality.name, _summary(modality, wrong, right, total), _KIND)
        few = wrong <= total / 2 or wrong < min(total, _MANY)
        return [summary, *self._named(modality, groups[0 if few else 1])]

    def _named(self, modality: Modality, letters: str) -> Iterator[Remark]:
        seasons = len(self.verdicts) // len(self.ids)
        for n, letter in enumerate(self.verdicts):
            if letter in letters:
                seems = "seems not" if letter == WITHOUT else "seems"
                what = tile_name(self.ids[n // seasons], modality, self.days[n], n % seasons)
                why = f"{ADDED} {seems} to have been added: the darkest values are {self.floors[n]}"
                yield Remark(what, why, _KIND)


def tile_name(id: str, modality: Modality, day: object, season: int) -> str:
    """Returns what a tile is called: by its sample, modality, and date or else season."""
    if day is None:
        return f"{id} {modality.name} season {season}"
    return f"{_WINDOW.sub('', id)} {modality.name} {day}"


def _summary(modality: Modality, wrong: int, right: int, total: int) -> str:
    by = f" (by band {CIRRUS})" if CIRRUS in modality.band_names else ""
    offset = f"but the offset is {modality.offset:g}"
    shifted = modality.offset == ADDED
    if right:
        added, bare = (right, wrong) if shifted else (wrong, right)
        rest = total - added - bare
        unclear = f" ({rest} unclear)" if rest else ""
        remedy = "pack them apart" if shifted else "pack them apart, or give --fix_offset"
        have = "1 tile has" if added == 1 else f"{added} tiles have"
        return f"{have} +{ADDED} added and {bare} have not{by}{unclear}, {offset} for all: {remedy}"
    if shifted:
        return f"{ADDED} seems not to have been added to {wrong} of {total} tiles{by}, {offset}"
    return (
        f"{ADDED} seems to have been added to {wrong} of {total} tiles{by} (Sentinel-2 since 2022, "
        f"SSL4EO-S12 v1.1), {offset}"
    )


def judge_reading(
    reading: Reading, modalities: Iterable[Modality], fix: bool = False
) -> dict[str, Judged]:
    """Judges the Sentinel-2 tiles of a sample, by modality.

    Args:
        reading: The sample.
        modalities: Of the source.
        fix: Whether to take 1000 from tiles that have it for sure while their modality has not:
            the reading gets other arrays, and a remark for each tile.
    """
    found = {}
    for modality in modalities:
        name = modality.name
        if name in reading.arrays and is_judged(modality):
            judged = judge(
                modality,
                reading.arrays[name],
                reading.valid[name],
                reading.dates[name],
                reading.baselines.get(name, ()),
            )
            if fix and modality.offset == 0 and WITH in judged.verdicts:
                judged = _fixed(reading, modality, judged)
            found[name] = judged
    return found


def _fixed(reading: Reading, modality: Modality, judged: Judged) -> Judged:
    name, floors = modality.name, [*judged.floors]
    reading.arrays[name] = [grid.copy() for grid in reading.arrays[name]]
    for t, letter in enumerate(judged.verdicts):
        if letter != WITH:
            continue
        for grid in reading.arrays[name]:
            subtract(grid[t], modality.nodata)
        what = tile_name(reading.id, modality, reading.dates[name][t], t)
        why = f"{ADDED} was subtracted: the darkest values were {floors[t]}"
        reading.noted.append(Remark(what, why, _KIND))
        floors[t] = max(floors[t] - ADDED, 1)
    return Judged(judged.verdicts.replace(WITH, WITHOUT), floors)


def add_judged(total: dict[str, JudgedTiles], reading: Reading, judged: dict[str, Judged]) -> None:
    """Takes the judged tiles of a sample into those of a set, by modality."""
    for name, each in judged.items():
        total.setdefault(name, JudgedTiles()).add(reading.id, reading.dates[name], each)


def offset_remarks(
    modalities: Iterable[Modality], parts: Iterable[dict[str, JudgedTiles]]
) -> list[Remark]:
    """Returns what contradicts the offsets of the modalities in a set that was judged in parts."""
    total: dict[str, JudgedTiles] = {}
    for part in parts:
        for name, each in part.items():
            total.setdefault(name, JudgedTiles()).extend(each)
    return [
        remark
        for modality in modalities
        if modality.name in total
        for remark in total[modality.name].remarks(modality)
    ]
