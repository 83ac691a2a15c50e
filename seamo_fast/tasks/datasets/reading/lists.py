"""The lists that say which items are in which part of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Final

from seamo_fast.errors import DataError
from seamo_fast.files import read_regular

_MAX_BYTES: Final = 2**28
_STAMP: Final = re.compile(r"(?<!\d)(\d{8})T\d{4,6}(?!\d)")


def read_lines(path: Path) -> list[str]:
    """Returns the stripped lines of a text file that are not empty.

    Raises:
        DataError: It cannot be read, or is no text.
    """
    try:
        text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read: {error}") from error
    if "\0" in text:
        raise DataError(f"list {path} cannot be read: it is no text")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_rows(path: Path, columns: int) -> list[list[str]]:
    """Returns the rows of a CSV file without quotes; spaces around values are dropped.

    Raises:
        DataError: It cannot be read, or a row has another number of columns.
    """
    rows = [[value.strip() for value in line.split(",")] for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not all(row):
            raise DataError(f"{path} must have {columns} columns, but row {number} is {row[:4]}")
    return rows


def find_file(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """Returns the first of the named files that is in one of the folders."""
    return next((f / name for f in folders for name in names if (f / name).is_file()), None)


def find_folder(root: Path, names: Sequence[str], what: str) -> Path:
    """Returns the first of the named folders below a root, or the root for ".".

    Raises:
        DataError: There is none.
    """
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise DataError(f"{root} has no folder of {what}; looked for {' or '.join(names)}")
    return found


def check_name(name: str, where: Path) -> str:
    """Returns a file or folder name of a list, which must not lead elsewhere.

    Raises:
        DataError: It has a path separator, or is no name.
    """
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise DataError(f"{where} names {name!r}, which is no file name")
    return name


def check_parts(parts: Mapping[str, Iterable[str]], where: Path) -> dict[str, str]:
    """Returns the part of every name.

    Raises:
        DataError: A name is in two parts.
    """
    found: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if found.setdefault(name, part) != part:
                raise DataError(
                    f"the lists in {where} share items: {name} is in {found[name]} and {part}"
                )
    return found


def stamp_date(name: str) -> date | None:
    """Returns the day of the first YYYYMMDDTHHMMSS in a name, None without one."""
    match = _STAMP.search(name)
    try:
        return datetime.strptime(match[1], "%Y%m%d").date() if match else None
    except ValueError:
        return None
