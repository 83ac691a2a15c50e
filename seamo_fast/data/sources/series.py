"""Time series of places, described by a mapping (`seamo_fast.data.sources.mapping`).

NetCDF-4: each `*.nc` file under SOURCE is one place, or SOURCE is such a file.
GeoTIFF: each folder under SOURCE is one place, with a file for each modality and date.

A place yields a sample for each window of `seasons` time steps that lie `step` apart, starting
every `stride` steps. Values are stored to the bit. A group whose pixels are mostly not measured is
invalid; measured means neither nodata nor NaN in any band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import ClassVar

import numpy as np

from seamo_fast.data.manifest import DTYPES, ArraySpec, Remark, array_names
from seamo_fast.data.sources.base import Reading, TileError, check_tile, list_folders
from seamo_fast.data.sources.cubes import Cube, open_cube
from seamo_fast.data.sources.mapping import Mapping
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality


class Series:
    """Reads time series; an item is a place and yields a sample a window.

    The first place that can be read decides dtypes and sizes.

    Args:
        path: A NetCDF file, or a folder of files or of folders.
        mapping: What the bands are and how windows are cut.
        seasons: T; the mapping's if None.
        modalities: Some of the mapping's, all if None.

    Raises:
        DataError: No place can be read, or a modality is not in the mapping.
    """

    layout: ClassVar[str] = "series"
    looked_for: ClassVar[str] = "*.nc files, or folders of GeoTIFFs, together with --mapping"

    def __init__(
        self,
        path: Path,
        mapping: Mapping,
        seasons: int | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        names = list(mapping.modalities) if modalities is None else list(modalities)
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
        self.modalities = tuple(
            replace(mapping.modalities[name].modality(name), release=mapping.name) for name in names
        )
        self.settings = {"layout": self.layout, "mapping": asdict(self._mapping)}
        self.arrays = self._specify()

    def items(self) -> list[str]:
        """Returns the places: names of files or folders relative to the source."""
        if self.path.is_file():
            return [self.path.name]
        if self._mapping.format == "geotiff":
            return [folder.name for folder in list_folders(self.path)]
        return sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*.nc"))

    def read(self, item: str) -> Iterator[Reading]:
        """Yields a sample for each window of a place.

        Raises:
            DataError: The place cannot be read or is shorter than a window.
        """
        mapping = self._mapping
        with open_cube(self._place(item), mapping) as cube:
            length = (mapping.seasons - 1) * mapping.step + 1
            if len(cube.dates) < length:
                raise DataError(
                    f"{item} has {len(cube.dates)} time steps, but a window of {mapping.seasons} "
                    f"seasons {mapping.step} apart takes {length}"
                )
            stem = item.removesuffix(".nc")
            for start in range(0, len(cube.dates) - length + 1, mapping.stride):
                steps = range(start, start + length, mapping.step)
                yield self._window(f"{stem}/t{start:03d}", item, cube, steps)

    def _place(self, item: str) -> Path:
        return self.path if self.path.is_file() else self.path / item

    def _specify(self) -> dict[str, ArraySpec]:
        problem = f"looked for {self.looked_for}"
        for item in self.items():
            try:
                with open_cube(self._place(item), self._mapping) as cube:
                    return {
                        array_names(modality)[0]: self._spec(modality, cube)
                        for modality in self.modalities
                    }
            except DataError as error:
                problem = str(error)
        raise DataError(f"{self.path} has no place that can be read: {problem}")

    def _spec(self, modality: Modality, cube: Cube) -> ArraySpec:
        for step in range(len(cube.dates)):
            try:
                values = cube.read(modality.name, step)
            except TileError:
                continue
            if values is None:
                continue
            if values.dtype.name not in DTYPES:
                raise DataError(
                    f"modality {modality.name!r} is stored as {values.dtype}; expected one of "
                    f"{', '.join(DTYPES)}: convert the files"
                )
            return ArraySpec(values.dtype.name, (self._mapping.seasons, *values.shape))
        raise DataError(f"modality {modality.name!r} cannot be read at any time step")

    def _window(self, id: str, item: str, cube: Cube, steps: Sequence[int]) -> Reading:
        reading = Reading(id, {}, {}, {})
        for modality in self.modalities:
            name = modality.name
            spec = self.arrays[array_names(modality)[0]]
            array = np.zeros(spec.shape, spec.dtype)
            dates: list[date | None] = [None] * len(steps)
            for t, step in enumerate(steps):
                what = f"{item} {name} {cube.dates[step]}"
                try:
                    values = cube.read(name, step)
                    if values is None:
                        continue
                    check_tile(name, values, spec.dtype, spec.shape[1:])
                except TileError as error:
                    reading.skipped.append(Remark(what, str(error)))
                    continue
                share = _measured_share(values, modality.nodata)
                if share == 0 or share < self._mapping.min_valid:
                    reading.noted.append(Remark(what, f"only {share:.0%} of the pixels measured"))
                    continue
                array[t], dates[t] = values, cube.dates[step]
            reading.arrays[name] = [array]
            reading.dates[name] = dates
            reading.valid[name] = [day is not None for day in dates]
        return reading


def _measured_share(values: np.ndarray, nodata: float | None) -> float:
    measured = np.isfinite(values)
    if nodata is not None:
        measured &= values != nodata
    return float(measured.all(axis=0).mean())
