"""Files that are written whole or not at all, and what a full disk says."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seamo_fast.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the body a file to write, which takes the place of `path` when it is on the disk.

    If the body or the disk fails, `path` stays what it was. The file's mode is what the umask says,
    whatever writes it. One process at a time may write a file; what a killed one left is written
    over.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that their owner alone may read
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, needed: int = 0) -> bytes:
    """Writes a JSON file whole or not at all; returns its bytes.

    Args:
        path: The file.
        value: What it holds; no NaN.
        needed: See `writing`.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    with writing(path, needed), replacing(path) as temporary:
        temporary.write_bytes(data)
    return data


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns an OSError of the body, which writes `path`, into a DataError.

    Args:
        path: File or folder being written.
        needed: Bytes of the shard that it is part of, for the message of a full disk; 0 for others.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
        free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
        shard = f"{needed / 1e6:.1f} MB are needed for this shard and " if needed else ""
        kept = " (finished shards are kept)" if needed else ""
        raise DataError(
            f"no space left to write {path}: {shard}{free / 1e6:.1f} MB are free; free some space "
            f"or choose another folder, then run the same command again{kept}"
        ) from error
