"""Where the images of labelled datasets lie."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.formats.names import on_disk
from seamo_fast.data.shards.tiff import open_tiff
from seamo_fast.errors import DataError


class Georeference(NamedTuple):
    """Where an image lies: coordinates of its upper left corner, and size of a pixel."""

    left: float
    top: float
    width: float
    height: float


def read_georeference(path: Path) -> Georeference | None:
    """Returns where a GeoTIFF lies (ModelTiepoint and ModelPixelScale), None if it does not say.

    Raises:
        DataError: The file is missing or damaged; the message names it.
    """
    path = on_disk(path)
    try:
        with open_tiff(path) as file:
            tags = file.pages.first.geotiff_tags or {}
        if not {"ModelTiepoint", "ModelPixelScale"} <= tags.keys():
            return None
        tie, scale = (
            [float(value) for value in tags[name]] for name in ("ModelTiepoint", "ModelPixelScale")
        )
        found = Georeference(tie[3] - tie[0] * scale[0], tie[4] + tie[1] * scale[1], *scale[:2])
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise DataError(
            f"{path.name} cannot be read ({type(error).__name__}: {error}) (in {path.parent})"
        ) from error
    if not (np.isfinite(found).all() and found.width > 0 and found.height > 0):
        raise DataError(f"{path.name} lies nowhere: {found} (in {path.parent})")
    return found
