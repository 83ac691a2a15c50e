"""Writes one array of a shard, as a `.npy` file or a folder of TIFF files; reads the latter."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import tifffile

from seamo_fast.data.shards.manifest import ArraySpec, Encoding
from seamo_fast.errors import DataError
from seamo_fast.files import brief, sync

_LEVEL: Final = 6  # of deflate; higher ones take twice the time for 1 % of the bytes


class ArrayWriter(Protocol):
    """Appends records to one array of a shard."""

    def append(self, values: np.ndarray) -> int | list[int]:
        """Writes one record [T, Cg, Hg, Wg]; returns its CRC-32, of each file if they are many."""
        ...

    def close(self) -> None:
        """Completes the array and waits until it is on the disk."""
        ...

    def abandon(self) -> None:
        """Closes what is open; the files are about to be deleted."""
        ...


def array_writer(folder: Path, name: str, spec: ArraySpec, encoding: Encoding) -> ArrayWriter:
    """Returns the writer of array `name` in a shard folder."""
    if encoding == "tiff":
        return _TiffFolder(folder / name)
    return _NpyFile(folder / f"{name}.npy", spec)


def tiff_name(record: int, season: int) -> str:
    """Returns the file name of one season of a record."""
    return f"{record:05d}_{season}.tif"


def encode_tiff(values: np.ndarray) -> bytes:
    """Returns [Cg, Hg, Wg] as a pixel-interleaved TIFF file, deflated."""
    buffer = io.BytesIO()
    image = np.moveaxis(values, 0, -1)
    tifffile.imwrite(
        buffer,
        np.ascontiguousarray(image[..., 0] if len(values) == 1 else image),
        photometric="minisblack",
        planarconfig=None if len(values) == 1 else "contig",
        compression="zlib",
        compressionargs={"level": _LEVEL},
        # differences of floats do not deflate better, and nvTIFF reads no floating predictor
        predictor=2 if values.dtype.kind in "iu" else 1,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def check_tiff(file: BinaryIO, spec: ArraySpec) -> None:
    """Compares the header of a TIFF file with one season of a record; decodes no pixel.

    Raises:
        DataError: It is no TIFF file of the expected dtype and size.
    """
    with _decoding(), tifffile.TiffFile(file) as tiff:
        _is_planar(tiff.pages.first, spec)


def decode_tiff(data: bytes, spec: ArraySpec) -> np.ndarray:
    """Returns one season [Cg, Hg, Wg] of a record from its TIFF file.

    Raises:
        DataError: The bytes are no TIFF file of the expected dtype and size.
    """
    bands, height, width = spec.shape[1:]
    with _decoding(), tifffile.TiffFile(io.BytesIO(data)) as tiff:
        planar = _is_planar(tiff.pages.first, spec)
        values = tiff.pages.first.asarray()
    if not planar:
        values = np.moveaxis(values.reshape(height, width, bands), -1, 0)
    return np.ascontiguousarray(values)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise whatever their decoder meets
        why = brief(f"{type(error).__name__}: {error}")
        raise DataError(f"cannot be decoded ({why})") from error


def _is_planar(page: Any, spec: ArraySpec) -> bool:
    """Compares a page of tifffile with a record; returns whether its bands come one by one."""
    bands, height, width = spec.shape[1:]
    expected = (height, width) if bands == 1 else (height, width, bands)
    planar = page.shape != expected and page.axes == "SYX"  # rewritten by another program
    expected = (bands, height, width) if planar else expected
    if page.shape != expected or page.dtype != spec.dtype:
        raise DataError(
            f"holds {page.dtype} {list(page.shape)}, but the manifest says {spec.dtype} "
            f"{list(expected)}"
        )
    return bool(planar)


class _NpyFile:
    """All records of an array in one file."""

    def __init__(self, path: Path, spec: ArraySpec) -> None:
        self._path = path
        self._spec = spec
        self._records = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, values: np.ndarray) -> int:
        data = values.reshape(-1).view(np.uint8).data
        self._file.write(data)
        self._records += 1
        return zlib.crc32(data)

    def close(self) -> None:
        self._write_header()
        self._file.close()
        sync(self._path)

    def abandon(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads a header so that the first axis can grow: its length stays the same.
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(np.dtype(self._spec.dtype).newbyteorder("<"))
        shape = (self._records, *self._spec.shape)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


class _TiffFolder:
    """One file for each season of each record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = 0
        folder.mkdir()

    def append(self, values: np.ndarray) -> list[int]:
        checksums = []
        for season, image in enumerate(values):
            data = encode_tiff(image)
            (self._folder / tiff_name(self._records, season)).write_bytes(data)
            checksums.append(zlib.crc32(data))
        self._records += 1
        return checksums

    def close(self) -> None:
        for file in self._folder.iterdir():
            sync(file)
        sync(self._folder)

    def abandon(self) -> None:
        pass
