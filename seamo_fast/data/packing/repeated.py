"""Samples of one name, which a source can hold in two of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.files import brief, read_json


def repeated(samples: Iterable[tuple[str, str]]) -> list[Remark]:
    """Returns a remark (kind "name") for each name that comes more than once.

    Args:
        samples: The name of each sample, and where it is.
    """
    places: dict[str, list[str]] = {}
    for name, place in samples:
        places.setdefault(name, []).append(place)
    return [
        Remark(name, f"{len(found)} samples have this name: {', '.join(found[:5])}", "name")
        for name, found in places.items()
        if len(found) > 1
    ]


def packed_samples(folder: Path, shards: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the name of each sample of some shards of a folder, and its shard.

    Raises:
        DataError: A records.json cannot be read.
    """
    for shard in shards:
        path = folder / shard / "records.json"
        try:
            names = [record["id"] for record in read_json(path)]
        except (OSError, KeyError, TypeError, ValueError) as error:
            why = brief(error)
            raise DataError(f"{path} cannot be read ({why}); delete {path.parent}") from error
        yield from ((name, f"{shard} record {n}") for n, name in enumerate(names))
