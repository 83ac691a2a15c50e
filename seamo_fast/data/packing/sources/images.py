"""Samples made of GeoTIFF files that the patterns of a mapping find below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np

from seamo_fast.data.packing.sources.base import TileError, product_baseline
from seamo_fast.data.packing.sources.declared import Pixels
from seamo_fast.data.packing.sources.formats.geo import (
    Footprint,
    tiff_footprint,
    tiff_position,
)
from seamo_fast.data.packing.sources.formats.tiff_images import TiffImage, read_tiff
from seamo_fast.data.packing.sources.formats.times import parse_date
from seamo_fast.data.packing.sources.mapping import Mapping, ModalityMapping
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError

# the files of one tile: the band that each holds, "" for a file of all bands -> path
Tile = dict[str, Path]


@dataclass
class ImageSample:
    """The files of one sample.

    Attributes:
        place: Name of its place.
        tiles: For each modality its dates, None for files without one, and the files of each.
        problems: Files that could not be placed, and why.
    """

    place: str
    tiles: dict[str, dict[date | None, Tile]] = field(default_factory=dict)
    problems: list[Remark] = field(default_factory=list)

    def add(self, modality: str, day: date | None, band: str, path: Path, name: str) -> None:
        """Takes in a file; two of the same kind are a problem."""
        tile = self.tiles.setdefault(modality, {}).setdefault(day, {})
        if band in tile:
            why = f"another file of the same tile: {tile[band].name}"
            self.problems.append(Remark(name, why, "name"))
        else:
            tile[band] = path


@lru_cache(maxsize=8)
def index_images(root: Path, key: str) -> dict[str, ImageSample]:
    """Returns the samples below `root`, by name; `key` is `Mapping.key`."""
    mapping = Mapping.from_key(key)
    patterns = [
        (name, pattern) for name, each in mapping.modalities.items() for pattern in each.patterns
    ]
    samples: dict[str, ImageSample] = {}
    for name in _files(root):
        for modality, pattern in patterns:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            groups = {group: text or "" for group, text in match.groupdict().items()}
            sample, place = mapping.sample.format(**groups), mapping.place.format(**groups)
            found = samples.setdefault(sample, ImageSample(place))
            try:
                day = parse_date(groups["date"]) if "date" in groups else None
            except ValueError as error:
                found.problems.append(Remark(name, str(error), "date"))
                continue
            found.add(modality, day, groups.get("band", ""), root / name, name)
    return dict(sorted(samples.items()))


def _files(root: Path) -> Iterator[str]:
    """Yields the path of every file below `root`, sorted; folders behind links count once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        state = os.stat(folder)  # noqa: PTH116 (the name is text already)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders.sort()
        below = os.path.relpath(folder, root)
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in sorted(files) if not name.startswith("."))


class ImageCube:
    """The tiles of one sample as a time series; its axis is the union of the dates.

    Attributes:
        dates: Ascending; one None for tiles without a date.
        problems: Files that could not be placed, and why.
        place: Name of the place.
    """

    def __init__(self, root: Path, item: str, mapping: Mapping) -> None:
        try:
            sample = index_images(root, mapping.key)[item]
        except KeyError:
            raise DataError(f"{root} has no files of {item} any more") from None
        self._root = root
        self._mapping = mapping
        self._tiles = sample.tiles
        self.problems = sample.problems
        self.place = sample.place
        days = {day for found in self._tiles.values() for day in found}
        dated = sorted(day for day in days if day is not None)
        self.dates: list[date | None] = [*dated] or [None] * bool(days)

    def days(self, modality: str) -> list[date | None]:
        """Returns the dates of one modality, ascending."""
        found = self._tiles.get(modality, {})
        dated = sorted(day for day in found if day is not None)
        return [*([None] if None in found else []), *dated]

    def read(self, modality: str, day: date | None) -> Pixels | None:
        """Returns a modality at a date; see `Cube.read`."""
        tile = self._tiles.get(modality, {}).get(day)
        if tile is None:
            return None
        return _read_tile(self._mapping.modalities[modality], tile)

    def baseline(self, modality: str, day: date | None) -> float | None:
        """Returns the processing baseline in the path of a tile's first file, if any."""
        path = next(iter(self._tiles.get(modality, {}).get(day, {}).values()), None)
        return None if path is None else product_baseline(str(path.relative_to(self._root)))

    def bands(self, modality: str, day: date | None) -> Iterator[np.ndarray]:
        """Yields the bands of a modality at a date; see `Cube.bands`."""
        tile = self._tiles.get(modality, {}).get(day, {})
        mapping = self._mapping.modalities[modality]
        if "" in tile:
            yield from _read_tile(mapping, tile).grids[0]
        elif tile:
            yield from (_single(tile, str(number)).values for number in mapping.bands.values())

    def position(self) -> tuple[float, float] | None:
        """Returns longitude and latitude by the first file of the place."""
        return _position_of(self._root, self._mapping.key, self.place)

    def footprint(self) -> Footprint | None:
        """Returns the corners of the first file of the first modality that says where it is."""
        for found in self._tiles.values():
            footprint = tiff_footprint(next(iter(next(iter(found.values())).values())))
            if footprint is not None:
                return footprint
        return None


@lru_cache(maxsize=4096)
def _position_of(root: Path, key: str, place: str) -> tuple[float, float] | None:
    path = _first_files(root, key).get(place)
    return None if path is None else tiff_position(path)


@lru_cache(maxsize=8)
def _first_files(root: Path, key: str) -> dict[str, Path]:
    """Returns the first file of each place."""
    first: dict[str, Path] = {}
    for sample in index_images(root, key).values():
        for tile in (tile for found in sample.tiles.values() for tile in found.values()):
            for path in tile.values():
                first.setdefault(sample.place, path)
    return first


def _read_tile(mapping: ModalityMapping, tile: Tile) -> Pixels:
    grids = mapping.modality("tile").grids
    numbers = list(mapping.bands.values())
    if "" not in tile:
        images = [_single(tile, str(number)) for number in numbers]
        grouped = [[images[channel].values for channel in grid.bands] for grid in grids]
        if any(len({values.shape for values in group}) > 1 for group in grouped):
            shapes = ", ".join(str(list(image.values.shape)) for image in images)
            raise TileError(f"bands of one grid differ in size: {shapes}", "mismatch")
        said = tuple(image.said[0] for image in images)
        masks = tuple(image.measured for image in images)
        return Pixels([np.stack(group) for group in grouped], said, masks)
    path = tile[""]
    channels = [int(number) - 1 for number in numbers]
    needed = max(channels) + 1
    image = read_tiff(path, stacked={needed, len(channels)})
    values = image.values if image.values.ndim == 3 else image.values[None]
    if needed > len(values):
        raise TileError(f"{path.name} has {len(values)} bands, expected at least {needed}", "axes")
    said = tuple(image.said[channel] for channel in channels)
    return Pixels([values[channels]], said, (image.measured,) * len(channels))


def _single(tile: Tile, band: str) -> TiffImage:
    """Returns the image [H, W] of a band."""
    if band not in tile:
        raise TileError(f"no file of band {band}; there are {', '.join(sorted(tile))}", "missing")
    image = read_tiff(tile[band])
    if image.values.ndim == 3 and len(image.values) == 1:
        return image._replace(values=image.values[0])
    if image.values.ndim != 2:
        raise TileError(f"{tile[band].name} has {len(image.values)} bands, expected one", "axes")
    return image
