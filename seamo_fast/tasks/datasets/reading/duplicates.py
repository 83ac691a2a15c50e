"""Images of a dataset that hold the same pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.formats.ground import bits_of
from seamo_fast.errors import DataError
from seamo_fast.files import open_regular

_END: Final = 512  # bytes; of an image file they are pixels


def first_of_same(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> dict[int, int]:
    """Returns the number of each image that an earlier one equals, and that of the first such.

    Images are decoded only if their files end in the same bytes. One that cannot be read equals
    none.

    Args:
        paths: Of the images.
        read: Returns the pixels of a file; raises DataError.
    """
    alike: dict[bytes, list[int]] = {}
    for number, path in enumerate(paths):
        alike.setdefault(_end(path), []).append(number)
    found: dict[int, int] = {}
    for numbers in alike.values():
        first: dict[bytes, int] = {}
        for number in numbers if len(numbers) > 1 else ():
            try:
                pixels = bits_of(read(paths[number]))
            except DataError:
                continue
            digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
            if first.setdefault(digest, number) != number:
                found[number] = first[digest]
    return found


def _end(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            file.seek(-min(_END, path.stat().st_size), 2)
            return file.read()
    except OSError:
        return b""
