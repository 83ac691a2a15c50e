"""Labelled demo data: generated places that no pretraining on the demo scenes has seen.

Written once into the cache as ordinary shards, like the demo scenes, with their missing groups,
stripes and clouds. Of every five places, by number, three are for training, one for validation and
one for testing (`PARTS`); what is taken from one place is in one part.

The crops are chosen so that one season cannot distinguish them and four can: on no day of the year
do they all look different, years are early or late, and stands thin or full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.demo.dataset import COARSEST, OPTICAL, RADAR
from seamo_fast.data.demo.labels import (
    NO_FIELD,
    SEASONS,
    Clouds,
    pair_shards,
    place_shards,
    read_maps,
)
from seamo_fast.data.demo.scene import FIELDS, Cover
from seamo_fast.data.shards import ShardSet
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    Contents,
    LabelledDataset,
    OnBad,
    Task,
    choose,
)

PARTS: Final = ("train", "train", "train", "val", "test")
MODALITIES: Final = {each.name: replace(each, mean=None, std=None) for each in (OPTICAL, RADAR)}
COVERS: Final[dict[str, tuple[Cover, ...]]] = {
    "Cropland": tuple(crop for crop in FIELDS if crop is not Cover.MEADOW),
    "Grassland": (Cover.MEADOW, Cover.PASTURE),
    "Broad-leaved forest": (Cover.DECIDUOUS,),
    "Needle-leaved forest": (Cover.EVERGREEN,),
    "Water": (Cover.RIVER, Cover.LAKE),
    "Built-up": (Cover.TILES, Cover.BRIGHT_ROOF, Cover.GREY_ROOF, Cover.GARDEN, Cover.ROAD),
    "Bare rock": (Cover.ROCK,),
}
CROPS: Final[dict[str, tuple[Cover, ...]]] = {
    "Winter wheat": (Cover.CEREAL,),
    "Maize": (Cover.MAIZE,),
    "Sugar beet": (Cover.BEET,),
    "Meadow": (Cover.MEADOW,),
    "Winter barley, then mustard": (Cover.BARLEY,),
    "Oats": (Cover.OATS,),
    "Potatoes": (Cover.POTATO,),
    "Rye, then maize": (Cover.RYE_MAIZE,),
}
_LEAST: Final = 1 / 4  # of a chip that its field takes
_FIRST_DAY: Final = date(1970, 1, 1)


class Place(NamedTuple):
    """An item: where it is in its shards, and which part of the place it shows.

    Attributes:
        id: Name of the item.
        split: See `PARTS`.
        number: Of the place.
        edge: Pixels of 10 m along an edge.
        top: First row, of 10 m.
        left: First column.
        label: Class number, where an item has one class.
    """

    id: str
    split: str
    number: int
    edge: int
    top: int = 0
    left: int = 0
    label: int | None = None


class _Demo(LabelledDataset[Place]):
    """Places of a folder of shards with maps, see `seamo_fast.data.demo.labels`."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        split: str | None,
        modalities: Sequence[str],
        seasons: Sequence[int],
        on_bad: OnBad,
    ) -> None:
        self._folder = folder
        self._shards = ShardSet(folder)
        self._size = self._shards.manifest.arrays["s2l2a_10m"].shape[-1]
        self._seasons = [season for season in range(self._shards.seasons) if season in seasons]
        if not seasons or self._seasons != list(seasons):
            known = ", ".join(map(str, range(self._shards.seasons)))
            raise ValueError(f"seasons must be some of {known}, ascending, but got {list(seasons)}")
        chosen = choose(MODALITIES, modalities)
        super().__init__(chosen, classes, list(self._items()), split, on_bad)

    def _items(self) -> Iterator[Place]:
        for number in range(len(self._shards)):
            part = PARTS[number % len(PARTS)]
            yield Place(self._shards.id(number), part, number, self._size)

    def _read(self, entry: Place) -> Contents:
        names = [modality.name for modality in self.modalities]
        sample = self._shards.read(entry.number, names, self._seasons)
        contents = Contents({}, {}, entry.label, self._mask(entry.number))
        for column, (name, grids) in enumerate(sample.bands.items()):
            valid = sample.valid[:, column].tolist()
            contents.bands[name] = [self._cut(entry, grid) for grid in grids]
            contents.valid[name] = valid
            contents.dates[name] = [
                _FIRST_DAY + timedelta(day) if there else None
                for day, there in zip(sample.dates[:, column].tolist(), valid, strict=True)
            ]
        return contents

    def _paths(self, entry: Place) -> list[Path]:
        return [self._folder / "manifest.json"]

    def _label_of(self, entry: Place) -> int | None:
        return entry.label

    def _cut(self, entry: Place, grid: np.ndarray) -> np.ndarray:
        """Returns what an item shows of a grid [T, Cg, Hg, Wg] of its place."""
        step = self._size // grid.shape[-1]
        rows, columns = (
            slice(start // step, (start + entry.edge) // step) for start in (entry.top, entry.left)
        )
        return grid[..., rows, columns].copy()  # the shards are mapped read-only

    def _mask(self, number: int) -> np.ndarray | None:
        return None


class _Seasons(_Demo):
    """Places in up to four seasons."""

    legend: Mapping[str, tuple[Cover, ...]]

    def __init__(
        self,
        root: Path | str | None = None,
        split: str | None = None,
        *,
        modalities: Sequence[str] = tuple(MODALITIES),
        seasons: Sequence[int] = tuple(range(SEASONS)),
        clouds: Clouds = "usual",
        places: int = 512,
        size: int = 96,
        seed: int = 0,
        on_bad: OnBad = "stop",
    ) -> None:
        root = None if root is None else Path(root)
        folder = place_shards(root, places=places, size=size, seed=seed, clouds=clouds)
        super().__init__(folder, tuple(self.legend), split, modalities, seasons, on_bad)


class DemoCover(_Seasons):
    """Land cover of generated places: the class of every pixel of 10 m, see `COVERS`.

    Args:
        root: Folder that holds the folders of generated data; by default the cache, as in
            `demo_shards`.
        split: "train", "val" or "test", see `PARTS`; None for all.
        modalities: Some of s2l2a and s1grd.
        seasons: Which of spring (0), summer, autumn and winter (3), ascending; T is their number.
        clouds: "usual" as in the demo scenes, where a fifth of the dates has some, or "many": three
            quarters.
        places: Number of places, of all parts; the first of them do not depend on it.
        size: Edge of a place in pixels of 10 m, a multiple of 6.
        seed: Another seed gives other places.
        on_bad: See `LabelledDataset`.

    Raises:
        ValueError: There is no such modality, season, size, kind of clouds or number of places.
        DataError: The cache cannot be written, or nothing is in this part.
    """

    task: Task = "mask"
    legend = COVERS

    def _mask(self, number: int) -> np.ndarray | None:
        return _classes(self.legend, read_maps(self._folder)[number, 0])


class DemoCrops(_Seasons):
    """Crops of generated places: the class of every pixel of a field, see `CROPS`; else `IGNORE`.

    Places without fields are left out. Arguments and errors are those of `DemoCover`.
    """

    task: Task = "mask"
    legend = CROPS

    def _items(self) -> Iterator[Place]:
        maps = read_maps(self._folder)
        return (item for item in super()._items() if (maps[item.number, 1] != NO_FIELD).any())

    def _mask(self, number: int) -> np.ndarray | None:
        return _classes(self.legend, read_maps(self._folder)[number, 0])


class DemoFields(_Seasons):
    """Images of single fields in the places of `DemoCrops`: the crop of each is its class.

    An image has half the edge of its place and the field in the middle, as far as the place
    reaches. The field takes at least a quarter of it and is the largest in it. Arguments and errors
    are those of `DemoCover`.
    """

    task: Task = "classes"
    legend = CROPS

    def _items(self) -> Iterator[Place]:
        maps = read_maps(self._folder)
        edge = max(1, self._size // COARSEST // 2) * COARSEST
        for item in super()._items():
            cover, field = maps[item.number]
            for number in np.unique(field[field != NO_FIELD]).tolist():
                rows, columns = np.nonzero(field == number)
                top, left = (_start(each, edge, self._size) for each in (rows, columns))
                seen = field[top : top + edge, left : left + edge]
                counts = np.bincount(seen[seen != NO_FIELD], minlength=1)
                if counts.argmax() == number and counts[number] >= _LEAST * edge**2:
                    label = int(_classes(self.legend, cover[rows[0], columns[0]]))
                    yield Place(
                        f"{item.id}-{number:02d}", item.split, item.number, edge, top, left, label
                    )


class DemoChange(_Demo):
    """Summers of two years of a place, T = 2, and which pixels of 10 m changed (1) or did not (0).

    In most places something was built, felled, burned or flooded. Crops rotate, which is no change.

    Args:
        root: See `DemoCover`, also for the others.
        split: See there.
        modalities: See there.
        places: See there.
        size: See there.
        seed: See there.
        on_bad: See `LabelledDataset`.

    Raises:
        ValueError: There is no such modality, size or number of places.
        DataError: The cache cannot be written, or nothing is in this part.
    """

    task: Task = "change"

    def __init__(
        self,
        root: Path | str | None = None,
        split: str | None = None,
        *,
        modalities: Sequence[str] = tuple(MODALITIES),
        places: int = 256,
        size: int = 96,
        seed: int = 0,
        on_bad: OnBad = "stop",
    ) -> None:
        root = None if root is None else Path(root)
        folder = pair_shards(root, places=places, size=size, seed=seed)
        super().__init__(folder, ("No change", "Change"), split, modalities, (0, 1), on_bad)

    def _mask(self, number: int) -> np.ndarray | None:
        before, after = read_maps(self._folder)[number]
        fields = np.isin(before, FIELDS) & np.isin(after, FIELDS)
        return (before != after) & ~fields


def _start(at: np.ndarray, edge: int, size: int) -> int:
    """Returns where a window begins that has the middle of `at` in its own, on the 60 m grid."""
    start = (int(at.min() + at.max() + 1) - edge) // 2
    return min(max(start, 0), size - edge) // COARSEST * COARSEST


def _classes(legend: Mapping[str, tuple[Cover, ...]], cover: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, `IGNORE` where it has none."""
    numbers = np.full(len(Cover), IGNORE)
    for number, covers in enumerate(legend.values()):
        numbers[list(covers)] = number
    found: np.ndarray = numbers[cover]
    return found
