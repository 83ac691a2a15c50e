"""What names say: which files are data, and which two are one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from seamo_fast.errors import DataError


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no data: its name begins with a dot, or macOS left it."""
    return name.startswith(".") or name == "__MACOSX"


def any_hidden(path: str) -> bool:
    """Whether a path of an archive, or a folder in it, is no data."""
    return any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


def has_ending(name: str, endings: str | tuple[str, ...]) -> bool:
    """Whether a name is data and ends so, in any case; `endings` are lower case."""
    return name.lower().endswith(endings) and not is_hidden(name)


def lower_ending(name: str) -> str:
    """Returns a file name, or a path, whose ending is lower case."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{dot}{ending.lower()}" if dot and "/" not in ending else name


def list_files(folder: Path, endings: str | tuple[str, ...]) -> list[Path]:
    """Returns the files of a folder that are data and end so, sorted; none without a folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries if has_ending(each.name, endings))
    return [folder / name for name in names]


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields each folder below a root that is data: its path, ending in "/", folders and files.

    The path of the root itself is empty. Names are sorted; files that are no data come too. Links
    are followed, and folders behind several of them come once.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        state = os.stat(folder)  # noqa: PTH116 (the name is text already)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(each for each in folders if not is_hidden(each))
        below = os.path.relpath(folder, root)
        yield "" if below == "." else f"{below}/", folders, sorted(files)


def on_disk(path: Path, ending: str = "") -> Path:
    """Returns the file of this name, whose ending may be written in another case.

    Args:
        path: The name; returned as it is where there is no such file.
        ending: What ends the name, its suffix if empty.

    Raises:
        DataError: There are two.
    """
    ending = ending or path.suffix
    stem = path.name[: len(path.name) - len(ending)]
    spellings = dict.fromkeys((path.name, stem + ending.lower(), stem + ending.upper()))
    found = [each for each in map(path.with_name, spellings) if each.is_file()]
    if not found and ending:
        files = list_files(path.parent, ending.lower())
        found = [each for each in files if each.name[: -len(ending)] == stem]
    if len(found) > 1 and not found[0].samefile(found[1]):
        raise DataError(
            f"{found[0].name} and {found[1].name} are two files of one name (in {path.parent}); "
            "delete or rename one",
            "name",
        )
    return found[0] if found else path


def twins(names: Iterable[str], key: Callable[[str], str] = str.casefold) -> dict[str, str]:
    """Returns the names that others share but for what `key` takes away, and one of those."""
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for name in names:
        other = first.get(key(name))
        if other is None:
            first[key(name)] = name
        else:
            found[name] = other
            found.setdefault(other, name)
    return found
