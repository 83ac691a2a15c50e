"""What the records.json of a shard says."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast.data.shards.manifest import ShardEntry
from seamo_fast.errors import DataError
from seamo_fast.files import parse_json, read_bounded, shown
from seamo_fast.modalities import MISSING_DATE

_EPOCH: Final = date(1970, 1, 1).toordinal()


class Records(NamedTuple):
    """The records of a shard.

    Attributes:
        ids: What each sample is called in its source.
        valid: bool [S, T, M].
        dates: int32 [S, T, M], days since 1970-01-01, `MISSING_DATE` where unknown.
        crc32: uint32 [S, arrays] of `.npy` records, [S, arrays, T] of TIFF files.
    """

    ids: list[str]
    valid: np.ndarray
    dates: np.ndarray
    crc32: np.ndarray


def load_records(
    folder: Path, entry: ShardEntry, modalities: Sequence[str], arrays: Sequence[str], seasons: int
) -> Records:
    """Reads the records.json of a shard of the set in `folder`.

    Raises:
        DataError: It is missing or damaged.
    """
    path = folder / entry.name / "records.json"
    remedy = f"delete {path.parent} and run the same pack command again"
    try:
        data = read_bounded(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    if zlib.crc32(data) != entry.crc32:
        raise DataError(f"{path} fails its checksum: it was changed after packing; {remedy}")
    try:
        return _parse(parse_json(data), entry.samples, modalities, arrays, seasons)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not as expected ({shown(error)}); {remedy}") from error


def check_size(folder: Path, entry: ShardEntry, groups: int) -> None:
    """Refuses a number of samples that the records.json of a shard is too short for.

    Args:
        folder: Of the set.
        entry: What the manifest says of the shard.
        groups: T * M, of each of which a record says whether it is valid.

    Raises:
        DataError: It is missing, or too short for its samples.
    """
    path = folder / entry.name / "records.json"
    remedy = f"delete {path.parent} and run the same pack command again"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    if size < entry.samples * groups * len("true,"):
        raise DataError(
            f"{path} has {size} bytes, too few for the {entry.samples} samples of the manifest; "
            f"{remedy}"
        )


def _parse(
    records: Any, samples: int, modalities: Sequence[str], arrays: Sequence[str], seasons: int
) -> Records:
    if not isinstance(records, list) or len(records) != samples:
        raise ValueError(f"expected a list of {samples} records")
    ids = [record["id"] for record in records]
    valid = np.array([[record["valid"][name] for name in modalities] for record in records])
    days = [[[*map(_days, record["dates"][name])] for name in modalities] for record in records]
    dates = np.array(days, np.int32)
    crc32 = np.array([[record["crc32"][name] for name in arrays] for record in records])
    groups = (samples, len(modalities), seasons)
    if not all(isinstance(name, str) for name in ids):
        raise ValueError("an id is no text")
    if valid.shape != groups or valid.dtype != bool or dates.shape != groups:
        raise ValueError(f"valid and dates must be [{seasons}] in each record and modality")
    if crc32.dtype.kind not in "iu" or crc32.min() < 0 or crc32.max() >= 2**32:
        raise ValueError("a crc32 is none")
    if crc32.shape not in ((samples, len(arrays)), (samples, len(arrays), seasons)):
        raise ValueError("crc32 must name each array")
    return Records(ids, valid.transpose(0, 2, 1), dates.transpose(0, 2, 1), crc32.astype(np.uint32))


@functools.lru_cache(4096)
def _days(day: str | None) -> int:
    return MISSING_DATE if day is None else date.fromisoformat(day).toordinal() - _EPOCH
