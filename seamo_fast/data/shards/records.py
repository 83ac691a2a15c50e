"""What the records.json of a shard says."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast.data.shards.manifest import ShardEntry
from seamo_fast.errors import DataError
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
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    if zlib.crc32(data) != entry.crc32:
        raise DataError(f"{path} fails its checksum: it was changed after packing; {remedy}")
    shape = entry.samples, len(modalities), seasons
    try:
        return _parse(json.loads(data), shape, modalities, arrays)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is not as expected ({error!r}); {remedy}") from error


def _parse(
    records: list[dict[str, Any]],
    shape: tuple[int, int, int],
    modalities: Sequence[str],
    arrays: Sequence[str],
) -> Records:
    valid = [[record["valid"][name] for name in modalities] for record in records]
    days = [[_days(record["dates"][name]) for name in modalities] for record in records]
    crc32 = [[record["crc32"][name] for name in arrays] for record in records]
    return Records(
        ids=[record["id"] for record in records],
        valid=np.array(valid, bool).reshape(shape).transpose(0, 2, 1),
        dates=np.array(days, np.int32).reshape(shape).transpose(0, 2, 1),
        crc32=np.array(crc32, np.uint32),
    )


def _days(dates: Sequence[str | None]) -> list[int]:
    return [date.fromisoformat(day).toordinal() - _EPOCH if day else MISSING_DATE for day in dates]
