"""Ways in which a tree of JSON or YAML, and its text, can be wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

Path = tuple[Any, ...]
ABSURD: Final = (
    *(0, -1, 1, 3, 1e30, 2**31, 2**40, 2**63, 2**64 + 1, 10**30, 1.5, True, False, None),
    *(float("nan"), float("inf"), "", "x", "../../etc/passwd", "/etc/passwd", "a\x00b", "é" * 300),
    *([], {}, [[]], [None], {"a": {}}, [1, "x"], "1", "nan", "2020-13-45", "0001-01-01"),
)  # fmt: skip


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Yields where the values of a tree are, but for its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items if isinstance(tree, (dict, list)) else ():
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def damage(rng: np.random.Generator, tree: Any) -> tuple[Any, str]:
    """Returns a copy with one thing wrong, and what."""
    tree = copy.deepcopy(tree)
    # of a long list one item stands for all: keys are chosen by their depth first
    found = list(places(tree))
    depths = sorted({len(path) for path in found})
    depth = depths[int(rng.integers(len(depths)))]
    level = [path for path in found if len(path) == depth]
    path = level[int(rng.integers(len(level)))]
    parent, key = at(tree, path[:-1]), path[-1]
    shown = ".".join(map(str, path))
    how = str(rng.choice(["value", "value", "value", "near", "drop", "copy", "swap", "add"]))
    if how == "drop":
        del parent[key]
        return tree, f"{shown} dropped"
    if how == "copy" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
        return tree, f"{shown} twice"
    if how == "add" and isinstance(parent, dict):
        parent["strange"] = copy.deepcopy(parent[key])
        return tree, f"strange beside {shown}"
    if how == "swap":
        other = level[int(rng.integers(len(level)))]
        parent[key] = copy.deepcopy(at(tree, other))
        return tree, f"{shown} holds that of {'.'.join(map(str, other))}"
    if how == "near" and isinstance(parent[key], (int, float)):
        parent[key] = parent[key] + int(rng.choice([-1, 1, 2]))
        return tree, f"{shown} = {parent[key]}"
    parent[key] = copy.deepcopy(ABSURD[int(rng.integers(len(ABSURD)))])
    return tree, f"{shown} = {str(parent[key])[:40]!r}"


TEXTS: Final = ("cut", "flip", "nest", "twice", "bytes", "empty", "bom", "tab", "line")


def damage_text(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Returns the bytes of a text file with one thing wrong, and what."""
    how = str(rng.choice(TEXTS))
    place = int(rng.integers(max(1, len(data))))
    if how == "cut":
        data = data[:place]
    elif how == "flip":
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        data = bytes(changed)
    elif how == "nest":
        data = data[:place] + b"[" * 100_000 + data[place:]
    elif how == "twice":
        data = data + data
    elif how == "bytes":
        data = data[:place] + rng.bytes(20) + data[place:]
    elif how == "empty":
        data = b""
    elif how == "bom":
        data = b"\xef\xbb\xbf" + data
    elif how == "tab":
        data = data[:place] + b"\t" + data[place:]
    else:
        lines = data.splitlines(keepends=True)
        del lines[int(rng.integers(len(lines)))]
        data = b"".join(lines)
    return data, f"text: {how} at {place}"
