"""JPEG and PNG files: what a header claims is checked before anything is decoded."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np

from seamo_fast.data.packing.sources.base import TileError, check_tile
from seamo_fast.files import read_regular

PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
MAX_VALUES: Final = 2**27
_MOST_BYTES: Final = 2**28  # of a JPEG or PNG file
_JPEG_PIXELS: Final = 512  # of a byte at most: a block of 64 takes a bit or more
_DEFLATE: Final = 1032  # bytes of a byte at most (zlib's "Maximum Expansion Factor")
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3

# Bands, rows, columns; None for any number.
Shape = tuple[int | None, int | None, int | None]


def read_picture(path: Path, dtypes: Sequence[str], shape: Shape) -> np.ndarray:
    """Returns the image [C, H, W] of a JPEG or PNG file, by its suffix.

    Args:
        path: The file. Of a palette image the indices are read.
        dtypes: Those allowed; any if empty.
        shape: The sizes expected.

    Raises:
        TileError: The file is no such image.
    """
    reader = _read_png if path.suffix.lower() == ".png" else _read_jpeg
    return reader(path, dtypes, shape)


def check_header(
    name: str, dtype: str, found: Sequence[int], dtypes: Sequence[str], shape: Shape
) -> None:
    """Raises TileError unless what a header says of an image is what is expected."""
    if dtypes and dtype not in dtypes:
        raise TileError(f"{name} has dtype {dtype}, expected {' or '.join(dtypes)}")
    if any(wanted not in (None, size) for wanted, size in zip(shape, found, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise TileError(f"{name} has shape {list(found)}, expected [{expected}]")
    if not 0 < math.prod(found) <= MAX_VALUES:
        raise TileError(f"{name} says that it holds {math.prod(found)} values")


def _read_jpeg(path: Path, dtypes: Sequence[str], shape: Shape) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    found = _jpeg_size(data)
    if found is None:
        raise TileError(f"{path.name} cannot be read: it has no JPEG frame header")
    check_header(path.name, "uint8", found, dtypes, shape)
    scans = len(data) - data.find(b"\xff\xda")  # what precedes them holds no pixel
    _check_claim(path.name, found[1] * found[2], scans * _JPEG_PIXELS)
    image = _channels_first(imagecodecs.jpeg8_decode(data))
    # libjpeg fills what a cut file lacks with grey, and says nothing
    if b"\xff\xd9" not in data[-1024:]:
        raise TileError(f"{path.name} was cut short: it has no JPEG end marker")
    return image


def _check_claim(name: str, claimed: int, most: int) -> None:
    """Raises TileError if a header claims more than its file can hold: decoders fill the rest."""
    if claimed > most:
        raise TileError(f"{name} was cut short: its header claims more pixels than it can hold")


def _jpeg_size(data: bytes) -> list[int] | None:
    """Returns bands, rows and columns from the frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, bands = struct.unpack_from(">HHB", data, at + 5)
            return [bands, height, width]
        at += 1 if marker == 0xFF else 2 + length
    return None


def _read_png(path: Path, dtypes: Sequence[str], shape: Shape) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    if data[:8] != _PNG_START or data[12:16] != b"IHDR" or len(data) < 33:
        raise TileError(f"{path.name} cannot be read: it is no PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bands = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}.get(colour, 0)
    dtype = "uint16" if depth == 16 else "uint8"
    check_header(path.name, dtype, [bands, height, width], dtypes, shape)
    _check_claim(path.name, height * width * bands * depth // 8, len(data) * _DEFLATE)
    if colour == _PALETTE:
        data = _without_palette(data)
    image: np.ndarray = imagecodecs.png_decode(data)
    if depth < 8:  # the decoder stretches grey levels to 0..255
        image = image // (255 // (2**depth - 1))
    image = _channels_first(image)
    check_tile(path.name, image, dtype, (bands, height, width))
    return image


def _without_palette(data: bytes) -> bytes:
    """Returns a palette PNG as a grey one, whose levels are the indices."""
    parts = [_PNG_START]
    for kind, body in _chunks(data):
        if kind in (b"PLTE", b"tRNS", b"bKGD"):
            continue
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        parts.append(struct.pack(">I", len(body)) + kind + body)
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the checked chunks of a PNG, type and content."""
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(kind + body) != checksum:
            raise ValueError(f"its chunk {kind!r} is damaged")
        yield kind, body
        at += 12 + length


def _channels_first(image: np.ndarray) -> np.ndarray:
    return image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
