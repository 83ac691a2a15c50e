"""Members of a tar file, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Final

from seamo_fast.data.packing.sources.formats.names import any_hidden
from seamo_fast.errors import DataError
from seamo_fast.files import check_regular, open_regular

_MOST_HEADER: Final = 2**20


class _Headers(io.FileIO):
    """A file that refuses the long reads which only a damaged header asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


class TarIndex:
    """The regular members of a tar file that are not hidden: name -> (offset, size).

    Args:
        path: An uncompressed tar file.

    Raises:
        DataError: It is no tar file, cut short, its headers are damaged, or two members have one
            name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, tuple[int, int]] = {}
        try:
            check_regular(path)
            length = path.stat().st_size
            with _Headers(path) as file, tarfile.TarFile(fileobj=file, errorlevel=1) as archive:
                for member in archive:
                    if not member.isreg() or member.issparse() or any_hidden(member.name):
                        continue
                    if member.size < 0 or member.offset_data + member.size > length:
                        raise tarfile.ReadError(f"{member.name} is cut short")
                    if member.name in self.members:
                        raise DataError(f"{path} holds two members {member.name}", "name")
                    self.members[member.name] = (member.offset_data, member.size)
        except DataError:
            raise
        except Exception as error:  # damaged files raise whatever their parser meets
            raise DataError(f"{path} cannot be read as a tar file ({error})") from error

    def read(self, name: str, most: int) -> bytes:
        """Returns the bytes of a member.

        Raises:
            DataError: It is longer than `most`, or the file cannot be read.
        """
        offset, size = self.members[name]
        if size > most:
            raise DataError(f"{self.path}: {name} has {size} bytes; expected at most {most}")
        try:
            with open_regular(self.path) as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror})") from error
