"""Time series of one place in a NetCDF file; images.py has those in GeoTIFFs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.geo import Footprint
from seamo_fast.data.packing.sources.formats.times import dates_since
from seamo_fast.data.packing.sources.images import ImageCube
from seamo_fast.data.packing.sources.mapping import Mapping
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError

_MOST: Final = 2**28  # bytes of one date, or of one chunk, of a variable
_MOST_DATES: Final = 2**16


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

    def read(self, modality: str, day: date | None, number: int = 0) -> list[np.ndarray]:
        """Returns an acquisition of `passes`, one [Cg, Hg, Wg] a grid.

        Raises:
            TileError: It cannot be read.
        """
        ...

    def baseline(self, modality: str, day: date | None) -> float | None:
        """Returns the processing baseline that the files of a tile are named by, if any."""
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
        import h5py
    except ImportError:
        raise DataError(
            "reading NetCDF needs h5py; install it with `pip install 'seamo_fast[geo]'`"
        ) from None
    try:
        return h5py.File(path, "r")
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


class NetCDFCube:
    """Variables [time, y, x] of a NetCDF-4 file, read without scaling or masking."""

    def __init__(self, file: Any, path: Path, item: str, mapping: Mapping) -> None:
        self.problems: list[Remark] = []
        self.place = item
        self._grids = {name: each.modality(name).grids for name, each in mapping.modalities.items()}
        self._bands = {
            name: [_variable(file, path, str(variable)) for variable in each.bands.values()]
            for name, each in mapping.modalities.items()
        }
        self._steps = _time_axis(_variable(file, path, mapping.time), path)
        self.dates: list[date | None] = [*self._steps]
        for variables in self._bands.values():
            for variable in variables:
                self._check(variable, path, mapping.time)
        each = [variable for variables in self._bands.values() for variable in variables]
        self._sparse = {variable.name for variable in each if _is_sparse(variable)}

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

    def read(self, modality: str, day: date | None, number: int = 0) -> list[np.ndarray]:
        """Returns a time step of a day; see `Cube.read`."""
        assert day is not None
        step = self._steps[day][number]
        try:
            for variable in self._bands[modality]:
                if variable.name in self._sparse and _lacks_pieces(variable, step):
                    name = variable.name[1:]
                    raise TileError(f"pieces of {name} were never written, time {step}", "missing")
            bands = [_stored(variable, step) for variable in self._bands[modality]]
            return [
                np.stack([bands[channel] for channel in grid.bands])
                for grid in self._grids[modality]
            ]
        except TileError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise TileError(str(error)) from error

    def baseline(self, modality: str, day: date | None) -> float | None:
        """Returns None: the files of a tile have no names of their own."""
        return None

    def bands(self, modality: str, day: date | None) -> Iterator[np.ndarray]:
        """Yields the bands of a modality at a date; see `Cube.bands`."""
        assert day is not None
        try:
            for variable in self._bands[modality]:
                yield _stored(variable, self._steps[day][0])
        except (OSError, ValueError, RuntimeError) as error:
            raise TileError(str(error)) from error

    def position(self) -> tuple[float, float] | None:
        """Returns None: a place of a NetCDF file is known by its name alone."""
        return None

    def footprint(self) -> Footprint | None:
        """Returns None, like `position`."""
        return None


def _variable(file: Any, path: Path, name: str) -> Any:
    if not hasattr(file.get(name), "ndim"):
        raise DataError(f"{path} has no variable {name!r}; it holds {', '.join(sorted(file))}")
    return file[name]


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


def _stored(variable: Any, step: int) -> np.ndarray:
    values = variable[step]
    # The netCDF convention for unsigned integers in files that have only signed types.
    if _text(variable.attrs.get("_Unsigned")) == "true" and values.dtype.kind == "i":
        values = values.view(values.dtype.str.replace("i", "u"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


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
