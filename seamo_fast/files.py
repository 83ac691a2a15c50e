"""Files that are regular, or written whole or not at all; folders of one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from seamo_fast.errors import ConfigError, DataError

_LOCK: Final = ".lock"

_KINDS: Final = {
    stat.S_IFDIR: (errno.EISDIR, "a folder"),
    stat.S_IFIFO: (errno.EINVAL, "a named pipe"),
    stat.S_IFSOCK: (errno.EINVAL, "a socket"),
    stat.S_IFCHR: (errno.EINVAL, "a device"),
    stat.S_IFBLK: (errno.EINVAL, "a device"),
}


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, unless opening or reading it could wait for ever.

    Raises:
        OSError: It cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    check_regular(path)
    return path.open("rb")


def read_regular(path: Path, most: int) -> bytes:
    """Returns the bytes of a file.

    Raises:
        OSError: As `open_regular`, or it has more than `most` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(
                errno.EFBIG, f"it has {size:,} bytes; expected at most {most:,}", str(path)
            )
        return file.read(most)


def check_regular(path: Path) -> None:
    """Refuses what is no regular file, for libraries that open a path themselves.

    Raises:
        OSError: It is not there, or is a folder, a named pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        number, kind = _KINDS[stat.S_IFMT(mode)]
        raise OSError(number, f"it is {kind}; expected a regular file", str(path))


@contextmanager
def locked(folder: Path, what: str, other: str) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it.

    The operating system drops the lock with the process, so a killed one leaves none behind. A
    folder that was made here and is left empty is removed.

    Args:
        folder: What only one process may write.
        what: What messages call it.
        other: Where they say what to do instead: what another folder is given as.

    Raises:
        ConfigError: Another process has it, or it cannot be made or locked.
    """
    made = not folder.exists()
    try:
        with _locked_file(folder, what, other) as file:
            with suppress(OSError):  # on a full disk the lock holds, but names no process
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            try:
                yield
            finally:
                with suppress(OSError):
                    (folder / _LOCK).unlink()
    finally:
        if made:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _locked_file(folder: Path, what: str, other: str) -> TextIO:
    path = folder / _LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{what} {folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            process = file.read().strip()
            file.close()
            raise ConfigError(
                f"{what} {folder} is in use by process {process}; wait for it, or choose another "
                f"{other}"
            ) from None
        except OSError as error:
            file.close()
            raise ConfigError(f"{what} {folder} cannot be locked: {error.strerror}") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the process that had it has removed it since


def move_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves what a folder has of an earlier run into a subfolder previous-1, previous-2 ...

    Args:
        folder: The folder.
        names: What a run leaves in it.

    Returns:
        The subfolder, None if nothing was there.
    """
    present = [folder / name for name in names if (folder / name).exists()]
    if not present:
        return None
    target = next(t for n in count(1) if not (t := folder / f"previous-{n}").exists())
    target.mkdir()
    for path in present:
        path.rename(target / path.name)
    return target


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that nobody had: `path`, else `path-2`, `path-3` ...; removed if left empty.

    Raises:
        OSError: It cannot be made.
    """
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()


@contextmanager
def named_folder(named: str | None, path: Path) -> Iterator[Path]:
    """Makes the folder that a user named, whatever it holds; without a name as `new_folder`.

    Raises:
        OSError: It cannot be made.
    """
    if named is None:
        with new_folder(path) as folder:
            yield folder
    else:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)


def new_name(path: Path) -> Path:
    """Returns a name that is not taken: that of `path`, else one with -2, -3 ... at its end."""
    others = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(each for each in chain([path], others) if not each.exists())


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
