"""Files: written whole or not at all, regular ones read, bounded JSON and YAML, a full disk."""

from __future__ import annotations

import errno
import json
import os
import reprlib
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml

from seamo_fast.errors import ConfigError, DataError

CACHE: Final = "SEAMO_FAST_CACHE"
_MOST_MEMORY: Final = 2**30  # bytes that the contents of a JSON file may take
_VALUE: Final = 72  # bytes of the smallest list, in another list
_SMALL: Final = 2**20
_LONGEST_LINE: Final = 1000
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_KINDS: Final = {
    stat.S_IFDIR: (errno.EISDIR, "a folder"),
    stat.S_IFIFO: (errno.EINVAL, "a named pipe"),
    stat.S_IFSOCK: (errno.EINVAL, "a socket"),
    stat.S_IFCHR: (errno.EINVAL, "a device"),
    stat.S_IFBLK: (errno.EINVAL, "a device"),
}


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


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, unless opening or reading it could wait for ever.

    Raises:
        OSError: It cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    check_regular(path)
    return path.open("rb")


def check_regular(path: Path) -> None:
    """Refuses what is no regular file, for libraries that open a path themselves.

    Raises:
        OSError: It is not there, or is a folder, a named pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        number, kind = _KINDS[stat.S_IFMT(mode)]
        raise OSError(number, f"it is {kind}; expected a regular file", str(path))


def read_bounded(path: Path) -> bytes:
    """Returns the bytes of a JSON file, or so many that `parse_json` refuses it.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size  # read() takes as much memory as it may need
        return file.read(min(size, _MOST_MEMORY // 4) + 1)


def read_json(path: Path) -> Any:
    """Reads a JSON file that may come from a stranger; see `parse_json`.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        ValueError: It is not what `parse_json` takes.
    """
    return parse_json(read_bounded(path))


def parse_json(data: bytes | str) -> Any:
    """Returns what JSON text says; no key twice, no NaN or infinity, and bounded memory.

    Raises:
        ValueError: It is damaged, nested too deep, too large, or says something two ways.
    """
    _check_size(data)
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _check_size(data: bytes | str) -> None:
    if len(data) < _SMALL:
        return
    marks = (b",", b"[", b"{") if isinstance(data, bytes) else (",", "[", "{")
    needed = 4 * len(data) + _VALUE * sum(map(data.count, marks))  # type: ignore[arg-type]
    if needed > _MOST_MEMORY:
        raise ValueError(
            f"it takes {needed >> 20} MiB of memory or more; JSON may take {_MOST_MEMORY >> 20} MiB"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it has the key {shown(twice)} twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"it has {text} in place of a number")


def shown(value: object) -> str:
    """Returns what a message says of a value from a file: its repr, shortened."""
    return _SHORT.repr(value)


def brief(text: object) -> str:
    """Returns a message that repeats names from a file: on one line, and not without end."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[:_LONGEST_LINE])
    return line if len(line) < _LONGEST_LINE else f"{line} ..."


_YAML_BYTES: Final = 2**20
_YAML_VALUES: Final = 10_000  # after aliases
_YAML_DEPTH: Final = 30


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


class _YamlLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that is given twice, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    at = key.start_mark.line + 1
                    raise yaml.YAMLError(f"the key {key.value!r} comes again in line {at}")
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file holds; only plain values, none of them made by its tags.

    Raises:
        ValueError: It is no YAML in UTF-8, gives a key twice, or is larger or deeper than settings
            are, also by its aliases.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        data = file.read(_YAML_BYTES + 1)
    if len(data) > _YAML_BYTES:
        raise ValueError(f"it is larger than {_YAML_BYTES} bytes, and no file of settings")
    try:
        loader = _YamlLoader(data.decode())
        node = loader.get_single_node()
        if node is None:
            return None
        if _yaml_values(node, {}, 0) > _YAML_VALUES:
            raise ValueError(f"it holds more than {_YAML_VALUES} values, or they repeat themselves")
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _yaml_values(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Returns how many values a node has with its aliases, and too many if it holds itself."""
    if depth > _YAML_DEPTH:
        raise ValueError(f"its values are nested more than {_YAML_DEPTH} deep")
    if id(node) not in sizes:
        sizes[id(node)] = _YAML_VALUES + 1
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = (each for item in below for each in (item if isinstance(item, tuple) else [item]))
        sizes[id(node)] = 1 + sum(_yaml_values(part, sizes, depth + 1) for part in parts)
    return sizes[id(node)]


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
