"""Folders: the cache, one process at a time in a folder, and new ones for results."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Final, TextIO

from seamo_fast.errors import ConfigError

CACHE: Final = "SEAMO_FAST_CACHE"
_LOCK: Final = ".lock"


def cache_folder() -> Path:
    """Returns where generated data and compiled kernels are kept, an absolute path.

    SEAMO_FAST_CACHE, or .cache/seamo_fast in the home folder.

    Raises:
        ConfigError: The home folder is needed, and there is none.
    """
    named = os.environ.get(CACHE) or "~/.cache/seamo_fast"
    folder = Path(named)
    if named.startswith("~"):
        with suppress(RuntimeError):  # nobody knows the home
            folder = folder.expanduser()
        if not folder.is_absolute() or os.environ.get("HOME") == "":
            raise ConfigError(
                f"there is no home folder for the cache {named}: "
                f"set {CACHE} to a folder that nobody else may write"
            )
    return folder.absolute()


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
            file = path.open("a+", encoding="utf-8", errors="replace")
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
def results_folder(named: str | None, path: Path, key: str) -> Iterator[Path]:
    """Makes the folder of results: the one that a user named, else a `new_folder`.

    Args:
        named: What the user named, whatever it holds; other processes are kept out of it.
        path: Otherwise.
        key: The setting that names it.

    Raises:
        ConfigError: As `locked`.
        OSError: A new folder cannot be made.
    """
    if named is None:
        with new_folder(path) as folder:
            yield folder
        return
    with locked(Path(named), key, f"--{key}"):
        yield Path(named)


def new_name(path: Path) -> Path:
    """Returns a name that is not taken: that of `path`, else one with -2, -3 ... at its end."""
    others = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(each for each in chain([path], others) if not each.exists())
