"""SSL4EO-S12 v1.0 in its native folders (Wang et al., 2023, github.com/zhu-xlab/SSL4EO-S12).

    SOURCE/{s1,s2a,s2c}/<location>/<acquisition>/<BAND>.tif

One single-band GeoTIFF a band: Sentinel-1 float32 dB, Sentinel-2 uint16 DN, on native grids of 264,
132 and 44 pixels for 10, 20 and 60 m. An acquisition folder carries its date. Radar and optical
dates differ; they are paired by season (`season_slots`), and each keeps its own date. Acquisitions
of one day are one season, of which the fullest is taken. There is no nodata tag; fill is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from seamo_fast.data.packing.sources.base import (
    Reading,
    TileError,
    check_tile,
    list_folders,
    product_baseline,
)
from seamo_fast.data.packing.sources.formats.geo import (
    Footprint,
    tiff_footprint,
    tiff_position,
)
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint
from seamo_fast.data.packing.sources.formats.metadata import Said
from seamo_fast.data.packing.sources.formats.names import is_hidden, list_files
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.data.packing.sources.formats.times import parse_date
from seamo_fast.data.packing.sources.pairing import distant, season_slots
from seamo_fast.data.packing.sources.rules.declared import Pixels, registered
from seamo_fast.data.packing.sources.rules.lost import absurd, any_measured, check_bands, fullest
from seamo_fast.data.shards import ArraySpec, Remark, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, canonical_band, get_modality

_FOLDERS: Final = {"s2l2a": "s2a", "s2l1c": "s2c", "s1grd": "s1"}
_DTYPES: Final = {"s2l2a": "uint16", "s2l1c": "uint16", "s1grd": "float32"}
_EXTENT: Final = 2640  # metres
_ENDINGS: Final = (".tif", ".tiff")
# the acquisitions of one day
Day = tuple[date, list[Path]]


class SSL4EO:
    """Reads SSL4EO-S12 v1.0; an item is a location and yields at most one sample.

    Args:
        path: Folder that holds s1, s2a or s2c.
        seasons: T; dates beyond are thinned evenly, missing ones are invalid groups.
        modalities: Of "s2l2a", "s2l1c" and "s1grd". By default the optical ones that exist, L2A
            before L1C, but only one of them, and the radar.

    Raises:
        DataError: A modality is not of this dataset, or its folder is not there.
    """

    layout: ClassVar[str] = "ssl4eo-v1.0"
    looked_for: ClassVar[str] = "folders s1, s2a or s2c holding <location>/<date>/<BAND>.tif"
    remarks: tuple[str, ...] = ()
    release: str = "ssl4eo-s12-v1.0"

    def __init__(
        self, path: Path, seasons: int = 4, modalities: Sequence[str] | None = None
    ) -> None:
        self.path = path
        self.seasons = seasons
        names = _present(path) if modalities is None else list(modalities)
        for name in names:
            if name not in _FOLDERS:
                raise DataError(
                    f"SSL4EO-S12 has no modality {name!r}; expected some of {', '.join(_FOLDERS)}"
                )
            if not (path / _FOLDERS[name]).is_dir():
                raise DataError(f"{path} has no folder {_FOLDERS[name]} for modality {name!r}")
        self.modalities = tuple(get_modality(name, self.release) for name in names)
        self._declared = {each.name: registered(each) for each in self.modalities}
        self.arrays = {
            array: ArraySpec(
                _DTYPES[modality.name],
                (seasons, len(grid.bands), *[round(_EXTENT / grid.gsd)] * 2),
            )
            for modality in self.modalities
            for array, grid in zip(array_names(modality), modality.grids, strict=True)
        }
        self.settings = {"layout": self.layout, "seasons": seasons, "modalities": names}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a folder looks like this layout."""
        folders = [path / folder for folder in _FOLDERS.values()]
        return any(
            each.is_dir() and not is_hidden(each.name)
            for folder in folders
            if folder.is_dir()
            for each in folder.iterdir()
        )

    def items(self) -> list[str]:
        """Returns the locations that any of the modalities has."""
        found = {
            location.name
            for modality in self.modalities
            for location in list_folders(self.path / _FOLDERS[modality.name])
        }
        return sorted(found)

    def files(self, item: str) -> Iterator[Path]:
        """Yields the files of a location."""
        for modality in self.modalities:
            for folder in list_folders(self.path / _FOLDERS[modality.name] / item):
                yield from list_files(folder, _ENDINGS)

    def estimate(self) -> int:
        """Returns the number of locations."""
        return len(self.items())

    def read(self, item: str) -> Iterator[Reading]:
        """Yields the sample of a location."""
        names = [modality.name for modality in self.modalities]
        reading = Reading(item, {}, {}, {})
        tiles = {name: self._acquisitions(name, item, reading) for name in names}
        dates = {name: [day for day, _ in found] for name, found in tiles.items()}
        slots = season_slots(dates, self.seasons)
        reading.noted += distant(item, dates, slots)
        for modality in self.modalities:
            found = tiles[modality.name]
            chosen = [None if slot is None else found[slot] for slot in slots[modality.name]]
            self._read_modality(modality, item, chosen, reading)
        yield reading

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields a location: where its first file is, and what the smallest of each tile holds."""
        footprint: Footprint | None = None
        prints: list[int] = []
        for modality in self.modalities:
            names = [modality.band_names[c] for grid in modality.grids[::-1] for c in grid.bands]
            for folder in self._folders(modality.name, item):
                with suppress(TileError):  # reading says why
                    files = _band_files(modality, folder)
                    prints += fingerprint(read_tiff(files[name]).values for name in names)
                    footprint = footprint or tiff_footprint(files[names[0]])
        yield Ground(item, footprint, tuple(prints))

    def _folders(self, name: str, item: str) -> list[Path]:
        """Returns the acquisitions of a location that have a date."""
        days = self._acquisitions(name, item, Reading(item, {}, {}, {}))
        return [folder for _, folders in days for folder in folders]

    def _acquisitions(self, name: str, item: str, reading: Reading) -> list[Day]:
        found: dict[date, list[Path]] = {}
        for folder in list_folders(self.path / _FOLDERS[name] / item):
            try:
                found.setdefault(parse_date(folder.name), []).append(folder)
            except ValueError:
                what = str(folder.relative_to(self.path))
                why = "the folder name has no date YYYYMMDDTHHMMSS"
                reading.skipped.append(Remark(what, why, "date"))
        return sorted(found.items())

    def _read_modality(
        self, modality: Modality, item: str, days: Sequence[Day | None], reading: Reading
    ) -> None:
        specs = [self.arrays[array] for array in array_names(modality)]
        grids = [np.zeros(spec.shape, spec.dtype) for spec in specs]
        dates: list[date | None] = [None] * self.seasons
        baselines: list[float | None] = [None] * self.seasons
        for t, found in enumerate(days):
            if found is None:
                continue
            day, folders = found
            what = f"{item} {modality.name} {day}"
            folder = self._read_day(modality, what, folders, [grid[t] for grid in grids], reading)
            if folder is None:
                continue
            dates[t] = day
            baselines[t] = product_baseline(folder.name)
            reading.position = reading.position or _position(folder)
        reading.arrays[modality.name] = grids
        reading.dates[modality.name] = dates
        reading.baselines[modality.name] = baselines
        reading.valid[modality.name] = [day is not None for day in dates]

    def _read_day(
        self,
        modality: Modality,
        what: str,
        folders: Sequence[Path],
        out: Sequence[np.ndarray],
        reading: Reading,
    ) -> Path | None:
        """Fills `out` with the fullest acquisition of a day; returns its folder, None without."""
        found: list[tuple[Path, Sequence[np.ndarray]]] = []
        for folder in folders:
            grids = [np.empty_like(array) for array in out] if found else out
            try:
                reading.noted += self._read_tile(modality, folder, grids)
            except TileError as error:
                where = str(folder.relative_to(self.path))
                reading.skipped.append(Remark(where, str(error), error.kind))
            else:
                found.append((folder, grids))
        if not found:
            return None
        passes = [(folder.name, grids) for folder, grids in found]
        best, noted = fullest(what, passes, 0, modality.limit)
        reading.noted += noted
        folder, grids = found[best]
        for array, values in zip(out, grids, strict=True):
            if values is not array:
                array[:] = values
        floats = [array for array in out if array.dtype.kind == "f"]
        bad = sum(array.size - np.count_nonzero(np.isfinite(array)) for array in floats)
        where = str(folder.relative_to(self.path))
        if bad:
            reading.noted.append(Remark(where, f"{bad} values are NaN or infinite", "nonfinite"))
        reading.noted += absurd(where, modality, out)
        return folder

    def _read_tile(
        self, modality: Modality, folder: Path, out: Sequence[np.ndarray]
    ) -> list[Remark]:
        """Fills `out`, one [Cg, Hg, Wg] a grid; returns what files say of them."""
        files = _band_files(modality, folder)
        said: dict[int, Said] = {}
        masks: dict[int, np.ndarray | None] = {}
        for grid, array in zip(modality.grids, out, strict=True):
            for position, channel in enumerate(grid.bands):
                file = files[modality.band_names[channel]]
                values, (said[channel], *_), masks[channel] = read_tiff(file)
                check_tile(file.name, values, array.dtype.name, array.shape[1:])
                array[position] = values
        channels = range(len(modality.bands))
        pixels = Pixels([*out], tuple(said[c] for c in channels), tuple(masks[c] for c in channels))
        remarks = self._declared[modality.name].apply(pixels)
        if not any_measured(out, 0, modality.limit):
            raise TileError("every pixel is nodata (0 or NaN in all bands)", "unmeasured")
        check_bands(modality, out)
        return remarks


def _band_files(modality: Modality, folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in list_files(folder, _ENDINGS):
        band = canonical_band(file.stem)
        if band in files:
            raise TileError(f"band {band} comes twice: {files[band].name}, {file.name}", "name")
        files[band] = file
    missing = [name for name in modality.band_names if name not in files]
    unknown = sorted(files.keys() - set(modality.band_names))
    if missing or unknown:
        raise TileError(
            f"expected the {len(modality.bands)} bands {', '.join(modality.band_names)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}",
            "missing",
        )
    return files


def _position(folder: Path) -> tuple[float, float] | None:
    file = next(iter(list_files(folder, _ENDINGS)), None)
    return None if file is None else tiff_position(file)


def _present(path: Path) -> list[str]:
    found = [name for name, folder in _FOLDERS.items() if (path / folder).is_dir()]
    if "s2l2a" in found and "s2l1c" in found:
        found.remove("s2l1c")
    return found
