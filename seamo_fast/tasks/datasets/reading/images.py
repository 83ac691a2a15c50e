"""Reading the images of labelled datasets: what a file claims is checked, and errors name it."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np

from seamo_fast.data.packing.sources.base import TileError, check_tile
from seamo_fast.data.packing.sources.formats.names import on_disk
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.data.packing.sources.rules.declared import registered
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.files import read_regular
from seamo_fast.modalities import Modality

TIFF_SUFFIXES: Final = (".tif", ".tiff")
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
SUFFIXES: Final = TIFF_SUFFIXES + PICTURE_SUFFIXES
MAX_VALUES: Final = 2**27
_MOST_BYTES: Final = 2**28  # of a JPEG or PNG file
_JPEG_PIXELS: Final = 512  # of a byte at most: a block of 64 takes a bit or more
_DEFLATE: Final = 1032  # bytes of a byte at most (zlib's "Maximum Expansion Factor")
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3
_COLOURS: Final = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}
_LOG = logging.getLogger(__name__)

# Bands, rows, columns; None for any number.
Shape = tuple[int | None, int | None, int | None]
ANY: Final[Shape] = (None, None, None)


def read_image(
    path: Path,
    dtypes: Sequence[str] = (),
    shape: Shape = ANY,
    modality: Modality | None = None,
) -> np.ndarray:
    """Returns the image [C, H, W] of a TIFF, PNG or JPEG file, values as stored.

    The header is checked first, so that no file makes this allocate more than an image of
    `MAX_VALUES` values. Pixels that a TIFF calls not measured by another value than the modality
    become that of the modality or NaN; integers stay if it has none. Either is logged once.

    Args:
        path: Its suffix, in any case, says what it holds. Of a palette image the indices are read
            where they are classes, and refused as bands of a modality.
        dtypes: Those allowed; any if empty.
        shape: The sizes expected. A number of bands may be that of pages; with ANY all may.
        modality: What the image holds; None for classes.

    Raises:
        DataError: The file is missing, damaged, or no such image, or there is another of its name
            but for the case of its suffix; the message names it.
    """
    path = on_disk(path)
    reader = {".png": _read_png, ".jpg": _read_jpeg, ".jpeg": _read_jpeg}.get(path.suffix.lower())
    try:
        if reader is None:
            return _read_tiff(path, dtypes, shape, modality)
        return reader(path, dtypes, shape, modality)
    except TileError as error:
        raise DataError(f"{error} (in {path.parent})", error.kind) from error
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing (in {path.parent})", "missing") from None
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise DataError(
            f"{path.name} cannot be read ({type(error).__name__}: {error}) (in {path.parent})"
        ) from error


def read_mask(path: Path, shape: Shape = (1, None, None), band: int = 0) -> np.ndarray:
    """Returns one band [H, W] of an image of integers, as stored.

    Raises:
        DataError: The file is missing, damaged, or no such image; the message names it.
    """
    image = read_image(path, ("uint8", "int8", "uint16", "int16", "int32", "uint32"), shape)
    return image[band]


def _read_tiff(
    path: Path, dtypes: Sequence[str], shape: Shape, modality: Modality | None
) -> np.ndarray:
    stacked = None if shape == ANY else {each for each in shape[:1] if each is not None}
    values, said, measured = read_tiff(path, stacked=stacked, classes=modality is None)
    image = values if values.ndim == 3 else values[None]
    _check(path.name, image.dtype.name, image.shape, dtypes, shape)
    if modality is None or (measured is None and not any(each.nodata for each in said)):
        return image
    image = image.copy()  # a plain file's pixels cannot be changed
    try:
        remarks, _ = registered(modality).mark(image, said, (measured,) * len(said))
    except TileError:  # no value could mark them
        why = "files say of some pixels that they are not measured; they count as measured here"
        remarks = [Remark(modality.name, f"{why}, where {image.dtype} has no nodata", "")]
    for remark in dict.fromkeys(remarks):
        warn_once(remark)
    return image


@lru_cache(maxsize=256)
def warn_once(remark: Remark) -> None:
    """Logs a remark, once."""
    _LOG.warning(f"{remark.what}: {remark.why}")


def _check(
    name: str, dtype: str, found: Sequence[int], dtypes: Sequence[str], shape: Shape
) -> None:
    if dtypes and dtype not in dtypes:
        raise TileError(f"{name} has dtype {dtype}, expected {' or '.join(dtypes)}")
    if any(wanted not in (None, size) for wanted, size in zip(shape, found, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        kind = "" if shape[0] in (None, found[0]) else _COLOURS.get(found[0], "")
        hint = (
            f"; it is {kind}: convert it, or name the bands that it has"
            if kind and Path(name).suffix.lower() in PICTURE_SUFFIXES
            else ""
        )
        raise TileError(f"{name} has shape {list(found)}, expected [{expected}]{hint}")
    if not 0 < math.prod(found) <= MAX_VALUES:
        raise TileError(f"{name} says that it holds {math.prod(found)} values")


def _read_jpeg(
    path: Path, dtypes: Sequence[str], shape: Shape, modality: Modality | None
) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    found = _jpeg_size(data)
    if found is None:
        raise TileError(f"{path.name} cannot be read: it has no JPEG frame header")
    if found[0] == len("CMYK"):
        raise TileError(f"{path.name} is CMYK, whose numbers are inks; save it as RGB")
    _check(path.name, "uint8", found, dtypes, shape)
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


def _read_png(
    path: Path, dtypes: Sequence[str], shape: Shape, modality: Modality | None
) -> np.ndarray:
    data = read_regular(path, _MOST_BYTES)
    if data[:8] != _PNG_START or data[12:16] != b"IHDR" or len(data) < 33:
        raise TileError(f"{path.name} cannot be read: it is no PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bands = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}.get(colour, 0)
    if colour == _PALETTE and modality:
        raise TileError(
            f"{path.name} has a palette, whose indices are no measurements; save it as RGB or grey"
        )
    dtype = "uint16" if depth == 16 else "uint8"
    _check(path.name, dtype, [bands, height, width], dtypes, shape)
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
