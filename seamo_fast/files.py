"""Files that are written whole or not at all, and what a full disk says."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seamo_fast.errors import DataError


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
