"""What is known of a place before it is packed: where it is, and what its tiles hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.formats.geo import Footprint


class Ground(NamedTuple):
    """What an item shows of a place.

    Attributes:
        place: Its name, as `Reading` has it.
        footprint: Its corners, None where unknown.
        prints: A number for each of its tiles, which tiles of the same pixels share; others may.
    """

    place: str
    footprint: Footprint | None
    prints: tuple[int, ...]


def fingerprint(bands: Iterable[np.ndarray]) -> list[int]:
    """Returns a number that tiles of the same pixels share; none if no band says anything.

    Args:
        bands: Of a tile, in an order that is the same for all tiles; they are taken one by one, up
            to the first that does not hold the same number everywhere.
    """
    band = next((each for each in bands if varies(each)), None)
    if band is None:
        return []
    digest = hashlib.blake2b(bits_of(band).data, digest_size=8)
    return [int.from_bytes(digest.digest(), "little")]


def varies(values: np.ndarray) -> bool:
    """Whether an array holds two different numbers, by their bits: all NaN is the same."""
    if not values.size:
        return False
    bits = bits_of(values).reshape(values.size, -1)
    # the first few tell nearly always
    return any(bool(np.any(part != bits[0])) for part in (bits[:64], bits))


def bits_of(values: np.ndarray) -> np.ndarray:
    """Returns the bytes of an array, uint8 [nbytes]."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
