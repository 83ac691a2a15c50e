"""Masks of labelled datasets: images whose numbers are classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seamo_fast.data.packing.sources.formats.pictures import Shape
from seamo_fast.data.packing.sources.plain.image_file import read_image


def read_mask(path: Path, shape: Shape = (1, None, None), band: int = 0) -> np.ndarray:
    """Returns one band [H, W] of an image of integers, as stored.

    Raises:
        DataError: The file is missing, damaged, or no such image; the message names it.
    """
    image = read_image(path, ("uint8", "int8", "uint16", "int16", "int32", "uint32"), shape)
    return image[band]
