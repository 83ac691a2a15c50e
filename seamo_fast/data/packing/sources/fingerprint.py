"""What the files of a source are, without a look into them: names, sizes, times of change.

A shard keeps a line for each of its items (`ShardReport.files`), such as

    2 files of 65984 bytes, changed 2026-11-30T21:04:11Z, 5d41402abc4b2a76

whose last word is a digest of the name below the source, the size and the time of change, to the
nanosecond, of each file. So a shard is known to come from the files that are there now, or is not
kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

_LATEST: Final = 253402300799  # the last second of the year 9999


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Returns what some files are: their number, bytes, newest change, and a digest of all.

    Args:
        root: The source; what their names are relative to.
        files: Each counts once; one that is not there has no size.
    """
    start, total, newest = len(str(root)), 0, 0
    names = sorted({str(file) for file in files})
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        try:
            found = os.stat(name)  # noqa: PTH116 (a Path takes as long again)
            size, changed = found.st_size, found.st_mtime_ns
        except OSError:  # reading says why
            size, changed = 0, 0
        digest.update(os.fsencode(f"{name[start:]}\0{size}\0{changed}\0"))
        total += size
        newest = max(newest, changed)
    day = datetime.fromtimestamp(min(newest // 10**9, _LATEST), timezone.utc)
    time = day.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{len(names)} files of {total} bytes, changed {time}, {digest.hexdigest()}"


def difference(items: Sequence[str], before: Sequence[str], now: Sequence[str]) -> str:
    """Returns which items have other files than they had, and what the first had; empty if none.

    Args:
        items: Of a shard.
        before: Their fingerprints when they were packed; none in shards of earlier versions.
        now: Those of today.
    """
    if not before:
        return ""
    changed = [n for n, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
    if not changed:
        return ""
    first = changed[0]
    return (
        f"{len(changed)} of its {len(items)} items have changed: {items[first]} was "
        f"{before[first]}, and is {now[first]}"
    )
