"""One shard in the making, and what is written down about it."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from seamo_fast.data.shards.array_files import ArrayWriter, array_writer
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.manifest import (
    ArraySpec,
    Encoding,
    ShardEntry,
    array_names,
    record_bytes,
)
from seamo_fast.data.shards.remarks import Remark
from seamo_fast.errors import DataError
from seamo_fast.files import (
    brief,
    parse_json,
    read_bounded,
    read_json,
    shown,
    sync,
    write_json,
    writing,
)
from seamo_fast.modalities import Modality


@dataclass
class ShardReport:
    """What went into a shard (`report.json`); lets a later run see that the shard is its own.

    Attributes:
        items: Names of the source's items that were read for this shard, packed or not.
        settings: Everything else that decides the content.
        skipped: What could not be packed.
        noted: What was packed but is unusual.
        statistics: Of the modalities that came without: name -> `BandStatistics.to_dict`.
        radiometry: How the tiles of Sentinel-2 were judged (`seamo_fast.data.packing.offsets`):
            name -> `JudgedTiles.to_dict`.
        files: What the files of each item were (`seamo_fast.data.packing.sources.fingerprint`);
            empty in shards of earlier versions.
    """

    items: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[Remark] = field(default_factory=list)
    noted: list[Remark] = field(default_factory=list)
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)
    radiometry: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> ShardReport:
        """Reads `folder/report.json`.

        Raises:
            DataError: It is missing or damaged.
        """
        try:
            report = cls(**read_json(folder / "report.json"))
            for name, value in vars(report).items():
                kind = type(getattr(cls(), name))
                if not isinstance(value, kind):
                    raise TypeError(f"{name} is {shown(value)}; expected {kind.__name__}")
            report.skipped = [_remark(each) for each in report.skipped]
            report.noted = [_remark(each) for each in report.noted]
            if report.files and len(report.files) != len(report.items):
                raise ValueError(f"{len(report.files)} files for {len(report.items)} items")
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder} exists but was not written by this program ({brief(error)}); "
                "delete it or choose another folder"
            ) from error
        return report

    def save(self, folder: Path, needed: int = 0) -> None:
        """Writes `folder/report.json`, without `radiometry` and `files` where they are empty.

        Raises:
            DataError: The disk is full (`needed` bytes are needed for the shard).
        """
        remarks = {name: [each._asdict() for each in getattr(self, name)] for name in _REMARKS}
        fields = {**asdict(self), **remarks}
        for name in ("radiometry", "files"):
            if not fields[name]:
                del fields[name]
        write_json(folder / "report.json", fields, needed)


_REMARKS: Final = ("skipped", "noted")


def _remark(found: Any) -> Remark:
    # earlier versions wrote a list [what, why]
    return Remark(**found) if isinstance(found, dict) else Remark(*found)


class ShardFolder:
    """One shard in the making: arrays stream into a hidden folder that `close` renames.

    Use it as a context manager: leaving it by an exception removes the hidden folder.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        modalities: Sequence[Modality],
        arrays: Mapping[str, ArraySpec],
        capacity: int,
        encoding: Encoding = "npy",
    ) -> None:
        self._target = out / name
        self._modalities = modalities
        self._arrays = arrays
        self._encoding = encoding
        self._needed = record_bytes(list(arrays.values())) * capacity
        self._records: list[dict[str, Any]] = []
        self._statistics = {
            modality.name: BandStatistics(len(modality.bands))
            for modality in modalities
            if modality.mean is None
        }
        self._files: dict[str, ArrayWriter] = {}
        with writing(self._target, self._needed):
            self._partial = out / f".{name}.{os.getpid()}"
            self._partial.mkdir()
        try:
            self._open()
        except BaseException:
            self.discard()
            raise

    def _open(self) -> None:
        with writing(self._target, self._needed):
            for array, spec in self._arrays.items():
                self._files[array] = array_writer(self._partial, array, spec, self._encoding)

    def __enter__(self) -> ShardFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Removes the hidden folder; does nothing after `close`."""
        for file in self._files.values():
            with suppress(OSError):  # closing flushes, which fails again on a full disk
                file.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._records)

    def add(
        self,
        id: str,
        arrays: Mapping[str, Sequence[np.ndarray]],
        dates: Mapping[str, Sequence[date | None]],
        valid: Mapping[str, Sequence[bool]],
        place: str = "",
        position: tuple[float, float] | None = None,
    ) -> None:
        """Appends a record; see `ShardWriter.add`."""
        record: dict[str, Any] = {"id": id, "place": place or id, "position": position}
        record.update(dates={}, valid={}, crc32={})
        for modality in self._modalities:
            name = modality.name
            groups = np.array(valid[name], bool)
            grids = self._grids(modality, arrays.get(name), groups)
            days = [day if ok else None for day, ok in zip(dates[name], groups, strict=True)]
            record["dates"][name] = [day.isoformat() if day else None for day in days]
            record["valid"][name] = groups.tolist()
            if name in self._statistics:
                self._statistics[name].add(modality, grids, groups)
            for array, values in zip(array_names(modality), grids, strict=True):
                with writing(self._target, self._needed):
                    record["crc32"][array] = self._files[array].append(values)
        self._records.append(record)

    def _grids(
        self, modality: Modality, grids: Sequence[np.ndarray] | None, valid: np.ndarray
    ) -> list[np.ndarray]:
        specs = [self._arrays[array] for array in array_names(modality)]
        if grids is None and not valid.any():
            return [np.zeros(spec.shape, spec.dtype) for spec in specs]
        if grids is None or len(grids) != len(specs):
            came = "none" if grids is None else len(grids)
            raise ValueError(
                f"modality {modality.name!r} must come as {len(specs)} grids, but got {came}"
            )
        cleaned = []
        for name, spec, values in zip(array_names(modality), specs, grids, strict=True):
            if values.shape != spec.shape or values.dtype != spec.dtype:
                raise ValueError(
                    f"array {name} must be {spec.dtype} {list(spec.shape)}, "
                    f"but got {values.dtype} {list(values.shape)}"
                )
            if not valid.all():
                values = values.copy()
                values[~valid] = 0
            cleaned.append(np.ascontiguousarray(values))
        return cleaned

    def close(self, report: ShardReport) -> ShardEntry:
        """Completes the shard and makes it visible under its name.

        Raises:
            DataError: The disk is full, or a folder of this name exists already.
        """
        report.statistics = {name: each.to_dict() for name, each in self._statistics.items()}
        with writing(self._target, self._needed):
            for file in self._files.values():
                file.close()
        records = write_json(self._partial / "records.json", self._records, self._needed)
        report.save(self._partial, self._needed)
        with writing(self._target):
            self._partial.rename(self._target)
            sync(self._target.parent)
        return ShardEntry(self._target.name, len(self), zlib.crc32(records))


def finished_entry(folder: Path) -> ShardEntry:
    """Returns the manifest entry of a shard folder that exists.

    Raises:
        DataError: Its records.json is missing or damaged.
    """
    try:
        data = read_bounded(folder / "records.json")
        records = parse_json(data)
        if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
            raise TypeError("records.json is no list of records")
        return ShardEntry(folder.name, len(records), zlib.crc32(data))
    except PermissionError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); make it readable") from error
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is damaged ({brief(error)}); delete it and run again") from error
