"""JSON and YAML that may come from a stranger, with bounds; what messages repeat of them."""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

from seamo_fast.files.regular import open_regular

_MOST_MEMORY: Final = 2**30  # bytes that the contents of a JSON file may take
_VALUE: Final = 72  # bytes of the smallest list, in another list
_SMALL: Final = 2**20
_YAML_BYTES: Final = 2**20
_YAML_VALUES: Final = 10_000  # after aliases
_YAML_DEPTH: Final = 30
_LONGEST_LINE: Final = 1000
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


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


def parse_json(data: bytes | str, unique: bool = True) -> Any:
    """Returns what JSON text says; no key twice, no NaN or infinity, and bounded memory.

    Args:
        data: The text.
        unique: Look for keys that come twice, which takes half as long again as the rest.

    Raises:
        ValueError: It is damaged, nested too deep, too large, or says something two ways.
    """
    _check_size(data)
    try:
        hook = _unique if unique else None
        return json.loads(data, object_pairs_hook=hook, parse_constant=_no_number)
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
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has the key {shown(twice)} twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"it has {text} in place of a number")


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
    return parse_yaml(data.decode())


def parse_yaml(text: str) -> Any:
    """Returns what YAML text says; see `read_yaml`.

    Raises:
        ValueError: As `read_yaml`.
    """
    try:
        loader = _YamlLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _yaml_values(node, {}, 0) > _YAML_VALUES:
            raise ValueError(f"it holds more than {_YAML_VALUES} values, or they repeat themselves")
        return _constructed(loader, node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _constructed(loader: _YamlLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_document(node)
    except (LookupError, AttributeError) as error:  # what PyYAML meets in `!!int ""`
        raise ValueError(f"a value does not fit its tag ({shown(error)})") from error


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


def shown(value: object) -> str:
    """Returns what a message says of a value from a file: its repr, shortened."""
    return _SHORT.repr(value)


def brief(text: object) -> str:
    """Returns a message that repeats names from a file: on one line, and not without end."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[:_LONGEST_LINE])
    return line if len(line) < _LONGEST_LINE else f"{line} ..."
