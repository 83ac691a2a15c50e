"""Time series of one place in a NetCDF file; images.py has those in GeoTIFFs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.geo import Footprint
from seamo_fast.data.packing.sources.formats.hdf5 import open_hdf5, own_variable
from seamo_fast.data.packing.sources.formats.metadata import Said, check_axes, said_by_attributes
from seamo_fast.data.packing.sources.formats.times import dates_since
from seamo_fast.data.packing.sources.images import ImageCube
from seamo_fast.data.packing.sources.mapping import Mapping
from seamo_fast.data.packing.sources.rules.declared import Pixels
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError

_MOST: Final = 2**28  # bytes of one date, or of one chunk, of a variable
_MOST_DATES: Final = 2**16
_UNWRITTEN: Final = np.float32(9.969209968386869e36)  # NC_FILL_FLOAT and NC_FILL_DOUBLE


class Cube(Protocol):
    """A time series of one place.

    Attributes:
        dates: Ascending dates of all modalities; one None for tiles without a date.
        problems: What was found but cannot be used, and why.
        place: Name of the place.
    """

    dates: list[date | None]
    problems: list[Remark]
    place: str

    def days(self, modality: str) -> list[date | None]:
        """Returns the dates of one modality, ascending."""
        ...

    def passes(self, modality: str, day: date | None) -> list[str]:
        """Returns the names of the acquisitions of a modality on a day, in the order of time."""
        ...

    def read(self, modality: str, day: date | None, number: int = 0) -> Pixels:
        """Returns an acquisition of `passes`, as stored.

        Raises:
            TileError: It cannot be read.
        """
        ...

    def baseline(self, modality: str, day: date | None, number: int = 0) -> float | None:
        """Returns the processing baseline that an acquisition's files are named by, if any."""
        ...

    def bands(self, modality: str, day: date | None) -> Iterator[np.ndarray]:
        """Yields the bands of a modality at a date one by one, each [H, W]; none if it has none.

        Raises:
            TileError: One cannot be read.
        """
        ...

    def position(self) -> tuple[float, float] | None:
        """Returns longitude and latitude in degrees, None where unknown."""
        ...

    def footprint(self) -> Footprint | None:
        """Returns longitude and latitude of the corners in degrees, None where unknown."""
        ...


@contextmanager
def open_cube(root: Path, item: str, mapping: Mapping) -> Iterator[Cube]:
    """Opens a NetCDF file, or the GeoTIFFs of one sample, as the mapping says.

    Raises:
        DataError: It cannot be read or does not fit the mapping.
    """
    if mapping.format == "geotiff":
        yield ImageCube(root, item, mapping)
        return
    path = root if root.is_file() else root / item
    with _open_hdf5(path) as file:
        try:
            cube = NetCDFCube(file, path, item, mapping)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{path} cannot be read as NetCDF-4: {error}") from error
        yield cube


def _open_hdf5(path: Path) -> Any:
    try:
        return open_hdf5(path)
    except OSError as error:
        if _starts_with(path, b"CDF"):
            raise DataError(
                f"{path} is a classic NetCDF file; convert it with `nccopy -k nc4 IN OUT`"
            ) from error
        raise DataError(f"{path} cannot be read as NetCDF-4: {error}") from error


def _starts_with(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


class _Band(NamedTuple):
    """A variable, read once.

    Attributes:
        variable: Of h5py.
        unsigned: Its integers stand for unsigned ones.
        sparse: Some of its chunks were never written.
        said: What it says of its numbers.
    """

    variable: Any
    unsigned: bool
    sparse: bool
    said: Said


def _open_band(variable: Any, path: Path) -> _Band:
    return _Band(variable, _unsigned(variable), _is_sparse(variable), _said(variable, path))


class NetCDFCube:
    """Variables [time, y, x] of a NetCDF-4 file, read without scaling or masking."""

    def __init__(self, file: Any, path: Path, item: str, mapping: Mapping) -> None:
        self.problems: list[Remark] = []
        self.place = item
        self._grids = {name: each.modality(name).grids for name, each in mapping.modalities.items()}
        variables = {
            name: [_variable(file, path, str(variable)) for variable in each.bands.values()]
            for name, each in mapping.modalities.items()
        }
        clock = _variable(file, path, mapping.time)
        self._steps = _time_axis(clock, path)
        self.dates: list[date | None] = [*self._steps]
        for each in variables.values():
            for variable in each:
                self._check(variable, path, mapping.time)
                _check_order(variable, path, clock)
        self._bands = {
            name: [_open_band(variable, path) for variable in each]
            for name, each in variables.items()
        }

    def _check(self, variable: Any, path: Path, time: str) -> None:
        steps = sum(map(len, self._steps.values()))
        if variable.ndim != 3 or len(variable) != steps:
            raise DataError(
                f"{path}: variable {variable.name[1:]} has shape {list(variable.shape)}; "
                f"expected [{steps}, y, x] by the time axis {time!r}"
            )
        size = math.prod(variable.shape[1:]) * variable.dtype.itemsize
        chunk = math.prod(variable.chunks or (1,)) * variable.dtype.itemsize
        if max(size, chunk) > _MOST:
            raise DataError(
                f"{path}: variable {variable.name[1:]} has the absurd shape {list(variable.shape)} "
                f"in chunks of {list(variable.chunks or ())}"
            )

    def days(self, modality: str) -> list[date | None]:
        """Returns the dates of one modality; all share the time axis."""
        return self.dates

    def passes(self, modality: str, day: date | None) -> list[str]:
        """Returns the time steps of a day; all modalities have them."""
        assert day is not None
        return [f"time {step}" for step in self._steps[day]]

    def read(self, modality: str, day: date | None, number: int = 0) -> Pixels:
        """Returns a time step of a day; see `Cube.read`."""
        assert day is not None
        step = self._steps[day][number]
        try:
            for band in self._bands[modality]:
                if band.sparse and _lacks_pieces(band.variable, step):
                    name = band.variable.name[1:]
                    raise TileError(f"pieces of {name} were never written, time {step}", "missing")
            bands = [_stored(band, step) for band in self._bands[modality]]
            grids = [
                np.stack([bands[channel] for channel in grid.bands])
                for grid in self._grids[modality]
            ]
            return Pixels(grids, tuple(band.said for band in self._bands[modality]))
        except TileError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise TileError(str(error)) from error

    def baseline(self, modality: str, day: date | None, number: int = 0) -> float | None:
        """Returns None: the files of a tile have no names of their own."""
        return None

    def bands(self, modality: str, day: date | None) -> Iterator[np.ndarray]:
        """Yields the bands of a modality at a date; see `Cube.bands`."""
        assert day is not None
        try:
            for band in self._bands[modality]:
                yield _stored(band, self._steps[day][0])
        except (OSError, ValueError, RuntimeError) as error:
            raise TileError(str(error)) from error

    def position(self) -> tuple[float, float] | None:
        """Returns None: a place of a NetCDF file is known by its name alone."""
        return None

    def footprint(self) -> Footprint | None:
        """Returns None, like `position`."""
        return None


def _variable(file: Any, path: Path, name: str) -> Any:
    variable = own_variable(file, path, name)
    if variable is None:
        raise DataError(f"{path} has no variable {name!r}; it holds {', '.join(sorted(file))}")
    return variable


def _is_sparse(variable: Any) -> bool:
    """Whether some chunks of a variable [time, y, x] were never written."""
    if variable.chunks is None:
        return bool(variable.id.get_storage_size() == 0)
    counts = (-(-size // step) for size, step in zip(variable.shape, variable.chunks, strict=True))
    return bool(variable.id.get_num_chunks() < math.prod(counts))


def _lacks_pieces(variable: Any, step: int) -> bool:
    """Whether a chunk of a time step was never written, so that only the fill value is there."""
    if variable.chunks is None:
        return True
    depth, *sides = variable.chunks
    rows = [range(0, size, side) for size, side in zip(variable.shape[1:], sides, strict=True)]
    starts = product([step // depth * depth], *rows)
    return any(variable.id.get_chunk_info_by_coord(start).size == 0 for start in starts)


def _stored(band: _Band, step: int) -> np.ndarray:
    values: np.ndarray = band.variable[step]
    if band.unsigned:
        values = values.view(values.dtype.str.replace("i", "u"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _unsigned(variable: Any) -> bool:
    """The netCDF convention for unsigned integers in files that have only signed types."""
    return _text(variable.attrs.get("_Unsigned")) == "true" and variable.dtype.kind == "i"


def _said(variable: Any, path: Path) -> Said:
    try:
        said = said_by_attributes(variable.attrs, variable.dtype, unsigned=_unsigned(variable))
    except ValueError as error:
        raise DataError(f"{path}: variable {variable.name[1:]} {error}", "metadata") from error
    # what the netCDF library writes where nothing was, unless the file names a value
    unwritten = np.float32(variable.fillvalue) if variable.dtype.kind == "f" else None
    if unwritten == _UNWRITTEN and not said.nodata and "_FillValue" not in variable.attrs:
        return said._replace(nodata=(float(variable.fillvalue),))
    return said


def _check_order(variable: Any, path: Path, time: Any) -> None:
    """Raises DataError if the names of a variable's dimensions say that it is not [time, y, x]."""
    (clock,) = [_short(time)] if time.is_scale else _dimensions(time)
    try:
        check_axes(_dimensions(variable), ("time", "y", "x"), clock)
    except ValueError as error:
        raise DataError(f"{path}: variable {variable.name[1:]} {error}", "axes") from error


def _dimensions(variable: Any) -> list[str]:
    """Returns the names of the dimensions, "" where they have none."""
    if "DIMENSION_LIST" not in variable.attrs:
        return [""] * variable.ndim
    return [_short(scales[0]) if len(scales) else "" for scales in variable.dims]


def _short(variable: Any) -> str:
    return str(variable.name).rsplit("/", 1)[-1]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _time_axis(variable: Any, path: Path) -> dict[date, list[int]]:
    """Returns the days of a time axis, ascending, and the steps of each in the order of time."""
    if variable.ndim != 1 or len(variable) > _MOST_DATES:
        raise DataError(f"{path}: the time axis has shape {list(variable.shape)}", "axes")
    units = _text(variable.attrs.get("units", ""))
    calendar = _text(variable.attrs.get("calendar", "standard"))
    times = variable[:].tolist()
    try:
        dates = dates_since(times, units, calendar)
    except ValueError as error:
        raise DataError(f"{path}: {error}", "date") from error
    days: dict[date, list[int]] = {}
    for step in sorted(range(len(times)), key=times.__getitem__):
        days.setdefault(dates[step], []).append(step)
    return days
