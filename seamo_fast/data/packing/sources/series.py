"""Places described by a mapping (`seamo_fast.data.packing.sources.mapping`).

NetCDF-4: each `*.nc` file under SOURCE is one place, or SOURCE is such a file.
GeoTIFF: the mapping's patterns say which files under SOURCE make up a sample.

With pairing "steps" an item yields a sample for each window of `seasons` time steps that are `step`
apart, starting every `stride` steps; with "seasons" it yields one, each modality with its own
dates. Times need not ascend, and acquisitions of one day are one step, of which the fullest is
taken. Values are stored to the bit, unless the mapping asks for another dtype. A group whose
pixels are mostly not measured is invalid; a pixel is measured if it is in all bands, as the rule of
the modality's nodata says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seamo_fast.data.packing.sources.base import Reading, TileError, check_extents, check_tile
from seamo_fast.data.packing.sources.cubes import Cube, open_cube
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint
from seamo_fast.data.packing.sources.formats.names import any_hidden, has_ending, twins
from seamo_fast.data.packing.sources.images import index_images
from seamo_fast.data.packing.sources.mapping import Mapping
from seamo_fast.data.packing.sources.pairing import distant, season_slots
from seamo_fast.data.packing.sources.rules.declared import Declared, Pixels, said_settings
from seamo_fast.data.packing.sources.rules.lost import absurd, check_bands, fullest
from seamo_fast.data.shards import DTYPES, ArraySpec, Remark, array_names
from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality


class Series:
    """Reads what a mapping describes; an item is a place and yields its samples.

    The first place that can be read decides dtypes and sizes.

    Args:
        path: A NetCDF file, or a folder.
        mapping: What the bands are and how windows are cut.
        seasons: T; the mapping's if None.
        modalities: Some of the mapping's; all that have a file if None.

    Raises:
        DataError: No place can be read, or a modality is not in the mapping.
    """

    layout: ClassVar[str] = "series"
    looked_for: ClassVar[str] = "*.nc files, or folders of GeoTIFFs, together with --mapping"
    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        mapping: Mapping,
        seasons: int | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        names = _with_files(path, mapping) if modalities is None else list(modalities)
        for name in names:
            if name not in mapping.modalities:
                raise DataError(
                    f"the mapping has no modality {name!r}; it has {', '.join(mapping.modalities)}"
                )
        self.path = path
        self.release = mapping.name
        self._mapping = replace(
            mapping,
            seasons=seasons or mapping.seasons,
            modalities={name: mapping.modalities[name] for name in names},
        )
        self._declared = {name: self._declare(name) for name in names}
        items = self.items()
        self._twins = twins(items, lambda item: _stem(item).casefold())
        self.arrays = self._specify(items)
        self.modalities = tuple(self._declared[name].modality for name in names)
        check_extents(self.modalities, self.arrays)
        self.settings = {
            "layout": self.layout,
            "mapping": self._mapping.settings,
            **said_settings(self._declared.values()),
        }

    def items(self) -> list[str]:
        """Returns the places: names of files or folders relative to the source."""
        if self.path.is_file():
            return [self.path.name]
        if self._mapping.format == "geotiff":
            return list(index_images(self.path, self._mapping.key))
        names = (str(file.relative_to(self.path)) for file in self.path.rglob("*"))
        return sorted(name for name in names if has_ending(name, ".nc") and not any_hidden(name))

    def files(self, item: str) -> list[Path]:
        """Returns the NetCDF file of a place, or the GeoTIFFs of a sample."""
        if self._mapping.format == "geotiff":
            return index_images(self.path, self._mapping.key)[item].files
        return [self.path if self.path.is_file() else self.path / item]

    def estimate(self) -> int:
        """Returns the number of items times the windows of the first readable one."""
        items = self.items()
        for item in items:
            try:
                with open_cube(self.path, item, self._mapping) as cube:
                    return max(1, len(self._starts(cube))) * len(items)
            except DataError:
                continue
        return 0

    def read(self, item: str) -> Iterator[Reading]:
        """Yields a sample for each window of a place, or one a place.

        Raises:
            DataError: The place cannot be read, is shorter than a window, or shares its name.
        """
        if item in self._twins:
            raise DataError(
                f"{item} and {self._twins[item]} have one name but for upper and lower case; "
                "rename one",
                "name",
            )
        mapping = self._mapping
        with open_cube(self.path, item, mapping) as cube:
            stem = _stem(item)
            if mapping.pairing == "seasons" or cube.dates == [None]:
                chosen, noted = self._paired(item, cube)
                reading = self._sample(stem, item, cube, chosen)
                reading.noted += noted
                yield reading
                return
            starts = self._starts(cube)
            if not starts:
                reasons = "".join(f"; {each.what}: {each.why}" for each in cube.problems[:1])
                raise DataError(
                    f"{item} has {len(cube.dates)} time steps, but a window of {mapping.seasons} "
                    f"seasons {mapping.step} apart takes {self._length}{reasons}"
                )
            for start in starts:
                steps = dict(enumerate(cube.dates[start : start + self._length : mapping.step]))
                windows = {
                    name: {0: None} if cube.days(name) == [None] else steps
                    for name in mapping.modalities
                }
                yield self._sample(f"{stem}/t{start:03d}", item, cube, windows)

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields the place of an item; see `Source.scan`."""
        prints: list[int] = []
        with open_cube(self.path, item, self._mapping) as cube:
            for name in self._mapping.modalities:
                for day in cube.days(name):
                    with suppress(TileError):  # reading says why
                        prints += fingerprint(cube.bands(name, day))
            yield Ground(cube.place, cube.footprint(), tuple(prints))

    def _declare(self, name: str) -> Declared:
        mapping = self._mapping.modalities[name]
        modality = _released(mapping.modality(name), self._mapping.name)
        return Declared(modality, "mapping", mapping.silent)

    @property
    def _length(self) -> int:
        return (self._mapping.seasons - 1) * self._mapping.step + 1

    def _starts(self, cube: Cube) -> range:
        if self._mapping.pairing == "seasons":
            return range(1)
        return range(0, len(cube.dates) - self._length + 1, self._mapping.stride)

    def _paired(
        self, item: str, cube: Cube
    ) -> tuple[dict[str, dict[int, date | None]], list[Remark]]:
        """Returns for each modality the date of each season that it has; undated is the first.

        Dates that were paired over a long time are remarks.
        """
        days = {name: cube.days(name) for name in self._mapping.modalities}
        dated = {name: [day for day in each if day is not None] for name, each in days.items()}
        slots = season_slots(dated, self._mapping.seasons)
        chosen: dict[str, dict[int, date | None]] = {
            name: {0: None}
            if days[name] == [None]
            else {t: dated[name][slot] for t, slot in enumerate(slots[name]) if slot is not None}
            for name in days
        }
        return chosen, distant(item, dated, slots)

    def _specify(self, items: Sequence[str]) -> dict[str, ArraySpec]:
        """Settles what files decide by the first place; returns dtypes and sizes."""
        problem = f"looked for {self.looked_for}"
        specs: dict[str, list[ArraySpec]] = {}
        for item in items:
            try:
                with open_cube(self.path, item, self._mapping) as cube:
                    for name in self._declared:
                        if name not in specs:
                            specs[name] = self._spec(name, cube)
                    break
            except DataError as error:
                problem = f"{item}: {error}"
        else:
            raise DataError(f"{self.path} has no place that can be read: {problem}")
        return {
            array: spec
            for name, each in self._declared.items()
            for array, spec in zip(array_names(each.modality), specs[name], strict=True)
        }

    def _spec(self, name: str, cube: Cube) -> list[ArraySpec]:
        problem = next((f"{each.what}: {each.why}" for each in cube.problems), "no file of it")
        kind = "missing"
        for day in cube.days(name):
            try:
                grids = self._first_tile(name, cube, day)
            except TileError as error:
                problem, kind = str(error), error.kind
                continue
            for values in grids:
                if values.dtype.name not in DTYPES:
                    raise DataError(
                        f"modality {name!r} is stored as {values.dtype}; expected one of "
                        f"{', '.join(DTYPES)}: name one as its dtype in the mapping"
                    )
            seasons = self._mapping.seasons
            return [ArraySpec(values.dtype.name, (seasons, *values.shape)) for values in grids]
        raise DataError(
            f"modality {name!r} cannot be read at any time step, the last: {problem}", kind
        )

    def _first_tile(self, name: str, cube: Cube, day: date | None) -> list[np.ndarray]:
        pixels = cube.read(name, day)
        dtype = self._mapping.modalities[name].dtype or pixels.grids[0].dtype
        settled = self._declared[name].settled(pixels.said, np.dtype(dtype))
        grids, _ = self._applied(settled, pixels)
        self._declared[name] = settled
        return grids

    def _applied(self, declared: Declared, pixels: Pixels) -> tuple[list[np.ndarray], list[Remark]]:
        """Returns the pixels in the dtype of the mapping, and what is to be said of them."""
        remarks = declared.apply(pixels)
        dtype = self._mapping.modalities[declared.modality.name].dtype
        grids = pixels.grids
        return (grids if dtype is None else [_converted(each, dtype) for each in grids]), remarks

    def _sample(
        self,
        id: str,
        item: str,
        cube: Cube,
        chosen: MappingType[str, MappingType[int, date | None]],
    ) -> Reading:
        reading = Reading(id, {}, {}, {}, [*cube.problems], place=cube.place)
        reading.position = cube.position()
        for modality in self.modalities:
            name = modality.name
            specs = [self.arrays[array] for array in array_names(modality)]
            arrays = [np.zeros(spec.shape, spec.dtype) for spec in specs]
            valid = [False] * self._mapping.seasons
            dates: list[date | None] = [None] * self._mapping.seasons
            baselines: list[float | None] = [None] * self._mapping.seasons
            for t, day in chosen[name].items():
                what = f"{item} {name}" + (f" {day}" if day else "")
                found = self._fullest(modality, cube, day, what, reading)
                if found is not None:
                    number, tile = found
                    reading.noted += absurd(what, modality, tile)
                    valid[t], dates[t] = True, day
                    baselines[t] = cube.baseline(name, day, number)
                    for array, values in zip(arrays, tile, strict=True):
                        array[t] = values
            reading.arrays[name], reading.dates[name] = arrays, dates
            reading.valid[name] = valid
            reading.baselines[name] = baselines
        return reading

    def _fullest(
        self, modality: Modality, cube: Cube, day: date | None, what: str, reading: Reading
    ) -> tuple[int, list[np.ndarray]] | None:
        """Returns number and tile of the fullest acquisition of a day.

        None after writing down why none can be used.
        """
        names = cube.passes(modality.name, day)
        found, numbers = [], []
        for number, name in enumerate(names):
            where = what if len(names) == 1 else f"{what} ({name})"
            grids = self._checked(modality, cube, day, number, where, reading)
            if grids is not None:
                found.append((name, grids))
                numbers.append(number)
        if not found:
            return None
        best, noted = fullest(what, found, modality.nodata, modality.limit)
        reading.noted += noted
        return numbers[best], found[best][1]

    def _checked(
        self,
        modality: Modality,
        cube: Cube,
        day: date | None,
        number: int,
        what: str,
        reading: Reading,
    ) -> list[np.ndarray] | None:
        """Returns a tile that can be used, None after writing down why there is none."""
        try:
            pixels = cube.read(modality.name, day, number)
            grids, remarks = self._applied(self._declared[modality.name], pixels)
            reading.noted += remarks
            for array, values in zip(array_names(modality), grids, strict=True):
                spec = self.arrays[array]
                check_tile(modality.name, values, spec.dtype, spec.shape[1:])
            flat = check_bands(modality, grids)
        except TileError as error:
            reading.skipped.append(Remark(what, str(error), error.kind))
            return None
        share = min(float(each.all(axis=0).mean()) for each in measured(modality, grids))
        if share == 0 or share < self._mapping.min_valid:
            why = f"only {share:.0%} of the pixels measured"
            reading.noted.append(Remark(what, why, "unmeasured"))
            return None
        reading.noted += flat
        return grids


def _stem(item: str) -> str:
    """Returns the name of a place: that of its file without ending, or of its sample."""
    return item[: -len(".nc")] if item.lower().endswith(".nc") else item


def _released(modality: Modality, release: str) -> Modality:
    """Returns a modality of a release, unless it names whose its statistics are."""
    return modality if modality.release else replace(modality, release=release)


def _with_files(path: Path, mapping: Mapping) -> list[str]:
    """Returns the modalities of a mapping that are there; all if none is, for the message."""
    if mapping.format != "geotiff":
        return list(mapping.modalities)
    present = {name for each in index_images(path, mapping.key).values() for name in each.tiles}
    return [name for name in mapping.modalities if name in present] or list(mapping.modalities)


def _converted(values: np.ndarray, dtype: str) -> np.ndarray:
    if values.dtype == dtype:
        return values
    target = np.dtype(dtype)
    if not values.size:
        return values.astype(target)
    if target.kind in "iu":
        limits: Any = np.iinfo(target)
        found = values
        whole = values.dtype.kind in "iu" or bool(np.all(values == np.floor(values)))
    else:
        limits, whole = np.finfo(target), True
        found = values[np.isfinite(values)]
    if not whole or found.min(initial=0) < limits.min or found.max(initial=0) > limits.max:
        raise TileError(f"{values.min()}..{values.max()} cannot be stored as {dtype}", "mismatch")
    return values.astype(target)
