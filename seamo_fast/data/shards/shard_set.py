"""Reading of shard sets: any sample, from any thread."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast.data.shards.array_files import check_tiff, decode_tiff, tiff_name
from seamo_fast.data.shards.manifest import Manifest, array_names
from seamo_fast.data.shards.mapped_arrays import MappedArrays
from seamo_fast.data.shards.records import Records, check_size, load_records
from seamo_fast.errors import DataError
from seamo_fast.files import open_regular
from seamo_fast.modalities import Modality

_LOOKED_AT: Final = 8  # tiles


class Sample(NamedTuple):
    """One record, as stored.

    Attributes:
        bands: For each modality its grids, read-only [T, Cg, Hg, Wg].
        valid: bool [T, M].
        dates: int32 [T, M], days since 1970-01-01, `MISSING_DATE` where unknown.
    """

    bands: dict[str, list[np.ndarray]]
    valid: np.ndarray
    dates: np.ndarray


class ShardSet:
    """Random access to the samples of a shard set, from any thread.

    Opening checks the manifest and the header and length of every `.npy` file, or the length of the
    records and the header of a TIFF file of each array; a record's checksum is verified when it is
    first read.

    Args:
        path: The folder that `python -m seamo_fast.pack` wrote.

    Raises:
        DataError: The folder is no shard set, was not packed to its end, or is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = Manifest.load(self.path)
        self._ends = list(accumulate(entry.samples for entry in self.manifest.shards))
        self._arrays = {name: column for column, name in enumerate(self.manifest.arrays)}
        self._records: dict[int, Records] = {}
        self._selected: dict[tuple[str, ...] | None, list[int]] = {}
        self._mapped = MappedArrays()
        self._compare()
        self._verified = np.zeros((len(self), len(self._arrays), self.seasons), bool)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_records": {}}

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What is stored, in the order of the M axis."""
        return self.manifest.modalities

    @property
    def seasons(self) -> int:
        """T, the stored dates of a sample."""
        return self.manifest.seasons

    def select(self, names: Sequence[str] | None = None) -> tuple[Modality, ...]:
        """Returns the named modalities, all if None.

        Raises:
            DataError: A name is not stored here; the message lists those that are.
        """
        stored = {modality.name: modality for modality in self.modalities}
        for name in names or ():
            if name not in stored:
                raise DataError(
                    f"{self.path} has no modality {name!r}; it holds {', '.join(stored)}"
                )
        return self.modalities if names is None else tuple(stored[name] for name in names)

    def describe(self, index: int) -> str:
        """Returns where sample `index` is and what it is called in its source."""
        shard, record = self._locate(index)
        entry = self.manifest.shards[shard]
        return f"{self.path / entry.name} record {record} ({self.id(index)})"

    def id(self, index: int) -> str:
        """Returns what sample `index` is called in its source."""
        shard, record = self._locate(index)
        return self._load(shard).ids[record]

    def read(
        self,
        index: int,
        modalities: Sequence[str] | None = None,
        seasons: Sequence[int] | None = None,
        verify: bool = True,
    ) -> Sample:
        """Returns a sample.

        Args:
            index: Sample number, 0 <= index < len(self).
            modalities: Names in the order of the M axis; all if None.
            seasons: Which of the stored seasons, in the order of the T axis; all if None.
            verify: Whether to compare the checksums of arrays that are read for the first time.

        Raises:
            DataError: The record is damaged, or a modality is not stored here.
            IndexError: There is no such sample.
        """
        times = list(range(self.seasons) if seasons is None else seasons)
        valid, dates = self.groups(index, modalities)
        bands = {
            modality.name: [
                self._grid(index, name, times, verify) for name in array_names(modality)
            ]
            for modality in self.select(modalities)
        }
        return Sample(bands, valid[times], dates[times])

    def groups(
        self, index: int, modalities: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns which groups of a sample are valid, bool [T, M], and their dates, int32 [T, M].

        Raises:
            DataError: records.json is damaged, or a modality is not stored here.
            IndexError: There is no such sample.
        """
        shard, record = self._locate(index)
        records = self._load(shard)
        columns = self._columns(None if modalities is None else tuple(modalities))
        return records.valid[record][:, columns], records.dates[record][:, columns]

    def complete(self, modalities: Sequence[str]) -> bool:
        """Returns whether every group of every sample is valid; a damaged record makes it False."""
        columns = self._columns(tuple(modalities))
        try:
            shards = range(len(self.manifest.shards))
            return all(self._load(shard).valid[:, :, columns].all() for shard in shards)
        except DataError:
            return False

    def tiles(
        self, index: int, array: str, seasons: Sequence[int], verify: bool = True
    ) -> list[np.ndarray]:
        """Returns the tiles of one array (`array_names`) of a sample at some seasons.

        Returns:
            For each season [Cg, Hg, Wg], read-only; of a `.npy` file views of its memory map.

        Raises:
            DataError: The record is damaged.
            IndexError: There is no such sample.
        """
        if self.manifest.encoding == "tiff":
            return [self._decode(index, array, season, verify) for season in seasons]
        record = self._record(index, array, verify)
        return [record[season] for season in seasons]

    def file(self, index: int, array: str, season: int, verify: bool = True) -> bytes:
        """Returns the TIFF file of one tile, if the shards are encoded so.

        Raises:
            DataError: The file is damaged or cannot be read.
            IndexError: There is no such sample.
        """
        path = self._tiff(index, array, season)
        try:
            with open_regular(path) as opened:
                data = opened.read()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}); {_remedy(path.parents[1])}"
            ) from error
        if verify and not self._verified[index, self._arrays[array], season]:
            self._check(index, array, memoryview(data), season)
        return data

    def verify(self, shard: int | None = None) -> list[str]:
        """Reads every record, of one shard or of all; returns the message of each damaged one."""
        ends = [0, *self._ends]
        bad = []
        for index in range(len(self)) if shard is None else range(ends[shard], ends[shard + 1]):
            try:
                self.read(index)
            except DataError as error:
                bad.append(str(error))
        return bad

    def _compare(self) -> None:
        """Compares the numbers of the manifest with the files, before memory follows from them."""
        tiff = self.manifest.encoding == "tiff"
        for shard, entry in enumerate(self.manifest.shards):
            if tiff:
                check_size(self.path, entry, self.seasons * len(self.modalities))
                continue
            for name, spec in self.manifest.arrays.items():
                path = self.path / entry.name / f"{name}.npy"
                self._mapped.add(shard, name, path, spec, entry.samples)
        for name in self.manifest.arrays if tiff else ():
            self._compare_tile(name)

    def _compare_tile(self, array: str) -> None:
        """Refuses the shape of an array if none of a few tiles has it in its header."""
        step = max(len(self) // _LOOKED_AT, 1)
        for index in range(0, len(self), step):
            path = self._tiff(index, array, 0)
            try:
                with open_regular(path) as file:
                    check_tiff(file, self.manifest.arrays[array])
                return
            except OSError as error:
                reason = DataError(f"cannot be read ({error.strerror})")
            except DataError as error:
                reason = error
        raise DataError(f"{path} {reason}; {_remedy(path.parents[1])}") from reason

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.manifest.shards[shard].samples

    def _columns(self, names: tuple[str, ...] | None) -> list[int]:
        if names not in self._selected:
            self._selected[names] = [self.modalities.index(each) for each in self.select(names)]
        return self._selected[names]

    def _grid(self, index: int, array: str, seasons: list[int], verify: bool) -> np.ndarray:
        if self.manifest.encoding == "npy" and seasons == list(range(self.seasons)):
            return self._record(index, array, verify)
        spec = self.manifest.arrays[array]
        grid = np.empty((len(seasons), *spec.shape[1:]), spec.dtype)
        for t, tile in enumerate(self.tiles(index, array, seasons, verify)):
            grid[t] = tile
        grid.flags.writeable = False
        return grid

    def _record(self, index: int, array: str, verify: bool) -> np.ndarray:
        """Returns one record [T, Cg, Hg, Wg] of a `.npy` file."""
        shard, record = self._locate(index)
        values = self._mapped.get(shard, array)[record]
        if verify and not self._verified[index, self._arrays[array], 0]:
            self._check(index, array, values.reshape(-1).view(np.uint8).data, None)
        return values

    def _tiff(self, index: int, array: str, season: int) -> Path:
        shard, record = self._locate(index)
        return self.path / self.manifest.shards[shard].name / array / tiff_name(record, season)

    def _decode(self, index: int, array: str, season: int, verify: bool) -> np.ndarray:
        data = self.file(index, array, season, verify)
        try:
            return decode_tiff(data, self.manifest.arrays[array])
        except DataError as error:
            path = self._tiff(index, array, season)
            raise DataError(f"{path} {error}; {_remedy(path.parents[1])}") from error

    def _check(self, index: int, array: str, data: memoryview, season: int | None) -> None:
        """Compares the checksum of all seasons, or of one, and remembers that it was right."""
        shard, record = self._locate(index)
        column = self._arrays[array]
        file = f"{array}.npy" if season is None else f"{array}/{tiff_name(record, season)}"
        expected = self._load(shard).crc32[record, column]
        if zlib.crc32(data) != (expected if season is None else expected[season]):
            raise DataError(
                f"{self.describe(index)} fails the checksum of {file}: the file was damaged "
                "after packing; delete this shard folder and run the same pack command again"
            )
        self._verified[index, column, slice(None) if season is None else season] = True

    def _load(self, shard: int) -> Records:
        if shard not in self._records:
            names = [modality.name for modality in self.modalities]
            entry = self.manifest.shards[shard]
            self._records[shard] = load_records(
                self.path, entry, names, list(self._arrays), self.seasons
            )
        return self._records[shard]


def _remedy(folder: Path) -> str:
    return f"delete {folder} and run the same pack command again"
