"""Reads LMDB databases (format version 1, 64-bit) without their C library.

That library trusts its file: a damaged page makes it crash or read elsewhere. Here every offset is
checked. The layout of meta, branch, leaf and overflow pages is that of `mdb.c` of OpenLDAP.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from seamo_fast.errors import DataError
from seamo_fast.files import open_regular

_MAGIC: Final = 0xBEEFC0DE
_HEADER: Final = struct.Struct("<QHHHH")  # page number, unused, flags, end of slots, end of gap
_META: Final = struct.Struct("<II16x")  # magic, version, address and size of the map
_TREE: Final = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, 3 page counts, entries, root
_TAIL: Final = struct.Struct("<QQ")  # last page, transaction
_NODE: Final = struct.Struct("<HHHH")  # size (or child) low, high, flags (or child), key length
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_BIG: Final = 1  # the value is on overflow pages
_NO_PAGE: Final = 2**64 - 1
_DEEPEST: Final = 32
_PAGE_SIZES: Final = tuple(2**n for n in range(9, 17))


class _Node(NamedTuple):
    """A slot of a page: its key, and the child page, or where the value is."""

    key: bytes
    child: int
    start: int
    size: int


class LmdbFile:
    """The unnamed database of an LMDB environment, for reading; a context manager.

    Args:
        path: The environment's folder, or its data.mdb.

    Raises:
        DataError: It is missing, or no such database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "data.mdb" if path.is_dir() else path
        try:
            with open_regular(self.path) as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: the file is empty
            raise DataError(f"{self.path} cannot be read ({error})") from error
        try:
            self._size, self.entries, self._root = self._newest_meta()
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> LmdbFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()

    def keys(self) -> Iterator[bytes]:
        """Yields every key, in the order of the database.

        Raises:
            DataError: A page is damaged.
        """
        found = 0
        for node in self._leaves(self._root, 0, set()):
            found += 1
            yield node.key
        if found != self.entries:
            raise self._damaged(f"{found} entries of {self.entries}")

    def get(self, key: bytes, most: int) -> bytes | None:
        """Returns the value of a key, None if there is none.

        Raises:
            DataError: A page is damaged, or the value is longer than `most`.
        """
        page = self._root
        for _ in range(_DEEPEST):
            if page == _NO_PAGE:
                return None
            leaf, nodes = self._nodes(page)
            if leaf:
                node = next((each for each in nodes if each.key == key), None)
                return None if node is None else self._value(node, most)
            # the first key of a branch page is empty and stands below all others
            below = [each for n, each in enumerate(nodes) if n == 0 or each.key <= key]
            page = below[-1].child
        raise self._damaged("the tree is too deep")

    def _newest_meta(self) -> tuple[int, int, int]:
        """Returns page size, entries and root of the newer of the two meta pages that is whole."""
        first = self._meta(0)
        found = [first] if first else []
        for size in [first[1]] if first else _PAGE_SIZES:
            second = self._meta(size)
            if second and second[1] == size:
                found.append(second)
        if not found:
            raise DataError(f"{self.path} is no LMDB database of format 1")
        _, size, entries, root = max(found)
        return size, entries, root

    def _meta(self, start: int) -> tuple[int, int, int, int] | None:
        """Returns transaction, page size, entries and root of the meta page at `start`."""
        tree = start + _HEADER.size + _META.size
        end = tree + 2 * _TREE.size + _TAIL.size
        if end > len(self._map):
            return None
        flags = _HEADER.unpack_from(self._map, start)[2]
        magic, version = _META.unpack_from(self._map, start + _HEADER.size)
        size = _TREE.unpack_from(self._map, tree)[0]
        *_, entries, root = _TREE.unpack_from(self._map, tree + _TREE.size)
        transaction = _TAIL.unpack_from(self._map, end - _TAIL.size)[1]
        if (magic, version, flags) != (_MAGIC, 1, _META_PAGE) or size not in _PAGE_SIZES:
            return None
        return transaction, size, entries, root

    def _leaves(self, page: int, depth: int, seen: set[int]) -> Iterator[_Node]:
        if page == _NO_PAGE:
            return
        if depth > _DEEPEST or page in seen:
            raise self._damaged(f"page {page} is met twice")
        seen.add(page)
        leaf, nodes = self._nodes(page)
        for node in nodes:
            if leaf:
                yield node
            else:
                yield from self._leaves(node.child, depth + 1, seen)

    def _nodes(self, page: int) -> tuple[bool, list[_Node]]:
        start = self._start(page)
        number, _, flags, lower, _ = _HEADER.unpack_from(self._map, start)
        kind = flags & (_BRANCH | _LEAF | _OVERFLOW | _META_PAGE)
        if number != page or kind not in (_BRANCH, _LEAF) or flags & 0x60:
            raise self._damaged(f"page {page} is no branch or leaf")
        if not _HEADER.size < lower <= self._size or lower % 2:
            raise self._damaged(f"page {page} has slots up to {lower}")
        slots = struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", self._map, start + 16)
        return kind == _LEAF, [self._node(page, start, slot, kind == _LEAF) for slot in slots]

    def _node(self, page: int, start: int, slot: int, leaf: bool) -> _Node:
        if slot + _NODE.size > self._size:
            raise self._damaged(f"page {page} has a slot at {slot}")
        low, high, flags, length = _NODE.unpack_from(self._map, start + slot)
        key = start + slot + _NODE.size
        value = key + length
        size = low | high << 16
        child = _NO_PAGE
        inside = size
        if not leaf:
            child, size, inside = size | flags << 32, 0, 0
        elif flags & _BIG:
            inside = 8
        elif flags:
            raise self._damaged(f"page {page} has a node of kind {flags}")
        if value + inside > start + self._size:
            raise self._damaged(f"page {page} has a node beyond its end")
        if leaf and flags & _BIG:
            (child,) = struct.unpack_from("<Q", self._map, value)
        return _Node(bytes(self._map[key:value]), child, value, size)

    def _value(self, node: _Node, most: int) -> bytes:
        if node.size > most:
            raise self._damaged(f"a value of {node.size} bytes; expected at most {most}")
        start = node.start
        if node.child != _NO_PAGE:
            page = self._start(node.child)
            number, _, flags = _HEADER.unpack_from(self._map, page)[:3]
            if number != node.child or not flags & _OVERFLOW:
                raise self._damaged(f"page {node.child} is no overflow page")
            start = page + _HEADER.size
        if start + node.size > len(self._map):
            raise self._damaged("a value beyond the end of the file")
        return bytes(self._map[start : start + node.size])

    def _start(self, page: int) -> int:
        if not 2 <= page < len(self._map) // self._size:
            raise self._damaged(f"page {page} of {len(self._map) // self._size}")
        return page * self._size

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path} is damaged or cut short ({why})")
