"""Whether only this user and root may change a file: what native code is loaded from.

Who may write a library runs code as everybody who loads it. So each folder on the way to it, and
each symbolic link, must belong to this user or to root, and others must not be able to write it. A
folder such as /tmp (sticky) is fine: there nobody replaces what belongs to another. What was
checked from the root down cannot change afterwards but by those who are trusted.

This file imports nothing of the package: setup.py uses it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

WRITABLE = stat.S_IWGRP | stat.S_IWOTH  # by others than the owner
_MOST_LINKS = 40


def objection(path: Path, like: Path | None = None) -> str | None:
    """Why native code is not loaded from a path; None if it may be.

    Args:
        path: A file or folder. What is not there yet cannot be objected to.
        like: A file beside it that runs already, such as the module that loads it: its owner is
            trusted, those who may write it may write `path`, and the folders are not looked at.
    """
    try:
        if like is not None:
            beside = like.stat()
            return _wrong(path, path.stat(), beside.st_uid, beside.st_mode)
        return next(filter(None, (_wrong(*each) for each in _way_to(path))), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"


def describe(path: Path) -> str:
    """The owner and mode of a file or folder, as in "owner alice, mode 755"."""
    try:
        found = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    return f"owner {_name(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):o}"


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, which others cannot write whatever the umask."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o755, exist_ok=True)


def _way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields all that decides what a path is, from the root down: folders, links, the file."""
    at, links = Path("/"), 0
    names = list(reversed(path.absolute().parts[1:]))
    yield at, at.lstat()
    while names:
        name = names.pop()
        entry = at.parent if name == ".." else at / name
        found = entry.lstat()
        yield entry, found
        if not stat.S_ISLNK(found.st_mode):
            at = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = entry.readlink()
        at = Path("/") if target.is_absolute() else at
        names += reversed(target.parts[target.is_absolute() :])


def _wrong(path: Path, found: os.stat_result, owner: int = 0, mode: int = 0) -> str | None:
    """What is wrong with one file, folder or link; others may have the owner and mode given."""
    # whoever owns the root folder may change all: in some containers root has another number
    trusted = {0, os.geteuid(), Path("/").stat().st_uid, owner}
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    link = stat.S_ISLNK(found.st_mode)
    if found.st_uid not in trusted:
        wrong = f"belongs to {_name(found.st_uid)}"
        remedy = "set SEAMO_FAST_CACHE to a folder of your own"
    elif found.st_mode & WRITABLE & ~mode and not sticky and not link:
        who = "everybody" if found.st_mode & stat.S_IWOTH else "its group"
        wrong, remedy = (
            f"can be written by {who}",
            f"run chmod go-w {path}, or set SEAMO_FAST_CACHE",
        )
    else:
        return None
    return f"{path} {wrong}, who could put other code there: {remedy}"


def _name(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"
