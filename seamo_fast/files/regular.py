"""Only regular files are read: a named pipe would be waited for, a device read without end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

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
