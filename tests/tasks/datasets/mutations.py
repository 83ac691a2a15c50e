"""Ways in which a file can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
import tifffile

_ABSURD: Final = (0, 1, 255, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER: Final = 1024


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def flip_bits(rng: np.random.Generator, data: bytes, end: int | None = None) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(min(len(data), end or len(data)), size=rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def flip_header_bits(rng: np.random.Generator, data: bytes) -> bytes:
    return flip_bits(rng, data, _HEADER)


def absurd_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Writes an extreme number over two or four bytes near the start or the end."""
    code = ("<I", ">I", "<H", ">H")[rng.integers(4)]
    number = _ABSURD[rng.integers(len(_ABSURD))]
    packed = struct.pack(code, number % 256 ** struct.calcsize(code))
    reach = min(_HEADER, len(data))
    place = rng.integers(reach) if rng.random() < 0.7 else len(data) - 1 - rng.integers(reach)
    return data[:place] + packed + data[place + len(packed) :]


def zeros(rng: np.random.Generator, data: bytes) -> bytes:
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, 4096))
    return (data[:start] + bytes(length) + data[start + length :])[: len(data)]


def inserted(rng: np.random.Generator, data: bytes) -> bytes:
    start = int(rng.integers(min(len(data), _HEADER)))
    return data[:start] + rng.bytes(int(rng.integers(1, 64))) + data[start:]


def noise(rng: np.random.Generator, data: bytes) -> bytes:
    start = b"II*\0" if data[:2] == b"II" and rng.random() < 0.5 else data[:8]
    return start + rng.bytes(int(rng.integers(2048)))


def other_image(rng: np.random.Generator, data: bytes) -> bytes:
    """A proper TIFF of another dtype or size."""
    stream = BytesIO()
    dtype = ("uint8", "int16", "uint16", "float32", "float64", "complex64")[rng.integers(6)]
    shape = rng.integers(1, 70, size=rng.integers(2, 5))
    tifffile.imwrite(stream, np.zeros(shape, dtype), photometric="minisblack")
    return stream.getvalue()


def empty(rng: np.random.Generator, data: bytes) -> bytes:
    return b""


MUTATIONS: Final[tuple[Callable[[np.random.Generator, bytes], bytes], ...]] = (
    *(truncate, flip_bits, flip_header_bits, flip_header_bits, absurd_number, absurd_number),
    *(zeros, inserted, noise, other_image, empty),
)


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Returns a file with one to three things wrong."""
    for _ in range(rng.integers(1, 4)):
        if data:
            data = MUTATIONS[rng.integers(len(MUTATIONS))](rng, data)
    return data
