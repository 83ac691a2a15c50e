"""What a shard set says about itself (`manifest.json`), and how its files are written whole."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast._version import __version__
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality, list_modalities

FORMAT: Final = 1
DTYPES: Final = ("uint8", "uint16", "int16", "float16", "float32")
_SHARD_NAME: Final = re.compile(r"shard-\d{5,}")


class ArraySpec(NamedTuple):
    """One record of an array: dtype name and shape [T, Cg, Hg, Wg]."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one record."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class ShardEntry(NamedTuple):
    """One shard folder: its name, number of samples and the CRC-32 of its records.json."""

    name: str
    samples: int
    crc32: int


class Remark(NamedTuple):
    """Something of the source that was left out or is unusual, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """The description of a shard set.

    Attributes:
        source: Where the samples came from.
        release: Release name of the source.
        seasons: T, stored dates of a sample.
        modalities: In the order of the M axis, with the statistics that normalise them.
        arrays: For each array file (`array_names`) one record's dtype and shape.
        shards: The shard folders in the order of the sample numbers.
        skipped: What could not be packed.
        noted: What was packed but is unusual.
        created_by: Program and version that wrote the set.
    """

    source: str
    release: str
    seasons: int
    modalities: tuple[Modality, ...]
    arrays: dict[str, ArraySpec]
    shards: tuple[ShardEntry, ...]
    skipped: tuple[Remark, ...] = ()
    noted: tuple[Remark, ...] = ()
    created_by: str = f"seamo_fast {__version__}"

    def save(self, folder: Path) -> None:
        """Writes `folder/manifest.json` whole or not at all.

        Raises:
            DataError: The disk is full or the folder cannot be written.
        """
        write_json(
            folder / "manifest.json",
            {
                "format": FORMAT,
                "source": self.source,
                "release": self.release,
                "seasons": self.seasons,
                "modalities": [modality.to_dict() for modality in self.modalities],
                "arrays": {name: spec._asdict() for name, spec in self.arrays.items()},
                "shards": [entry._asdict() for entry in self.shards],
                "skipped": [remark._asdict() for remark in self.skipped],
                "noted": [remark._asdict() for remark in self.noted],
                "created_by": self.created_by,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads and checks `folder/manifest.json`.

        Raises:
            DataError: It is missing, damaged, of another format, or contradicts itself.
        """
        data = _read_manifest(folder)
        where = folder / "manifest.json"
        try:
            manifest = cls(
                source=data["source"],
                release=data["release"],
                seasons=data["seasons"],
                modalities=tuple(Modality.from_dict(each) for each in data["modalities"]),
                arrays={
                    name: ArraySpec(spec["dtype"], tuple(spec["shape"]))
                    for name, spec in data["arrays"].items()
                },
                shards=tuple(ShardEntry(**each) for each in data["shards"]),
                skipped=tuple(Remark(**each) for each in data["skipped"]),
                noted=tuple(Remark(**each) for each in data["noted"]),
                created_by=data["created_by"],
            )
            for modality in manifest.modalities:
                check_modality(modality)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{where} is not a description of shards ({error!r}); run the pack command again"
            ) from error
        manifest._check(where)
        return manifest

    def _check(self, where: Path) -> None:
        expected = [name for modality in self.modalities for name in array_names(modality)]
        if list(self.arrays) != expected:
            raise DataError(
                f"{where} describes the arrays {', '.join(self.arrays)}, but its modalities are "
                f"stored in {', '.join(expected)}; run the pack command again"
            )
        for modality in self.modalities:
            for name, grid in zip(array_names(modality), modality.grids, strict=True):
                self._check_array(where, name, len(grid.bands))
        for entry in self.shards:
            if not _SHARD_NAME.fullmatch(entry.name):
                raise DataError(f"{where} names a shard {entry.name!r}; expected shard-00000")

    def _check_array(self, where: Path, name: str, bands: int) -> None:
        spec = self.arrays[name]
        if spec.dtype not in DTYPES:
            raise DataError(
                f"{where}: array {name} has dtype {spec.dtype}; expected one of {', '.join(DTYPES)}"
            )
        if len(spec.shape) != 4 or spec.shape[:2] != (self.seasons, bands):
            raise DataError(
                f"{where}: array {name} has records of shape {list(spec.shape)}; expected "
                f"{self.seasons} seasons and {bands} bands: [{self.seasons}, {bands}, H, W]"
            )


def _read_manifest(folder: Path) -> dict[str, Any]:
    where = folder / "manifest.json"
    try:
        data = json.loads(where.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_why_no_manifest(folder)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be read ({error}); run the pack command again") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise DataError(
            f"{folder} has shard format {found!r}, but this version reads format {FORMAT}; "
            "pack the data again"
        )
    return data


def _why_no_manifest(folder: Path) -> str:
    if not folder.is_dir():
        return f"shard folder {folder} does not exist; make it with `{_COMMAND} SOURCE {folder}`"
    if any(folder.glob("shard-*")):
        return f"{folder} was not packed to its end; run the same pack command again to finish it"
    return (
        f"{folder} is not a shard folder: it has no manifest.json; "
        f"make one with `{_COMMAND} SOURCE OUT`"
    )


_COMMAND: Final = "python -m seamo_fast.data.pack"


def array_names(modality: Modality) -> list[str]:
    """Returns the array file names, without suffix, of a modality's grids."""
    return [f"{modality.name}_{grid.gsd:g}m" for grid in modality.grids]


def check_modality(modality: Modality) -> None:
    """Raises ValueError if a modality cannot be stored or contradicts the registered one.

    A modality that bears a registered name must have the registered bands, order and unit.
    """
    if not re.fullmatch(r"\w+", modality.name):
        raise ValueError(
            f"modality name {modality.name!r} must consist of letters, digits and underscores"
        )
    if modality.name not in list_modalities():
        return
    try:
        known = get_modality(modality.name, modality.release)
    except ValueError:
        known = get_modality(modality.name)
    known.check_bands(modality.band_names)
    if modality.unit != known.unit:
        raise ValueError(
            f"modality {modality.name!r} has unit {modality.unit!r}; expected {known.unit!r}; "
            "convert the values, or give the modality another name"
        )


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns an OSError of the body, which writes `path`, into a DataError.

    Args:
        path: File or folder being written.
        needed: Bytes that the whole unit of work needs, for the message of a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
        free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
        raise DataError(
            f"no space left to write {path}: {max(needed, 1) / 1e6:.1f} MB are needed for this "
            f"shard and {free / 1e6:.1f} MB are free; free some space or choose another folder, "
            "then run the same command again (finished shards are kept)"
        ) from error


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> bytes:
    """Writes a JSON file whole or not at all; returns its bytes.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path, len(data)):
        try:
            partial.write_bytes(data)
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    return data


def record_bytes(arrays: Sequence[ArraySpec]) -> int:
    """Returns the bytes that one sample takes on disk."""
    return sum(spec.nbytes for spec in arrays)
