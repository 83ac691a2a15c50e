"""SSL4EO-S12 v1.1 (Blumenstiel et al., 2025, arXiv 2503.00168), as zarr or as WebDataset.

    SOURCE/{train,val}/{S1GRD,S2L1C,S2L2A}/ssl4eos12_{train,val}_seasonal_data_NNNNNN.zarr.zip
        64 locations a file: bands [sample, time, band, y, x]
    SOURCE/{train,val}/{S1GRD,S2L1C,S2L2A}/ssl4eos12_shard_NNNNNN.tar
        one member <key>.zarr.zip a location: bands [time, band, y, x]

SOURCE may also be one of the folders train and val. Sentinel-2 is int16 DN with the +1000 of
processing baseline 04.00 kept (recorded as the modality's offset), Sentinel-1 float16 dB. All bands
are stored on the 10 m grid already, so that is how they are packed. A location is found in several
modalities by its name; dates are those of `time_`, each modality's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from seamo_fast.data.packing.sources.base import Reading, TileError, check_tile
from seamo_fast.data.packing.sources.formats.ground import Ground
from seamo_fast.data.packing.sources.formats.names import has_ending, list_files, on_disk
from seamo_fast.data.packing.sources.formats.zarr_files import Series, SeriesFile, open_series
from seamo_fast.data.packing.sources.pairing import distant, season_slots
from seamo_fast.data.packing.sources.rules.declared import (
    Declared,
    Pixels,
    registered,
    said_settings,
)
from seamo_fast.data.packing.sources.rules.lost import absurd, any_measured, check_bands, fullest
from seamo_fast.data.shards import DTYPES, ArraySpec, Remark, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality

_FOLDERS: Final = {"s2l2a": "S2L2A", "s2l1c": "S2L1C", "s1grd": "S1GRD"}
_SUFFIXES: Final = (".zarr.zip", ".tar")


class SSL4EOZarr:
    """Reads SSL4EO-S12 v1.1; an item is a file name and yields a sample a location.

    Args:
        path: Folder that holds train and val, or one of them.
        seasons: T; dates beyond are thinned evenly, missing ones are invalid groups.
        modalities: Of "s2l2a", "s2l1c" and "s1grd". By default the optical ones that exist, L2A
            before L1C, but only one of them, and the radar.

    Raises:
        DataError: A modality is not of this dataset or not there, or no file of it can be read.
    """

    layout: ClassVar[str] = "ssl4eo-v1.1"
    looked_for: ClassVar[str] = "folders S2L2A, S2L1C or S1GRD of .zarr.zip or .tar files"
    remarks: tuple[str, ...] = ()
    release: str = "ssl4eo-s12-v1.1"

    def __init__(
        self, path: Path, seasons: int = 4, modalities: Sequence[str] | None = None
    ) -> None:
        self.path = path
        self.seasons = seasons
        present = [name for name in _FOLDERS if self._files(name)]
        default = [n for n in present if n != "s2l1c" or "s2l2a" not in present]
        names = default if modalities is None else list(modalities)
        for name in names:
            if name not in _FOLDERS:
                raise DataError(
                    f"SSL4EO-S12 has no modality {name!r}; expected some of {', '.join(_FOLDERS)}"
                )
            if name not in present:
                raise DataError(
                    f"{path} has no .zarr.zip or .tar file in a folder {_FOLDERS[name]} for "
                    f"modality {name!r}"
                )
        self._declared = {name: registered(get_modality(name, self.release)) for name in names}
        self.arrays = {
            array_names(each.modality)[0]: self._specify(each) for each in self._declared.values()
        }
        self.modalities = tuple(each.modality for each in self._declared.values())
        self.settings = {
            "layout": self.layout,
            "seasons": seasons,
            "modalities": names,
            **said_settings(self._declared.values()),
        }

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a folder looks like this layout."""
        return any(
            any(has_ending(each.name, _SUFFIXES) for each in folder.iterdir())
            for part in _parts(path)
            for folder in (path / part / each for each in _FOLDERS.values())
            if folder.is_dir()
        )

    def items(self) -> list[str]:
        """Returns the files that any of the modalities has, such as train/name.zarr.zip."""
        names = {each for modality in self.modalities for each in self._files(modality.name)}
        return sorted(names)

    def files(self, item: str) -> list[Path]:
        """Returns the file of each modality that has one."""
        paths = [self._path(item, modality.name) for modality in self.modalities]
        return [path for path in paths if path.is_file()]

    def estimate(self) -> int:
        """Returns the number of locations of the first readable file times that of the files."""
        items = self.items()
        for item in items:
            try:
                with ExitStack() as stack:
                    return len(self._open(item, stack)[0]) * len(items)
            except DataError:
                continue
        return 0

    def read(self, item: str) -> Iterator[Reading]:
        """Yields the sample of each location in a file.

        Raises:
            DataError: The file of a modality cannot be read.
        """
        with ExitStack() as stack:
            places, files = self._open(item, stack)
            for place in places:
                yield self._sample(item, place, files)

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields each location of a file, modality by modality; see `Source.scan`."""
        with ExitStack() as stack:
            _, files = self._open(item, stack)
            for file in files.values():
                for place in file.places:
                    with suppress(DataError):  # reading says why
                        yield file.scan(place)

    def _open(self, item: str, stack: ExitStack) -> tuple[list[str], dict[str, SeriesFile]]:
        files: dict[str, SeriesFile] = {}
        for modality in self.modalities:
            path = self._path(item, modality.name)
            if path.is_file():
                files[modality.name] = stack.enter_context(open_series(path, modality))
        return list(dict.fromkeys(place for file in files.values() for place in file.places)), files

    def _sample(self, item: str, place: str, files: dict[str, SeriesFile]) -> Reading:
        reading = Reading(place, {}, {}, {})
        found: dict[str, Series] = {}
        for modality in self.modalities:
            what = f"{item} {modality.name} {place}"
            file = files.get(modality.name)
            if file is None or place not in file.places:
                reading.noted.append(Remark(what, "not in the files of this modality", "missing"))
                continue
            try:
                series = file.read(place)
                spec = self.arrays[array_names(modality)[0]]
                check_tile(what, series.tiles[0], spec.dtype, spec.shape[1:])
                reading.noted += _apply(self._declared[modality.name], series)
            except (DataError, TileError) as error:
                reading.skipped.append(Remark(what, str(error), error.kind))
                continue
            found[modality.name] = series
            reading.position = reading.position or series.position
            reading.place = reading.place or series.place
        self._arrange(item, found, reading)
        return reading

    def _arrange(self, item: str, found: Mapping[str, Series], reading: Reading) -> None:
        usable = {
            modality.name: self._usable(modality, item, found[modality.name], reading)
            for modality in self.modalities
            if modality.name in found
        }
        slots = self._slots(item, found, usable, reading)
        for modality in self.modalities:
            name = modality.name
            spec = self.arrays[array_names(modality)[0]]
            tiles = np.zeros(spec.shape, spec.dtype)
            dates: list[date | None] = [None] * self.seasons
            chosen = slots.get(name, [None] * self.seasons)
            for season, t in enumerate(chosen):
                if t is not None:
                    tiles[season], dates[season] = found[name].tiles[t], found[name].dates[t]
                    what = f"{item} {name} {reading.id} time {t}"
                    reading.noted += absurd(what, modality, [tiles[season]])
            reading.arrays[name], reading.dates[name] = [tiles], dates
            reading.valid[name] = [t is not None for t in chosen]

    def _usable(self, modality: Modality, item: str, series: Series, reading: Reading) -> list[int]:
        """Returns the times that can be used, after writing down why others cannot."""
        usable = []
        for t, tile in enumerate(series.tiles):
            try:
                if t in series.lost:
                    raise TileError(series.lost[t], "missing")
                if not any_measured([tile], _nodata(modality), modality.limit):
                    raise TileError("every pixel is nodata (0 or NaN)", "unmeasured")
                reading.noted += check_bands(modality, [tile])
            except TileError as error:
                what = f"{item} {modality.name} {reading.id} time {t}"
                reading.skipped.append(Remark(what, str(error), error.kind))
            else:
                usable.append(t)
        return usable

    def _slots(
        self,
        item: str,
        found: Mapping[str, Series],
        usable: Mapping[str, list[int]],
        reading: Reading,
    ) -> dict[str, list[int | None]]:
        """Pairs the usable times by date; season by season as stored where a date is unknown."""
        if any(found[name].dates[t] is None for name, times in usable.items() for t in times):
            return {
                name: [t if t in times else None for t in range(self.seasons)]
                for name, times in usable.items()
            }
        if not usable:
            return {}
        days = {
            name: _by_day(
                f"{item} {name} {reading.id}",
                found[name],
                times,
                self._declared[name].modality,
                reading,
            )
            for name, times in usable.items()
        }
        dates = {name: list(each) for name, each in days.items()}
        chosen = season_slots(dates, self.seasons)
        reading.noted += distant(reading.id, dates, chosen)
        return {
            name: [None if slot is None else days[name][dates[name][slot]] for slot in slots]
            for name, slots in chosen.items()
        }

    def _path(self, item: str, name: str) -> Path:
        path = self.path / Path(item).parent / _FOLDERS[name] / Path(item).name
        return on_disk(path, _ending(item))

    def _files(self, name: str) -> list[str]:
        return [
            str(Path(part) / file)
            for part in _parts(self.path)
            for file in _listed(self.path / part / _FOLDERS[name])
        ]

    def _specify(self, declared: Declared) -> ArraySpec:
        """Returns dtype and size by the first readable file, which settles what files decide."""
        modality, problem = declared.modality, ""
        for item in self._files(modality.name):
            try:
                with open_series(self._path(item, modality.name), modality) as file:
                    series = file.read(file.places[0])
                tiles = series.tiles
                if tiles.dtype.name not in DTYPES:
                    raise DataError(f"{item} holds {tiles.dtype}")
                settled = declared.settled([series.said] * len(modality.bands), tiles.dtype)
                _apply(settled, series)
            except (DataError, TileError, IndexError) as error:
                problem = problem or str(error)
                continue
            self._declared[modality.name] = settled
            return ArraySpec(tiles.dtype.name, (self.seasons, *tiles.shape[1:]))
        raise DataError(
            f"no file of modality {modality.name!r} in {self.path} can be read: {problem}"
        )


def _apply(declared: Declared, series: Series) -> list[Remark]:
    """Marks in place what the file says is not measured; returns what is to be said of it."""
    said = (series.said,) * len(declared.modality.bands)
    remarks = [remark for tile in series.tiles for remark in declared.apply(Pixels([tile], said))]
    return list(dict.fromkeys(remarks))


def _parts(path: Path) -> list[str]:
    return [part for part in ("train", "val") if (path / part).is_dir()] or [""]


def _listed(folder: Path) -> Iterator[str]:
    """Yields the names of the files of a modality, endings in lower case."""
    for path in list_files(folder, _SUFFIXES):
        ending = _ending(path.name)
        yield path.name[: -len(ending)] + ending


def _ending(name: str) -> str:
    return next(each for each in _SUFFIXES if name.lower().endswith(each))


def _nodata(modality: Modality) -> float:
    """Returns what means "not measured"; 0 always did in this dataset."""
    return 0 if modality.nodata is None else modality.nodata


def _by_day(
    what: str, series: Series, times: Sequence[int], modality: Modality, reading: Reading
) -> dict[date, int]:
    """Returns the dates of some times, ascending, and of each the time that is fullest."""
    passes: dict[date, list[int]] = {}
    for t in times:
        day = series.dates[t]
        assert day is not None
        passes.setdefault(day, []).append(t)
    chosen = {}
    for day, same in sorted(passes.items()):
        tiles = [(f"time {t}", [series.tiles[t]]) for t in same]
        best, noted = fullest(f"{what} {day}", tiles, _nodata(modality), modality.limit)
        chosen[day] = same[best]
        reading.noted += noted
    return chosen
