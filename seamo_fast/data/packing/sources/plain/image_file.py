"""Images of all bands in one file: TIFF, PNG and JPEG, whose errors name the file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.names import on_disk
from seamo_fast.data.packing.sources.formats.pictures import (
    PICTURE_SUFFIXES,
    Shape,
    check_header,
    read_picture,
)
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.data.packing.sources.rules.declared import registered
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

SUFFIXES: Final = (".tif", ".tiff", *PICTURE_SUFFIXES)
ANY: Final[Shape] = (None, None, None)
_LOG = logging.getLogger(__name__)


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
    try:
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return read_picture(path, dtypes, shape, classes=modality is None)
        return _read_tiff(path, dtypes, shape, modality)
    except TileError as error:
        raise DataError(f"{error} (in {path.parent})", error.kind) from error


def _read_tiff(
    path: Path, dtypes: Sequence[str], shape: Shape, modality: Modality | None
) -> np.ndarray:
    stacked = None if shape == ANY else {each for each in shape[:1] if each is not None}
    values, said, measured = read_tiff(path, stacked=stacked, classes=modality is None)
    image = values if values.ndim == 3 else values[None]
    check_header(path.name, image.dtype.name, image.shape, dtypes, shape)
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
