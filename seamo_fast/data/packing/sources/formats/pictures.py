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
_WITH_ALPHA: Final = (4, 6)
_CMYK: Final = 4
_COLOURS: Final = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
_ORIENTATION: Final = 274  # tag of TIFF and Exif
_TRANSPOSED: Final = 4  # orientations above exchange rows and columns

# Bands, rows, columns; None for any number.
Shape = tuple[int | None, int | None, int | None]


def read_picture(
    path: Path, dtypes: Sequence[str], shape: Shape, classes: bool = False
) -> np.ndarray:
    """Returns the image [C, H, W] of a JPEG or PNG file, by its suffix, upright as Exif says.

    An alpha channel that is opaque everywhere is left out where bands without it are expected.

    Args:
        path: The file.
        dtypes: Those allowed; any if empty.
        shape: The sizes expected.
        classes: The numbers are classes: of a palette image the indices are read.

    Raises:
        TileError: The file is missing, damaged, or no such image.
    """
    try:
        if path.suffix.lower() == ".png":
            return _read_png(path, dtypes, shape, classes)
        return _read_jpeg(path, dtypes, shape)
    except FileNotFoundError:
        raise TileError(f"{path.name} is missing", "missing") from None
    except TileError:
        raise
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise TileError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error


def check_header(
    name: str, dtype: str, found: Sequence[int], dtypes: Sequence[str], shape: Shape
) -> None:
    """Raises TileError unless what a header says of an image is what is expected."""
    if dtypes and dtype not in dtypes:
        raise TileError(f"{name} has dtype {dtype}, expected {' or '.join(dtypes)}", "mismatch")
    if any(wanted not in (None, size) for wanted, size in zip(shape, found, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        kind = "" if shape[0] in (None, found[0]) else _COLOURS.get(found[0], "")
        hint = (
            f"; it is {kind}: convert it, or name the bands that it has"
            if kind and name.lower().endswith(PICTURE_SUFFIXES)
            else ""
        )
        raise TileError(f"{name} has shape {list(found)}, expected [{expected}]{hint}", "mismatch")
    if not 0 < math.prod(found) <= MAX_VALUES:
        raise TileError(f"{name} says that it holds {math.prod(found)} values")


def _read_jpeg(path: Path, dtypes: Sequence[str], shape: Shape) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    found = _jpeg_size(data)
    if found is None:
        raise TileError(f"{path.name} cannot be read: it has no JPEG frame header")
    if found[0] == _CMYK:
        raise TileError(f"{path.name} is CMYK, whose numbers are inks; save it as RGB", "mismatch")
    turned = _jpeg_orientation(data)
    check_header(path.name, "uint8", _sizes(found, turned), dtypes, shape)
    scans = len(data) - data.find(b"\xff\xda")  # what precedes them holds no pixel
    _check_claim(path.name, found[1] * found[2], scans * _JPEG_PIXELS)
    image = _upright(_channels_first(imagecodecs.jpeg8_decode(data)), turned)
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
    for marker, at, _ in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, bands = struct.unpack_from(">HHB", data, at + 1)
            return [bands, height, width]
    return None


def _jpeg_orientation(data: bytes) -> int:
    """Returns how the image is turned (tag 274), by the first Exif segment before the scans."""
    for marker, at, size in _segments(data):
        if marker == 0xDA:
            break
        if marker == 0xE1 and data[at : at + 6] == b"Exif\0\0":
            return _exif_orientation(data[at + 6 : at + size])
    return 1


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the segments of a JPEG: marker, place and size of the content (ITU-T T.81, B.1.1)."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker == 0xFF:  # fill
            at += 1
            continue
        yield marker, at + 4, length - 2
        at += 2 + length


def _exif_orientation(block: bytes) -> int:
    """Returns the orientation that a block of Exif says, 1 (upright) where it says none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for number in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * number)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # cut short
        pass
    return 1


def _sizes(found: Sequence[int], orientation: int) -> list[int]:
    """Returns bands, rows and columns of an image once it is upright."""
    bands, height, width = found
    return [bands, width, height] if orientation > _TRANSPOSED else [bands, height, width]


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image [C, H, W] with its first row at the top and first column on the left."""
    if orientation > _TRANSPOSED:
        image = image.swapaxes(1, 2)
    mirrored = (orientation - 1) % 4
    if mirrored in (1, 2):
        image = image[:, :, ::-1]
    if mirrored in (2, 3):
        image = image[:, ::-1]
    return image


def _read_png(path: Path, dtypes: Sequence[str], shape: Shape, classes: bool) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    if data[:8] != _PNG_START or data[12:16] != b"IHDR" or len(data) < 33:
        raise TileError(f"{path.name} cannot be read: it is no PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bands = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}.get(colour, 0)
    dtype = "uint16" if depth == 16 else "uint8"
    if colour == _PALETTE and not classes:
        raise TileError(
            f"{path.name} has a palette, whose indices are no measurements; save it as RGB or grey",
            "mismatch",
        )
    opaque = colour in _WITH_ALPHA and shape[0] == bands - 1
    turned = _png_orientation(data)
    sizes = _sizes([bands - opaque, height, width], turned)
    check_header(path.name, dtype, sizes, dtypes, shape)
    _check_claim(path.name, height * width * bands * depth // 8, len(data) * _DEFLATE)
    if colour == _PALETTE:
        data = _without_palette(data)
    image: np.ndarray = imagecodecs.png_decode(data)
    if depth < 8:  # the decoder stretches grey levels to 0..255
        image = image // (255 // (2**depth - 1))
    image = _channels_first(image)
    check_tile(path.name, image, dtype, (bands, height, width))
    if opaque:
        if (image[-1] != np.iinfo(dtype).max).any():
            raise TileError(
                f"{path.name} has transparent pixels, no measurements; save it without an alpha "
                "channel",
                "mismatch",
            )
        image = image[:-1]
    return _upright(image, turned)


def _png_orientation(data: bytes) -> int:
    """Returns how the image is turned, by an eXIf chunk before the pixels."""
    _, found, block = data[: data.find(b"IDAT")].partition(b"eXIf")
    return _exif_orientation(block) if found else 1


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
