"""Samples of GeoTIFF, JPEG and PNG files that the patterns of a mapping find below a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.base import TileError, product_baseline
from seamo_fast.data.packing.sources.formats.geo import (
    Footprint,
    tiff_footprint,
    tiff_position,
)
from seamo_fast.data.packing.sources.formats.metadata import SILENT
from seamo_fast.data.packing.sources.formats.names import has_ending, is_hidden, lower_ending, walk
from seamo_fast.data.packing.sources.formats.pictures import PICTURE_SUFFIXES, read_picture
from seamo_fast.data.packing.sources.formats.tiff_images import TiffImage, read_tiff
from seamo_fast.data.packing.sources.formats.times import parse_time
from seamo_fast.data.packing.sources.mapping import Mapping, ModalityMapping
from seamo_fast.data.packing.sources.rules.declared import Pixels
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.modalities import canonical_band

_ENDINGS: Final = (".tif", ".tiff")
# the files of one tile: the band that each holds, "" for a file of all bands -> path
Tile = dict[str, Path]


@dataclass
class ImageSample:
    """The files of one sample.

    Attributes:
        place: Name of its place.
        tiles: For each modality its times, None for files without one, and the files of each.
        twice: Modality and day of tiles of which a band comes twice, and both files.
        problems: Files that could not be placed, and why.
        files: All files, those that cannot be used too.
    """

    place: str
    tiles: dict[str, dict[datetime | None, Tile]] = field(default_factory=dict)
    twice: dict[tuple[str, date | None], str] = field(default_factory=dict)
    problems: list[Remark] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def add(self, modality: str, time: datetime | None, band: str, path: Path, root: Path) -> None:
        """Takes in a file; where there is one of the same band, neither can be used."""
        tile = self.tiles.setdefault(modality, {}).setdefault(time, {})
        same = [other for other in tile if canonical_band(other) == canonical_band(band)]
        if same:
            both = f"{tile[same[0]].relative_to(root)}, {path.relative_to(root)}"
            what = f"band {canonical_band(band)} comes twice" if band else "two files of one tile"
            self.twice.setdefault((modality, time and time.date()), f"{what}: {both}")
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
    for name, is_folder in _files(root):
        plain = lower_ending(name)
        for modality, pattern in patterns:
            match = pattern.fullmatch(plain) or (plain != name and pattern.fullmatch(name))
            if not match:
                continue
            groups = {group: text or "" for group, text in match.groupdict().items()}
            sample, place = mapping.sample.format(**groups), mapping.place.format(**groups)
            found = samples.setdefault(sample, ImageSample(place))
            found.files.append(root / name)
            if is_folder:
                found.problems.append(Remark(name, "it is a folder; expected a file", "unreadable"))
                continue
            try:
                time = _time(groups)
            except ValueError as error:
                found.problems.append(Remark(name, str(error), "date"))
                continue
            found.add(modality, time, groups.get("band", ""), found.files[-1], root)
    return dict(sorted(samples.items()))


def _time(groups: dict[str, str]) -> datetime | None:
    """Returns the date that a name says, None if the pattern has no group for it.

    Raises:
        ValueError: It is no date, or could mean several.
    """
    if "date" in groups:
        return parse_time(groups["date"])
    if {"year", "month", "day"} <= groups.keys():
        return parse_time(f"{groups['year']}-{groups['month']}-{groups['day']}")
    return None


def _files(root: Path) -> Iterator[tuple[str, bool]]:
    """Yields the path of every file below `root`, sorted.

    Folders that are called as an image is come too, with True.
    """
    for prefix, folders, files in walk(root):
        yield from ((prefix + name, True) for name in folders if has_ending(name, _ENDINGS))
        yield from ((prefix + name, False) for name in files if not is_hidden(name))


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
        self._twice = sample.twice
        self._tiles = {name: _by_day(found) for name, found in sample.tiles.items()}
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

    def passes(self, modality: str, day: date | None) -> list[str]:
        """Returns the acquisitions of a modality on a day, by the names of their first files."""
        tiles = self._tiles.get(modality, {}).get(day, [])
        return [next(iter(tile.values())).name for tile in tiles]

    def read(self, modality: str, day: date | None, number: int = 0) -> Pixels:
        """Returns an acquisition; see `Cube.read`."""
        if (modality, day) in self._twice:
            raise TileError(self._twice[modality, day], "name")
        return _read_tile(self._mapping.modalities[modality], self._tiles[modality][day][number])

    def baseline(self, modality: str, day: date | None, number: int = 0) -> float | None:
        """Returns the processing baseline in the path of an acquisition's first file, if any."""
        path = next(iter(self._tiles[modality][day][number].values()))
        return product_baseline(str(path.relative_to(self._root)))

    def bands(self, modality: str, day: date | None) -> Iterator[np.ndarray]:
        """Yields the bands of a modality at a date; see `Cube.bands`."""
        tile = self._tiles[modality][day][0]
        mapping = self._mapping.modalities[modality]
        if "" in tile:
            yield from _read_tile(mapping, tile).grids[0]
        else:
            yield from (_single(tile, str(number)).values for number in mapping.bands.values())

    def position(self) -> tuple[float, float] | None:
        """Returns longitude and latitude by the first file of the place."""
        return _position_of(self._root, self._mapping.key, self.place)

    def footprint(self) -> Footprint | None:
        """Returns the corners of the first file of the first modality that says where it is."""
        for found in self._tiles.values():
            footprint = tiff_footprint(next(iter(next(iter(found.values()))[0].values())))
            if footprint is not None:
                return footprint
        return None


def _by_day(times: dict[datetime | None, Tile]) -> dict[date | None, list[Tile]]:
    """Returns the tiles of each day, in the order of their times.

    Bands whose files say different times are one tile, as long as none comes twice.
    """
    days: dict[date | None, list[Tile]] = {}
    for time in sorted(times, key=lambda each: each or datetime.min):
        tiles = days.setdefault(time and time.date(), [])
        if tiles and not tiles[-1].keys() & times[time].keys():
            tiles[-1] = tiles[-1] | times[time]
        else:
            tiles.append(times[time])
    return days


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
    image = _open_image(path, {needed, len(channels)})
    values = image.values if image.values.ndim == 3 else image.values[None]
    if needed > len(values):
        raise TileError(f"{path.name} has {len(values)} bands, expected at least {needed}", "axes")
    said = tuple(image.said[channel] for channel in channels)
    return Pixels([values[channels]], said, (image.measured,) * len(channels))


def _open_image(path: Path, stacked: Collection[int] = ()) -> TiffImage:
    """Returns the image of a TIFF, JPEG or PNG file; see `read_tiff`."""
    if not has_ending(path.name, PICTURE_SUFFIXES):
        return read_tiff(path, stacked=stacked)
    values = read_picture(path, (), (None, None, None))
    return TiffImage(values, (SILENT,) * len(values))


def _single(tile: Tile, band: str) -> TiffImage:
    """Returns the image [H, W] of a band."""
    if band not in tile:
        raise TileError(f"no file of band {band}; there are {', '.join(sorted(tile))}", "missing")
    image = _open_image(tile[band])
    if image.values.ndim == 3 and len(image.values) == 1:
        return image._replace(values=image.values[0])
    if image.values.ndim != 2:
        raise TileError(f"{tile[band].name} has {len(image.values)} bands, expected one", "axes")
    return image
