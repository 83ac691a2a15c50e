"""The shard format: plain `.npy` arrays beside a manifest; anything that numpy reads, reads them.

A shard set is a folder:

    manifest.json            modalities with units and statistics, array shapes, list of shards
    shard-00000/
        <modality>_<gsd>m.npy    [S, T, Cg, Hg, Wg], stored values in the source's dtype
        records.json             for each sample: id, dates, valid groups, CRC-32 of each array
        report.json              which items of the source the shard was made from
    shard-00001/ ...

Invalid groups are stored as zeros without date. A shard folder appears by renaming a complete one,
the manifest last, so whatever is visible is whole.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast.data.manifest import ArraySpec, Manifest, ShardEntry, array_names
from seamo_fast.data.writing import ShardWriter
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tiles import MISSING_DATE

__all__ = ["Sample", "ShardSet", "ShardWriter"]

# Each open array holds a file descriptor; 1024 is the usual limit of a process.
_MAX_OPEN: Final = 256
_EPOCH: Final = date(1970, 1, 1).toordinal()


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


class _Records(NamedTuple):
    """The records.json of a shard: valid [S, T, M], dates [S, T, M], crc32 [S, arrays]."""

    ids: list[str]
    valid: np.ndarray
    dates: np.ndarray
    crc32: np.ndarray


class ShardSet:
    """Random access to the samples of a shard set.

    Opening checks the manifest and the header and length of every array file; a record's checksum
    is verified when it is first read.

    Args:
        path: The folder that `python -m seamo_fast.data.pack` wrote.

    Raises:
        DataError: The folder is no shard set, was not packed to its end, or is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = Manifest.load(self.path)
        self._ends = np.cumsum([entry.samples for entry in self.manifest.shards])
        self._arrays = list(self.manifest.arrays)
        self._verified = np.zeros((len(self), len(self._arrays)), bool)
        self._records: dict[int, _Records] = {}
        self._open: OrderedDict[Path, np.ndarray] = OrderedDict()
        for entry in self.manifest.shards:
            for name, spec in self.manifest.arrays.items():
                _check_file(self.path / entry.name / f"{name}.npy", spec, entry.samples)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict(), "_records": {}}

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
        """Returns where sample `index` lies and what it is called in its source."""
        shard, record = self._locate(index)
        entry = self.manifest.shards[shard]
        return f"{self.path / entry.name} record {record} ({self._load(shard).ids[record]})"

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
        shard, record = self._locate(index)
        records = self._load(shard)
        chosen = self.select(modalities)
        columns = [self.modalities.index(modality) for modality in chosen]
        times = slice(None) if seasons is None else list(seasons)
        bands = {
            modality.name: [
                self._array(shard, record, name)[times] for name in array_names(modality)
            ]
            for modality in chosen
        }
        if verify:
            for modality in chosen:
                self._check(index, modality)
        valid = records.valid[record][times][:, columns]
        return Sample(bands, valid, records.dates[record][times][:, columns])

    def verify(self) -> list[str]:
        """Reads every record; returns the message of each damaged one."""
        bad = []
        for index in range(len(self)):
            try:
                self.read(index)
            except DataError as error:
                bad.append(str(error))
        return bad

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - int(self._ends[shard]) + self.manifest.shards[shard].samples

    def _array(self, shard: int, record: int, name: str) -> np.ndarray:
        return self._map(self.path / self.manifest.shards[shard].name / f"{name}.npy")[record]

    def _check(self, index: int, modality: Modality) -> None:
        shard, record = self._locate(index)
        for name in array_names(modality):
            column = self._arrays.index(name)
            if self._verified[index, column]:
                continue
            data = self._array(shard, record, name).reshape(-1).view(np.uint8).data
            if zlib.crc32(data) != self._load(shard).crc32[record, column]:
                raise DataError(
                    f"{self.describe(index)} fails the checksum of {name}.npy: the file was "
                    "damaged after packing; delete this shard folder and run the same pack "
                    "command again"
                )
            self._verified[index, column] = True

    def _map(self, path: Path) -> np.ndarray:
        if path not in self._open:
            try:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
                self._open[path] = np.asarray(mapped)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def _load(self, shard: int) -> _Records:
        if shard not in self._records:
            self._records[shard] = self._parse(self.manifest.shards[shard])
        return self._records[shard]

    def _parse(self, entry: ShardEntry) -> _Records:
        path = self.path / entry.name / "records.json"
        mend = f"delete {path.parent} and run the same pack command again"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); {mend}") from error
        if zlib.crc32(data) != entry.crc32:
            raise DataError(f"{path} fails its checksum: it was changed after packing; {mend}")
        records = json.loads(data)
        names = [modality.name for modality in self.modalities]
        valid = [[record["valid"][name] for name in names] for record in records]
        days = [[_days(record["dates"][name]) for name in names] for record in records]
        crc32 = [[record["crc32"][name] for name in self._arrays] for record in records]
        return _Records(
            ids=[record["id"] for record in records],
            valid=np.array(valid, bool).transpose(0, 2, 1),
            dates=np.array(days, np.int32).transpose(0, 2, 1),
            crc32=np.array(crc32, np.uint32),
        )


def _days(dates: Sequence[str | None]) -> list[int]:
    return [date.fromisoformat(day).toordinal() - _EPOCH if day else MISSING_DATE for day in dates]


def _check_file(path: Path, spec: ArraySpec, samples: int) -> None:
    """Raises DataError unless a .npy file has the header and length that the manifest says."""
    mend = f"delete {path.parent} and run the same pack command again"
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            expected_size = file.tell() + samples * spec.nbytes
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {mend}") from error
    except ValueError as error:
        raise DataError(f"{path} is not a .npy file ({error}); {mend}") from error
    expected = (samples, *spec.shape)
    if shape != expected or dtype != spec.dtype:
        raise DataError(
            f"{path} holds {dtype} {list(shape)}, but the manifest says {spec.dtype} "
            f"{list(expected)}; {mend}"
        )
    if size != expected_size:
        raise DataError(f"{path} has {size} bytes instead of {expected_size}; {mend}")
