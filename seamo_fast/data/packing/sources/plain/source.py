"""Items that are read whole, of one size or cut into tiles of one size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar, Final

import numpy as np

from seamo_fast.data.packing.sources.base import Reading, TileError
from seamo_fast.data.packing.sources.formats.geo import tiff_footprint, tiff_position
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint
from seamo_fast.data.packing.sources.formats.names import has_ending
from seamo_fast.data.packing.sources.plain.tiles import check_size, cut
from seamo_fast.data.packing.sources.rules.lost import absurd, any_measured, check_bands
from seamo_fast.data.shards import ArraySpec, Remark, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

_LOOKS: Final = 8  # items that are read before packing begins, to see their sizes
_MOST_LOOKS: Final = 256  # until one can be read
_HINT: Final = "give --size N to cut all into tiles of N x N pixels"


class WholeImages(ABC):
    """A source whose items are images of any size.

    Without `size` all must have one size, which the first items that can be read have; with it they
    are cut into tiles, and those that are smaller than a tile are skipped.

    Args:
        path: Where the dataset is.
        release: Whose data they are.
        modalities: What each item holds.
        size: Edge of a tile in pixels of the finest grid.
        settings: What else decides what is read.

    Raises:
        ConfigError: No tile can have this size.
        DataError: No item can be read, or sizes differ and there is no `size`.
    """

    layout: ClassVar[str]
    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        release: str,
        modalities: Sequence[Modality],
        size: int | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.release = release
        self.modalities = tuple(modalities)
        check_size(size, modalities)
        self._size = size
        self.settings = {"layout": self.layout, **settings, "size": size}
        self.arrays, self._tiles_an_item = self._look()

    @abstractmethod
    def items(self) -> list[str]:
        """See `Source.items`."""

    @abstractmethod
    def files(self, item: str) -> Iterable[Path]:
        """See `Source.files`."""

    @abstractmethod
    def whole(self, item: str) -> Reading:
        """Returns an item in its own size.

        Raises:
            DataError: It cannot be read.
        """

    def estimate(self) -> int:
        """Returns the number of items times the tiles of those that were looked at."""
        return round(len(self.items()) * self._tiles_an_item)

    def read(self, item: str) -> Iterator[Reading]:
        """Yields the tiles of an item; groups of which nothing was measured are invalid.

        Raises:
            DataError: The item cannot be read, or is of another size than all or too small.
        """
        for reading in self._tiles(item):
            for modality in self.modalities:
                self._check(modality, reading)
            yield reading

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields the tiles of an item; see `Source.scan`."""
        tiff = self._tiff(item)
        footprint = tiff_footprint(tiff) if tiff else None
        for reading in self._tiles(item):
            prints: list[int] = []
            for name, flags in reading.valid.items():
                for t in np.flatnonzero(flags):
                    prints += fingerprint(band for grid in reading.arrays[name] for band in grid[t])
            yield Ground(reading.place or reading.id, footprint, tuple(prints))

    def _look(self) -> tuple[dict[str, ArraySpec], float]:
        """Returns dtype and shape of each array, and about how many tiles an item has."""
        found, problems, counts = dict[str, dict[str, ArraySpec]](), ["there is none"], list[int]()
        for item in (*_spread(self.items(), _LOOKS), *_spread(self.items(), _MOST_LOOKS)):
            if found and len(counts) >= _LOOKS:
                break
            try:
                tiles = list(self._cut(item))
            except DataError as error:
                problems.append(str(error))
                counts.append(0)
            else:
                counts.append(len(tiles))
                found[item] = _specs(self.modalities, tiles[0])
        if not found:
            problem = problems[:2][-1]
            names = ", ".join(f"{each.name} ({len(each.bands)} bands)" for each in self.modalities)
            raise DataError(f"{self.path} has no image that can be packed as {names}: {problem}")
        item, first = next(iter(found.items()))
        for other, specs in found.items():
            if any(specs[name].shape != first[name].shape for name in first):
                raise DataError(
                    f"images of {self.path} differ in size: {_sides(first)} ({item}), "
                    f"{_sides(specs)} ({other}); {_HINT}",
                    "mismatch",
                )
        return first, mean(counts)

    def _cut(self, item: str) -> Iterator[Reading]:
        reading = self.whole(item)
        tiff = self._tiff(item)
        reading.position = tiff_position(tiff) if tiff else None
        if self._size is None:
            yield reading
        else:
            yield from cut(self.modalities, reading, self._size)

    def _tiff(self, item: str) -> Path | None:
        """Returns the first file of an item that may say where it is."""
        tiffs = (path for path in self.files(item) if has_ending(path.name, (".tif", ".tiff")))
        return next(tiffs, None)

    def _tiles(self, item: str) -> Iterator[Reading]:
        for reading in self._cut(item):
            for array, spec in _specs(self.modalities, reading).items():
                if spec != self.arrays[array]:
                    expected = self.arrays[array]
                    raise DataError(
                        f"{item} has {spec.dtype} {list(spec.shape)}, but the first image that was "
                        f"read {expected.dtype} {list(expected.shape)}; {_HINT}",
                        "mismatch",
                    )
            yield reading

    def _check(self, modality: Modality, reading: Reading) -> None:
        """Makes groups invalid of which a band holds nothing, and says why."""
        name = modality.name
        for t, valid in enumerate(reading.valid[name]):
            grids = [grid[t] for grid in reading.arrays[name]]
            seasons = len(reading.valid[name])
            what = reading.id if seasons == 1 else f"{reading.id} season {t}"
            if not valid:
                continue
            try:
                if not any_measured(grids, modality.nodata, modality.limit):
                    raise TileError(f"no pixel of {name} is measured", "unmeasured")
                reading.noted += check_bands(modality, grids)
            except TileError as error:
                reading.skipped.append(Remark(what, str(error), error.kind))
                reading.valid[name][t], reading.dates[name][t] = False, None
                reading.arrays[name] = [_without(grid, t) for grid in reading.arrays[name]]
            else:
                reading.noted += absurd(what, modality, grids)


def _spread(items: Sequence[str], count: int) -> Sequence[str]:
    """Returns so many items from all over a list, or all."""
    return items[:: max(1, len(items) // count)][:count]


def _specs(modalities: Sequence[Modality], reading: Reading) -> dict[str, ArraySpec]:
    return {
        array: ArraySpec(grid.dtype.name, grid.shape)
        for modality in modalities
        for array, grid in zip(array_names(modality), reading.arrays[modality.name], strict=True)
    }


def _sides(specs: Mapping[str, ArraySpec]) -> str:
    return " x ".join(map(str, next(iter(specs.values())).shape[-2:]))


def _without(grid: np.ndarray, t: int) -> np.ndarray:
    """Returns a grid [T, Cg, Hg, Wg] whose season t is zeros."""
    grid = grid.copy()
    grid[t] = 0
    return grid
