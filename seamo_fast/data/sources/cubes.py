"""Readers of one place's time series: a NetCDF file, or a folder of GeoTIFFs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from seamo_fast.data.sources.base import TileError, read_tiff
from seamo_fast.data.sources.mapping import Mapping
from seamo_fast.errors import DataError

_CALENDARS: Final = ("standard", "gregorian", "proleptic_gregorian")
_TIME_UNITS: Final = re.compile(r"(days|hours|minutes|seconds) since (\d{4}-\d{1,2}-\d{1,2})(.*)")


class Cube(Protocol):
    """A time series of one place.

    Attributes:
        dates: Ascending date of each time step.
    """

    dates: list[date]

    def read(self, modality: str, step: int) -> np.ndarray | None:
        """Returns a modality at a time step [C, H, W], values as stored; None if it has none.

        Raises:
            TileError: It cannot be read.
        """
        ...


@contextmanager
def open_cube(path: Path, mapping: Mapping) -> Iterator[Cube]:
    """Opens a NetCDF file or a folder of GeoTIFFs, as the mapping says.

    Raises:
        DataError: It cannot be read or does not fit the mapping.
    """
    if mapping.format == "geotiff":
        yield ImageCube(path, mapping)
        return
    with _open_hdf5(path) as file:
        try:
            cube = NetCDFCube(file, path, mapping)
        except (KeyError, OSError, RuntimeError) as error:
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
        if path.is_file() and path.read_bytes()[:3] == b"CDF":
            raise DataError(
                f"{path} is a classic NetCDF file; convert it with `nccopy -k nc4 IN OUT`"
            ) from error
        raise DataError(f"{path} cannot be read as NetCDF-4: {error}") from error


class NetCDFCube:
    """Variables [time, y, x] of a NetCDF-4 file, read without scaling or masking."""

    def __init__(self, file: Any, path: Path, mapping: Mapping) -> None:
        self._bands = {
            name: [_variable(file, path, str(variable)) for variable in each.bands.values()]
            for name, each in mapping.modalities.items()
        }
        self.dates = _time_axis(_variable(file, path, mapping.time), path)
        for variables in self._bands.values():
            for variable in variables:
                if variable.ndim != 3 or len(variable) != len(self.dates):
                    raise DataError(
                        f"{path}: variable {variable.name[1:]} has shape {list(variable.shape)}; "
                        f"expected [{len(self.dates)}, y, x] by the time axis {mapping.time!r}"
                    )

    def read(self, modality: str, step: int) -> np.ndarray | None:
        """Returns a modality at a time step; see `Cube.read`."""
        try:
            return np.stack([_stored(variable, step) for variable in self._bands[modality]])
        except (OSError, ValueError) as error:
            raise TileError(str(error)) from error


def _variable(file: Any, path: Path, name: str) -> Any:
    if not hasattr(file.get(name), "ndim"):
        raise DataError(f"{path} has no variable {name!r}; it holds {', '.join(sorted(file))}")
    return file[name]


def _stored(variable: Any, step: int) -> np.ndarray:
    values = variable[step]
    # The netCDF convention for unsigned integers in files that have only signed types.
    if _text(variable.attrs.get("_Unsigned")) == "true" and values.dtype.kind == "i":
        values = values.view(values.dtype.str.replace("i", "u"))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _time_axis(variable: Any, path: Path) -> list[date]:
    units = _text(variable.attrs.get("units", ""))
    calendar = _text(variable.attrs.get("calendar", "standard"))
    match = _TIME_UNITS.fullmatch(units.strip())
    if match is None or calendar not in _CALENDARS:
        raise DataError(
            f"{path}: the time axis has units {units!r} and calendar {calendar!r}; expected "
            f"'days since YYYY-MM-DD' (or hours, minutes, seconds) and {' or '.join(_CALENDARS)}"
        )
    origin = datetime.strptime(match[2], "%Y-%m-%d") + _clock(match[3])
    dates = [(origin + timedelta(**{match[1]: float(value)})).date() for value in variable[:]]
    if any(later <= earlier for earlier, later in pairwise(dates)):
        raise DataError(f"{path}: the time axis does not ascend")
    return dates


def _clock(text: str) -> timedelta:
    """Returns the time of day in the rest of a units text such as ' 06:00:00'."""
    match = re.match(r"[ T](\d{1,2}):(\d{2})", text)
    return timedelta(hours=int(match[1]), minutes=int(match[2])) if match else timedelta()


class ImageCube:
    """A folder of GeoTIFFs, one a modality and date; the time axis is the union of the dates."""

    def __init__(self, folder: Path, mapping: Mapping) -> None:
        self._bands = {name: each.bands for name, each in mapping.modalities.items()}
        self._files = {
            name: _dated_files(folder, each.files) for name, each in mapping.modalities.items()
        }
        self.dates = sorted({day for found in self._files.values() for day in found})

    def read(self, modality: str, step: int) -> np.ndarray | None:
        """Returns a modality at a time step; see `Cube.read`."""
        file = self._files[modality].get(self.dates[step])
        if file is None:
            return None
        values = read_tiff(file)
        values = values[None] if values.ndim == 2 else values
        channels = [int(number) - 1 for number in self._bands[modality].values()]
        if max(channels) >= len(values):
            raise TileError(
                f"{file.name} has {len(values)} bands, expected at least {max(channels) + 1}"
            )
        return values[channels]


def _dated_files(folder: Path, pattern: str) -> dict[date, Path]:
    found: dict[date, Path] = {}
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, file.name)
        if match is None:
            continue
        try:
            day = datetime.strptime(match[1], "%Y%m%d").date()
        except ValueError:
            raise DataError(f"{file}: {match[1]!r} is not a date YYYYMMDD") from None
        if day in found:
            raise DataError(f"{folder} has two files of {day}: {found[day].name} and {file.name}")
        found[day] = file
    return found
