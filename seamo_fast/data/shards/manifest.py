"""What a shard set says about itself (`manifest.json`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from seamo_fast._version import __version__
from seamo_fast.data.shards.remarks import Remark
from seamo_fast.errors import DataError
from seamo_fast.files import brief, read_json, shown, write_json
from seamo_fast.modalities import Modality, get_modality, list_modalities

FORMAT: Final = 1
DTYPES: Final = ("uint8", "uint16", "int16", "float16", "float32")
Encoding = Literal["npy", "tiff"]
ENCODINGS: Final[tuple[Encoding, ...]] = ("npy", "tiff")
_SHARD_NAME: Final = re.compile(r"shard-\d{5,}")
_LONGEST: Final = 64  # letters of a shard's name
_MOST_TILE: Final = 2**28  # bytes of a compressed tile, of which the file says nothing
_LARGEST: Final = 2**40  # of any number in a manifest: 1 TiB a record, 2**40 samples a shard


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
        encoding: How the shards hold their arrays (`seamo_fast.data.shards`).
        statistics: What `python -m seamo_fast.stats` measured, by modality.
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
    encoding: Encoding = "npy"
    statistics: dict[str, Any] = field(default_factory=dict)
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
                "encoding": self.encoding,
                "statistics": self.statistics,
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
            _check_types(data)
            manifest = cls(
                source=data["source"],
                release=data["release"],
                seasons=data["seasons"],
                modalities=tuple(Modality.from_dict(each) for each in data["modalities"]),
                arrays={
                    name: ArraySpec(spec["dtype"], tuple(_list(spec["shape"], "a shape")))
                    for name, spec in data["arrays"].items()
                },
                shards=tuple(ShardEntry(**each) for each in data["shards"]),
                skipped=tuple(Remark(**each) for each in data["skipped"]),
                noted=tuple(Remark(**each) for each in data["noted"]),
                encoding=data.get("encoding", "npy"),
                statistics=dict(data.get("statistics", {})),
                created_by=data["created_by"],
            )
            for modality in manifest.modalities:
                check_modality(modality)
                modality.normalization()
            manifest._check(where)
        except ValueError as error:
            raise DataError(f"{where}: {brief(error)}") from error
        except (AttributeError, KeyError, TypeError, OverflowError) as error:
            raise DataError(
                f"{where} is not a description of shards ({shown(error)}); "
                "run the pack command again"
            ) from error
        return manifest

    def _check(self, where: Path) -> None:
        if not self.shards or not self.modalities:
            missing = "modalities" if self.shards else "shards"
            raise DataError(f"{where} names no {missing}; run the pack command again")
        expected = [name for modality in self.modalities for name in array_names(modality)]
        if list(self.arrays) != expected:
            raise DataError(
                f"{where} describes the arrays {brief(', '.join(self.arrays))}, but its modalities "
                f"are stored in {brief(', '.join(expected))}; run the pack command again"
            )
        for modality in self.modalities:
            for name, grid in zip(array_names(modality), modality.grids, strict=True):
                self._check_array(where, name, len(grid.bands))
        if self.encoding not in ENCODINGS:
            raise DataError(
                f"{where} has encoding {shown(self.encoding)}; "
                f"expected one of {', '.join(ENCODINGS)}"
            )
        names = set()
        for entry in self.shards:
            if not _SHARD_NAME.fullmatch(entry.name) or len(entry.name) > _LONGEST:
                raise DataError(f"{where} names a shard {shown(entry.name)}; expected shard-00000")
            if entry.name in names:
                raise DataError(f"{where} names {entry.name} twice; run the pack command again")
            names.add(entry.name)
            _check_number(where, f"samples of {entry.name!r}", entry.samples, least=1)
            _check_number(where, f"crc32 of {entry.name!r}", entry.crc32, least=0)

    def _check_array(self, where: Path, name: str, bands: int) -> None:
        spec = self.arrays[name]
        if spec.dtype not in DTYPES:
            raise DataError(
                f"{where}: array {name} has dtype {brief(spec.dtype)}; "
                f"expected one of {', '.join(DTYPES)}"
            )
        if len(spec.shape) == 4:
            for size in (*spec.shape, spec.nbytes):
                _check_number(where, f"a size of array {name}", size, least=1)
        if len(spec.shape) != 4 or spec.shape[:2] != (self.seasons, bands):
            raise DataError(
                f"{where}: array {name} has records of shape {shown(list(spec.shape))}; expected "
                f"{self.seasons} seasons and {bands} bands: [{self.seasons}, {bands}, H, W]"
            )
        if self.encoding == "tiff" and spec.nbytes > _MOST_TILE * self.seasons:
            raise DataError(
                f"{where}: a tile of array {name} has {spec.nbytes // self.seasons} bytes; "
                f"of a TIFF file at most {_MOST_TILE} are decoded: pack it as npy"
            )


def _check_number(where: Path, what: str, value: object, *, least: int) -> None:
    if type(value) is not int or not least <= value <= _LARGEST:
        raise DataError(f"{where}: {what} is {shown(value)}; run the pack command again")


def _check_types(data: dict[str, Any]) -> None:
    """Raises TypeError where something is not what JSON of this format holds."""
    for key, kind in _TYPES.items():
        if key in data and type(data[key]) is not kind:
            raise TypeError(f"{key} is {shown(data[key])}; expected {kind.__name__}")
    for remark in (*data.get("skipped", ()), *data.get("noted", ())):
        if not all(isinstance(text, str) for text in remark.values()):
            raise TypeError(f"a remark is {shown(remark)}; expected texts")


_TYPES: Final = {
    **dict.fromkeys(("source", "release", "created_by", "encoding"), str),
    **dict.fromkeys(("modalities", "shards", "skipped", "noted"), list),
    **dict.fromkeys(("arrays", "statistics"), dict),
    "seasons": int,
}


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{what} is {shown(value)}; expected list")
    return value


def _read_manifest(folder: Path) -> dict[str, Any]:
    where = folder / "manifest.json"
    try:
        data = read_json(where)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_why_no_manifest(folder)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be read ({error}); run the pack command again") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise DataError(
            f"{where} has shard format {shown(found)}, but this version reads format {FORMAT}; "
            "pack the data again"
        )
    return data


def _why_no_manifest(folder: Path) -> str:
    if not folder.is_dir():
        return f"shard folder {folder} does not exist; make it with `{_COMMAND} SOURCE {folder}`"
    splits = sorted(each.parent.name for each in folder.glob("*/manifest.json"))
    if splits:
        return (
            f"{folder} holds the shard sets {', '.join(splits)}; name one, such as "
            f"{folder / splits[0]}"
        )
    if any(folder.glob("shard-*")):
        return f"{folder} was not packed to its end; run the same pack command again to finish it"
    return (
        f"{folder} is not a shard folder: it has no manifest.json; "
        f"make one with `{_COMMAND} SOURCE OUT`"
    )


def is_packed(folder: Path) -> bool:
    """Whether `python -m seamo_fast.pack` wrote here: a set, several, or part of one."""
    patterns = ("manifest.json", "*/manifest.json", "shard-*")
    return folder.is_dir() and any(next(folder.glob(each), None) for each in patterns)


_COMMAND: Final = "python -m seamo_fast.pack"


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


def record_bytes(arrays: Sequence[ArraySpec]) -> int:
    """Returns the bytes that one sample takes on disk."""
    return sum(spec.nbytes for spec in arrays)
