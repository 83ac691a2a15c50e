"""Arrays of a zarr group in a ZIP file (zarr storage format, version 2).

Nothing is unpacked to disk: members are looked up by name, and what a header says is checked
against a limit before memory is taken for it.
"""

from __future__ import annotations

import itertools
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import imagecodecs
import numpy as np

from seamo_fast.errors import DataError
from seamo_fast.files import check_regular

_MOST: Final = 2**28  # bytes of a decoded chunk
_MOST_META: Final = 2**20  # bytes of a JSON member, or of an array that is read whole
_MOST_CHUNKS: Final = 2**14  # of a row
_KINDS: Final = "biufMmUS"


class ZarrZip:
    """A group, opened for reading; use it as a context manager.

    Args:
        file: The ZIP file, or its bytes as a file.
        name: What messages call it.

    Raises:
        DataError: It is no ZIP file.
    """

    def __init__(self, file: Path | IO[bytes], name: str) -> None:
        self.name = name
        try:
            if isinstance(file, Path):
                check_regular(file)
            self._zip = zipfile.ZipFile(file)
            self._members = {each.filename: each for each in self._zip.infolist()}
        except Exception as error:  # damaged files raise whatever their parser meets
            raise DataError(f"{name} cannot be read as a ZIP file ({error!r})") from error

    def __enter__(self) -> ZarrZip:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def __contains__(self, array: str) -> bool:
        return f"{array}/.zarray" in self._members

    def array(self, array: str) -> ZarrArray:
        """Returns an array of the group.

        Raises:
            DataError: There is none of that name, or it is not described as zarr 2 does.
        """
        if array not in self:
            held = sorted(name[: -len("/.zarray")] for name in self._members if "/.zarray" in name)
            newer = "; zarr 3 groups cannot be read" if "zarr.json" in self._members else ""
            raise DataError(
                f"{self.name} has no zarr array {array!r}; it holds {', '.join(held) or 'none'}"
                f"{newer}"
            )
        meta, attributes = self._json(f"{array}/.zarray"), self._json(f"{array}/.zattrs")
        try:
            return ZarrArray(self, array, meta, attributes)
        except (KeyError, TypeError, ValueError, OverflowError, SyntaxError) as error:
            raise DataError(
                f"{self.name}: array {array} is not described as zarr 2 does ({error})"
            ) from error

    def holds(self, name: str) -> bool:
        """Whether there is a member of this name."""
        return name in self._members

    def member(self, name: str, most: int) -> bytes | None:
        """Returns the bytes of a member, None if there is none of that name.

        Raises:
            DataError: It is damaged or longer than `most`.
        """
        info = self._members.get(name)
        if info is None:
            return None
        try:
            with self._zip.open(info) as file:
                data = file.read(most + 1)
        except Exception as error:  # damaged files raise whatever their parser meets
            raise DataError(f"{self.name}: {name} cannot be read ({error!r})") from error
        if len(data) > most:
            raise DataError(f"{self.name}: {name} is longer than the {most} bytes expected")
        return data

    def checksums(self, array: str) -> dict[str, int]:
        """Returns a number for the stored bytes of each chunk of an array; reads none of them."""
        start = f"{array}/"
        return {
            name[len(start) :]: (each.file_size << 32 | each.CRC) % 2**64
            for name, each in self._members.items()
            if name.startswith(start) and not name.startswith(f"{start}.")
        }

    def _json(self, name: str) -> dict[str, Any]:
        data = self.member(name, _MOST_META)
        try:
            found = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.name}: {name} is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise DataError(f"{self.name}: {name} is {type(found).__name__}; expected an object")
        return found


class ZarrArray:
    """One array; its chunks are decoded when they are asked for.

    Attributes:
        shape: Its shape.
        chunks: Shape of a chunk.
        dtype: Its dtype, in native byte order.
        attributes: What `.zattrs` holds.
        fill_value: What chunks that are not there hold, as `.zarray` says; None if it does not.
    """

    def __init__(
        self, group: ZarrZip, name: str, meta: dict[str, Any], attributes: dict[str, Any]
    ) -> None:
        self._group = group
        self._name = name
        self.attributes = attributes
        self.shape = _sizes(meta["shape"], least=0)
        self.chunks = _sizes(meta["chunks"], least=1)
        self._stored = np.dtype(str(meta["dtype"]))
        self.dtype = self._stored.newbyteorder("=")
        self.fill_value = meta["fill_value"]
        self._compressor = meta["compressor"]
        self._separator = str(meta.get("dimension_separator", "."))
        self._nbytes = math.prod(self.chunks) * self._stored.itemsize
        self._cache: dict[tuple[int, ...], np.ndarray] = {}
        if meta["zarr_format"] != 2 or meta["order"] != "C" or meta.get("filters"):
            raise ValueError("expected format 2 in C order without filters")
        if len(self.chunks) != len(self.shape) or self._stored.kind not in _KINDS:
            raise ValueError(f"chunks {self.chunks} of dtype {self._stored}")
        if not 0 < self._nbytes <= _MOST:
            raise ValueError(f"a chunk of {self._nbytes} bytes; expected at most {_MOST}")

    def row(self, index: int) -> np.ndarray:
        """Returns array[index], 0 <= index < shape[0]; chunks are kept for the next rows.

        Raises:
            DataError: A chunk is damaged, or the row is absurdly large.
        """
        counts = self._counts()
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        if size > _MOST or math.prod(map(len, counts)) > _MOST_CHUNKS:
            raise DataError(
                f"{self._group.name}: row {index} of array {self._name} {list(self.shape)} takes "
                f"{size} bytes in chunks of {list(self.chunks)}; expected at most {_MOST} bytes "
                f"and {_MOST_CHUNKS} chunks"
            )
        out = np.empty(self.shape[1:], self.dtype)
        first = index // self.chunks[0]
        self._cache = {key: kept for key, kept in self._cache.items() if key[0] == first}
        for rest in itertools.product(*counts):
            starts = [n * step for n, step in zip(rest, self.chunks[1:], strict=True)]
            sizes = [
                min(step, size - start)
                for step, size, start in zip(self.chunks[1:], self.shape[1:], starts, strict=True)
            ]
            place = tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))
            chunk = self._chunk((first, *rest))[index % self.chunks[0], ...]
            out[place] = chunk[tuple(slice(size) for size in sizes)]
        return out

    def checksums(self, index: int) -> list[int] | None:
        """Returns a number for each stored chunk of a row; None where rows share chunks."""
        return self._checksums.get(index, []) if self.chunks[0] == 1 else None

    @cached_property
    def _checksums(self) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for key, number in self._group.checksums(self._name).items():
            row = key.split(self._separator, 1)[0]
            if row.isdecimal():
                rows.setdefault(int(row), []).append(number)
        return rows

    def absent(self, index: int) -> list[tuple[tuple[int, ...], str]]:
        """Returns place and name of each chunk of array[index] that is not in the file.

        By the format they hold the fill value; of pixels they are lost.
        """
        first = index // self.chunks[0]
        chunks = [
            (rest, self._member((first, *rest))) for rest in itertools.product(*self._counts())
        ]
        return [(rest, member) for rest, member in chunks if not self._group.holds(member)]

    def all(self) -> np.ndarray:
        """Returns the whole array, which must be small.

        Raises:
            DataError: It is large, or a chunk is damaged.
        """
        if not self.shape:
            return self._chunk(())
        chunks = math.ceil(self.shape[0] / self.chunks[0])
        if math.prod(self.shape) * self.dtype.itemsize > _MOST_META or chunks > _MOST_CHUNKS:
            raise DataError(f"{self._group.name}: array {self._name} {list(self.shape)} is large")
        rows = [self.row(index) for index in range(self.shape[0])]
        return np.stack(rows) if rows else np.empty(self.shape, self.dtype)

    def _counts(self) -> list[range]:
        """Returns the numbers of the chunks along each axis but the first."""
        return [
            range(math.ceil(size / step))
            for size, step in zip(self.shape[1:], self.chunks[1:], strict=True)
        ]

    def _member(self, key: tuple[int, ...]) -> str:
        return f"{self._name}/{self._separator.join(map(str, key)) or '0'}"

    def _chunk(self, key: tuple[int, ...]) -> np.ndarray:
        if key not in self._cache:
            self._cache[key] = self._decode(key)
        return self._cache[key]

    def _decode(self, key: tuple[int, ...]) -> np.ndarray:
        member = self._member(key)
        data = self._group.member(member, self._nbytes + self._nbytes // 8 + 2**16)
        if data is None:
            fill = np.zeros((), self.dtype) if self.fill_value is None else self.fill_value
            try:
                return np.broadcast_to(np.asarray(fill).astype(self.dtype), self.chunks)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"{self._group.name}: fill value of {self._name}") from error
        try:
            raw = _decompress(data, self._compressor, self._nbytes)
        except Exception as error:  # damaged chunks raise whatever their decoder meets
            raise DataError(
                f"{self._group.name}: chunk {member} is damaged ({type(error).__name__}: {error})"
            ) from error
        values = np.frombuffer(raw, self._stored).reshape(self.chunks)
        return values.astype(self.dtype, copy=False)


def _sizes(value: Sequence[int], *, least: int) -> tuple[int, ...]:
    if len(value) > 8 or not all(type(n) is int and least <= n < 2**31 for n in value):
        raise ValueError(f"sizes {value!r}")
    return tuple(value)


def _decompress(data: bytes, compressor: dict[str, Any] | None, size: int) -> bytes:
    """Returns exactly `size` bytes; never takes memory for more."""
    codec = "none" if compressor is None else str(compressor["id"])
    raw: bytes
    if codec == "none":
        raw = data
    elif codec == "blosc":
        # the header's counts of decoded and of coded bytes, which the decoder trusts
        said = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
        if said != (size, len(data)):
            raise ValueError(f"{said} bytes by its header, expected {(size, len(data))}")
        raw = bytes(imagecodecs.blosc_decode(data))
    elif codec == "zstd":
        raw = bytes(imagecodecs.zstd_decode(data, out=size))
    elif codec in ("zlib", "gzip"):
        raw = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, size + 1)
    else:
        raise ValueError(f"compressor {codec!r}; expected blosc, zstd, zlib, gzip or none")
    if len(raw) != size:
        raise ValueError(f"{len(raw)} bytes, expected {size}")
    return raw
