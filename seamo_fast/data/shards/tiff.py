"""TIFF tiles: what their header says, and whether DALI reads them right."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import tifffile

from seamo_fast.files import check_regular, open_regular

# What DALI's decoder reads to the bit; it refuses int16 and float16, and other codes go untested.
DALI_DTYPES: Final = ("uint8", "uint16", "float32")
_DALI_COMPRESSIONS: Final = (1, 5, 8, 32946)  # none, LZW, deflate and its older number
_KINDS: Final = {1: "uint", 2: "int", 3: "float"}
_TYPES: Final = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG of TIFF 6.0
_ASCII: Final = 2
_MAX_COUNT: Final = 1024
# A plain file holds a main image of one band, upright, neither compressed nor predicted ...
_PLAIN: Final = {254: 0, 259: 1, 262: 1, 274: 1, 277: 1, 317: 1}
# ... and no description, tiles or further images, which change what tifffile returns.
_NOT_PLAIN: Final = frozenset((270, 322, 330))
# What GDAL says of the numbers: further items, and the value that means "not measured".
GDAL_METADATA: Final = 42112
GDAL_NODATA: Final = 42113
_MOST_TEXT: Final = 2**20
_PLAIN_DTYPES: Final = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class TiffHeader(NamedTuple):
    """The first image of a TIFF file, by the tags of TIFF 6.0.

    Attributes:
        shape: (H, W, bands).
        dtype: Name of the dtype of all bands, such as "uint16"; "mixed" where they differ.
        compression: Code of tag 259.
        photometric: Code of tag 262.
        planar: The bands are stored one after the other instead of pixel by pixel.
        oriented: Row 0 is the top, column 0 the left.
        single: The file holds no further image.
    """

    shape: tuple[int, int, int]
    dtype: str
    compression: int
    photometric: int
    planar: bool
    oriented: bool
    single: bool


def probe(data: bytes) -> TiffHeader:
    """Returns the header of an encoded classic little-endian TIFF; touches no pixel.

    Raises:
        ValueError: The bytes are no such file.
    """
    view = memoryview(data)
    if bytes(view[:4]) != b"II*\0":
        raise ValueError("is no little-endian classic TIFF")
    try:
        tags, following = _read_tags(view)
        bits = set(tags.get(258, (1,)))
        kinds = set(tags.get(339, (1,)))
        mixed = len(bits) != 1 or len(kinds) != 1
        return TiffHeader(
            shape=(tags[257][0], tags[256][0], _first(tags, 277, 1)),
            dtype="mixed" if mixed else f"{_KINDS.get(kinds.pop(), 'unknown')}{bits.pop()}",
            compression=_first(tags, 259, 1),
            photometric=_first(tags, 262, -1),
            planar=_first(tags, 284, 1) != 1,
            oriented=_first(tags, 274, 1) == 1,
            single=following == 0,
        )
    except (struct.error, LookupError) as error:
        raise ValueError(f"has a damaged TIFF header ({error!r})") from error


def _read_tags(view: memoryview) -> tuple[dict[int, tuple[int, ...]], int]:
    """Returns the values of each tag, none where they are no whole numbers or too many."""
    (start,) = struct.unpack_from("<I", view, 4)
    (entries,) = struct.unpack_from("<H", view, start)
    tags: dict[int, tuple[int, ...]] = {}
    for number in range(entries):
        place = start + 2 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", view, place)
        tags[tag] = ()
        if kind in _TYPES and 0 < count <= _MAX_COUNT:
            code = f"<{count}{_TYPES[kind]}"
            inline = struct.calcsize(code) <= 4
            at = place + 8 if inline else struct.unpack_from("<I", view, place + 8)[0]
            tags[tag] = struct.unpack_from(code, view, at)
    (following,) = struct.unpack_from("<I", view, start + 2 + 12 * entries)
    return tags, following


def _first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return tags[tag][0] if tags.get(tag) else default


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Opens a TIFF file whose pixels are its own.

    What its text says of other files is not followed: that of OME and of microscopes can name any.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        tifffile.TiffFileError: It is no TIFF file.
    """
    check_regular(path)
    return tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False)


def read_plain(path: Path, most: int) -> tuple[np.ndarray, dict[int, str]] | None:
    """Returns the image [H, W] of a TIFF file of one band, uncompressed, its strips in a row.

    With it come the texts of GDAL's tags, where there are any. None for any other file: tifffile
    reads them all, and takes ten times as long for these.

    Args:
        path: The file.
        most: Bytes of pixels beyond which the file is left to others.

    Raises:
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            return None
        data = file.read()
    if data[:4] != b"II*\0":
        return None
    try:
        tags, following = _read_tags(memoryview(data))
        shape = tags[257][0], tags[256][0]
        dtype = f"{_KINDS.get(_first(tags, 339, 1))}{_first(tags, 258, 1)}"
        starts, counts = tags[273], tags[279]
        said = GDAL_NODATA in tags or GDAL_METADATA in tags
        texts = _read_texts(memoryview(data)) if said else {}
    except (struct.error, LookupError):
        return None
    usual = all(_first(tags, tag, default) == default for tag, default in _PLAIN.items())
    if following or not usual or tags.keys() & _NOT_PLAIN or dtype not in _PLAIN_DTYPES:
        return None
    values = np.dtype(dtype).newbyteorder("<")
    in_a_row = len(starts) == len(counts) and all(
        start + count == after
        for start, count, after in zip(starts, counts, starts[1:], strict=False)
    )
    fits = sum(counts) == math.prod(shape) * values.itemsize > 0
    if not in_a_row or not fits or starts[0] + sum(counts) > len(data):
        return None
    return np.frombuffer(data, values, math.prod(shape), starts[0]).reshape(shape), texts


def _read_texts(view: memoryview) -> dict[int, str]:
    """Returns the texts of GDAL's tags.

    Raises:
        LookupError: One is no text, or longer than the file.
    """
    (start,) = struct.unpack_from("<I", view, 4)
    (entries,) = struct.unpack_from("<H", view, start)
    texts = {}
    for number in range(entries):
        place = start + 2 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", view, place)
        if tag not in (GDAL_METADATA, GDAL_NODATA):
            continue
        at = place + 8 if count <= 4 else struct.unpack_from("<I", view, place + 8)[0]
        text = bytes(view[at : at + count]) if kind == _ASCII and count <= _MOST_TEXT else b""
        if len(text) != count or tag in texts:
            raise LookupError(tag)
        texts[tag] = text.rstrip(b"\0").decode("utf-8", "replace").strip()
    return texts


def why_not_dali(data: bytes, dtype: str, shape: Sequence[int]) -> str:
    """Returns why DALI cannot read an encoded tile, or would misread it; empty if it can.

    DALI 2.4 refuses planar float32 and reads planar uint16 of three bands wrongly without an
    error, so nothing planar is given to it.

    Args:
        data: The file.
        dtype: Expected dtype.
        shape: Expected [Cg, Hg, Wg].
    """
    try:
        header = probe(data)
    except ValueError as error:
        return str(error)
    bands, height, width = shape
    expectations = {
        "is planar": not header.planar,
        f"is {header.dtype}": header.dtype == dtype and dtype in DALI_DTYPES,
        f"has the shape {list(header.shape)}": header.shape == (height, width, bands),
        f"has the compression {header.compression}": header.compression in _DALI_COMPRESSIONS,
        f"has the photometric {header.photometric}": header.photometric in (1, 2),
        "is turned": header.oriented,
        "holds several images": header.single,
    }
    return next((reason for reason, met in expectations.items() if not met), "")


def encode_plain(values: np.ndarray) -> np.ndarray:
    """Returns a tile [Cg, Hg, Wg] as an uncompressed pixel-interleaved TIFF, uint8 [bytes]."""
    stream = io.BytesIO()
    # tifffile refuses a planar configuration of one band
    pixels = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    tifffile.imwrite(
        stream,
        np.ascontiguousarray(pixels),
        photometric="minisblack",
        planarconfig=None if len(values) == 1 else "contig",
        metadata=None,
    )
    return np.frombuffer(stream.getvalue(), np.uint8)
