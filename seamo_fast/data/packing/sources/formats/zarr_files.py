"""Files of SSL4EO-S12 v1.1: many locations in a zarr group, or one zarr group each in a tar."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from seamo_fast.data.packing.sources.formats.geo import square
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint
from seamo_fast.data.packing.sources.formats.metadata import (
    Said,
    check_axes,
    said_by_attributes,
)
from seamo_fast.data.packing.sources.formats.names import twins
from seamo_fast.data.packing.sources.formats.tars import TarIndex
from seamo_fast.data.packing.sources.formats.times import dates_since
from seamo_fast.data.packing.sources.formats.zarrzip import ZarrArray, ZarrZip
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

_EXTENT: Final = 2640  # metres
_ENDING: Final = ".zarr.zip"
_MOST_MEMBER: Final = 2**27  # bytes of one location in a tar file
_MOST_TIMES: Final = 64
_MOST_PLACE: Final = 2**28  # decoded bytes of one location
_MOST_PLACES: Final = 2**16
_AXES: Final = ("sample", "time", "band", "y", "x")
_TIME_OF_PLACE: Final = re.compile(r"_\d$")  # 0080717_3 is the fourth date of 0080717


class Series(NamedTuple):
    """One location in one modality.

    Attributes:
        tiles: [time, C, H, W], as stored.
        dates: Of each time, None where unknown.
        position: Longitude and latitude, None where unknown.
        place: Its name in the dataset.
        lost: Times of which a piece is not in the file, and which.
        said: What the file says of the numbers of all bands.
    """

    tiles: np.ndarray
    dates: list[date | None]
    position: tuple[float, float] | None
    place: str
    lost: dict[int, str]
    said: Said


class SeriesFile(Protocol):
    """One file of one modality, opened for reading; a context manager.

    Attributes:
        places: Names of its locations, in order.
    """

    places: list[str]

    def __enter__(self) -> SeriesFile: ...

    def __exit__(self, *_: object) -> None: ...

    def read(self, place: str) -> Series:
        """Returns a location.

        Raises:
            DataError: It is damaged.
        """
        ...

    def scan(self, place: str) -> Ground:
        """Returns where a location is, and what its tiles hold: if it can, by checksums alone.

        Raises:
            DataError: It is damaged.
        """
        ...


def open_series(path: Path, modality: Modality) -> SeriesFile:
    """Opens a .zarr.zip file, or a .tar file of such.

    Raises:
        DataError: It is damaged, or holds other bands than the modality.
    """
    if path.suffix.lower() == ".tar":
        return _TarFile(path, modality)
    return _ZarrFile(path, modality)


class _ZarrFile:
    """Many locations: bands [sample, time, band, y, x]."""

    def __init__(self, path: Path, modality: Modality) -> None:
        self._group = ZarrZip(path, str(path))
        try:
            self._bands = _bands(self._group, modality, 5)
            self._said = _said(self._bands, self._group.name)
            count, times = self._bands.shape[:2]
            names = self._group.array("sample").all().astype(str).reshape(-1).tolist()
            if len(names) != count:
                raise DataError(f"{path} names {len(names)} locations for {count} samples")
            for name, other in twins(names).items():
                raise DataError(f"{path} names two of its samples {name} and {other}", "name")
            self._dates = _dates(self._group, count, times)
            self._positions = _positions(self._group, count)
        except BaseException:
            self._group.__exit__(None, None, None)
            raise
        self.places: list[str] = names

    def __enter__(self) -> SeriesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._group.__exit__(None, None, None)

    def read(self, place: str) -> Series:
        row = self.places.index(place)
        tiles, lost = self._bands.row(row), _lost(self._bands, row)
        return Series(tiles, self._dates[row], self._positions[row], place, lost, self._said)

    def scan(self, place: str) -> Ground:
        row = self.places.index(place)
        prints = self._bands.checksums(row)
        if prints is None:
            prints = [each for tile in self._bands.row(row) for each in fingerprint(tile)]
        return _ground(place, self._positions[row], prints)


class _TarFile:
    """A WebDataset shard: a .zarr.zip member a location, bands [time, band, y, x].

    The key of a location is the member's name without folder and ending; it may have dots.
    """

    def __init__(self, path: Path, modality: Modality) -> None:
        self._modality = modality
        self._index = TarIndex(path)
        members = [name for name in self._index.members if name.lower().endswith(_ENDING)]
        for name, other in twins(members, lambda name: _key(name).casefold()).items():
            raise DataError(f"{path} holds two samples of one name: {other} and {name}", "name")
        self._names = {_key(name): name for name in members}
        self.places = list(self._names)

    def __enter__(self) -> SeriesFile:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, place: str) -> Series:
        with self._open(place) as group:
            bands = _bands(group, self._modality, 4)
            if len(bands.shape) == 5:  # a leading axis of one sample
                tiles, lost = bands.row(0), _lost(bands, 0)
            else:
                times = range(bands.shape[0])
                tiles = np.stack([bands.row(t) for t in times])
                lost = {t: _lacks(chunks[0][1]) for t in times if (chunks := bands.absent(t))}
            position, said = _positions(group, 1)[0], _said(bands, group.name)
            dates = _dates(group, 1, len(tiles))[0]
            return Series(tiles, dates, position, _name(group, place), lost, said)

    def scan(self, place: str) -> Ground:
        with self._open(place) as group:
            prints = list(group.checksums("bands").values())
            return _ground(_name(group, place), _positions(group, 1)[0], prints)

    def _open(self, place: str) -> ZarrZip:
        name = self._names[place]
        data = self._index.read(name, _MOST_MEMBER)
        return ZarrZip(io.BytesIO(data), f"{self._index.path} {name}")


def _key(member: str) -> str:
    return member.rsplit("/", 1)[-1][: -len(_ENDING)]


def _lost(bands: ZarrArray, row: int) -> dict[int, str]:
    """Returns the times of a row [time, band, y, x] of which a chunk is not there, and which."""
    lost: dict[int, str] = {}
    for place, member in bands.absent(row):
        first = place[0] * bands.chunks[1]
        for time in range(first, min(first + bands.chunks[1], bands.shape[1])):
            lost.setdefault(time, _lacks(member))
    return lost


def _lacks(member: str) -> str:
    return f"the chunk {member} is not in the file"


def _ground(place: str, position: tuple[float, float] | None, prints: list[int]) -> Ground:
    footprint = None if position is None else square(position, _EXTENT)
    return Ground(place, footprint, tuple(prints))


def _bands(group: ZarrZip, modality: Modality, axes: int) -> ZarrArray:
    bands = group.array("bands")
    shape = bands.shape if len(bands.shape) == 5 else (1, *bands.shape)
    one = len(bands.shape) == axes or (axes == 4 and shape[0] == 1)
    if not one or len(shape) != 5 or min(shape) < 1:
        raise DataError(f"{group.name}: bands have shape {list(bands.shape)}; expected {axes} axes")
    size = math.prod(shape[1:]) * bands.dtype.itemsize
    if shape[0] > _MOST_PLACES or shape[1] > _MOST_TIMES or size > _MOST_PLACE:
        raise DataError(f"{group.name}: bands have the absurd shape {list(bands.shape)}")
    try:
        if "band" in group:
            modality.check_bands(group.array("band").all().astype(str).reshape(-1).tolist())
    except ValueError as error:
        raise DataError(f"{group.name}: {error}") from error
    if shape[2] != len(modality.bands):
        raise DataError(
            f"{group.name} has {shape[2]} bands; modality {modality.name!r} has "
            f"{len(modality.bands)}"
        )
    return bands


def _said(bands: ZarrArray, name: str) -> Said:
    attributes, fill = bands.attributes, bands.fill_value
    if fill and "_FillValue" not in attributes:
        attributes = {**attributes, "_FillValue": fill}
    axes = attributes.get("_ARRAY_DIMENSIONS")
    try:
        said = said_by_attributes(attributes, bands.dtype)
    except ValueError as error:
        raise DataError(f"{name}: array bands {error}", "metadata") from error
    try:
        if isinstance(axes, list):
            check_axes([str(axis) for axis in axes], _AXES[-len(bands.shape) :])
    except ValueError as error:
        raise DataError(f"{name}: array bands {error}", "axes") from error
    return said


def _dates(group: ZarrZip, count: int, times: int) -> list[list[date | None]]:
    """Returns the dates [count][times]; None where there are none."""
    name = "time_" if "time_" in group else "time"
    unknown: list[list[date | None]] = [[None] * times for _ in range(count)]
    if name not in group:
        return unknown
    array = group.array(name)
    values = array.all()
    if values.size != count * times:
        raise DataError(f"{group.name}: {name} has shape {list(values.shape)}")
    try:
        flat = _days(values.reshape(-1), array)
    except ValueError as error:
        raise DataError(f"{group.name}: {name}: {error}") from error
    return (
        [list(flat[row * times : (row + 1) * times]) for row in range(count)] if flat else unknown
    )


def _days(values: np.ndarray, array: ZarrArray) -> Sequence[date | None]:
    if values.dtype.kind == "M":
        days = values.astype("M8[D]")
        return [None if np.isnat(day) else _date(day) for day in days]
    units = array.attributes.get("units")
    if not isinstance(units, str) or values.dtype.kind not in "iuf":
        return []  # numbers of the seasons, no dates
    missing = -(2**63)  # what xarray writes for "not a time"
    known = [value for value in values.tolist() if value == value and value != missing]
    found = iter(dates_since(known, units, str(array.attributes.get("calendar", "standard"))))
    return [
        next(found) if value == value and value != missing else None for value in values.tolist()
    ]


def _date(day: np.datetime64) -> date:
    found = day.astype(object)
    if not isinstance(found, date):
        raise ValueError("a date beyond the calendar")
    return found


def _positions(group: ZarrZip, count: int) -> list[tuple[float, float] | None]:
    unknown: list[tuple[float, float] | None] = [None] * count
    if "center_lat" not in group or "center_lon" not in group:
        return unknown
    latitude, longitude = group.array("center_lat").all(), group.array("center_lon").all()
    if latitude.size != count or longitude.size != count or latitude.dtype.kind != "f":
        return unknown
    pairs = zip(longitude.reshape(-1).tolist(), latitude.reshape(-1).tolist(), strict=True)
    return [(x, y) if abs(x) <= 360 and abs(y) <= 90 else None for x, y in pairs]


def _name(group: ZarrZip, default: str) -> str:
    for name in ("sample", "sample_id"):
        if name in group:
            values = group.array(name).all().astype(str).reshape(-1).tolist()
            if values:
                return _TIME_OF_PLACE.sub("", values[0])
    return default
