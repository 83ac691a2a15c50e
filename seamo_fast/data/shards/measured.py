"""Which stored values were measured; statistics, checks and packing ask here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seamo_fast.modalities import Modality


def measured(modality: Modality, grids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns for each grid which of its values were measured, as the modality's rule says.

    Args:
        modality: Says what nodata is, and whether a single band may have it as a value.
        grids: All of the modality's, each [..., Cg, Hg, Wg].

    Returns:
        bool, of the shapes of the grids.
    """
    found = [known(grid, modality.nodata, modality.limit) for grid in grids]
    if modality.nodata_rule == "band" or all(each.all() for each in found):
        return found
    pixels = [np.any(each, axis=-3) for each in found]
    return [
        _anywhere(each, pixels)[..., None, :, :] & possible(grid, modality.limit)
        for grid, each in zip(grids, pixels, strict=True)
    ]


def _anywhere(own: np.ndarray, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Returns which pixels of a grid [..., H, W] any grid has measured, at their centres."""
    *leading, rows, columns = np.nonzero(~own)
    found = np.zeros(len(rows), bool)
    for other in pixels:
        (height, width), (down, right) = own.shape[-2:], other.shape[-2:]
        row = (2 * rows + 1) * down // (2 * height)
        column = (2 * columns + 1) * right // (2 * width)
        found |= other[(*leading, row, column)]
    result = own.copy()
    result[(*leading, rows, columns)] = found
    return result


def known(values: np.ndarray, nodata: float | None, limit: float) -> np.ndarray:
    """Returns which values are possible and not nodata, whatever the other bands hold."""
    whole = values.dtype.kind in "iu"
    if nodata is None or (whole and not float(nodata).is_integer()):
        return possible(values, limit)
    found = np.asarray(values != (int(nodata) if whole else nodata))
    return found if _most(values.dtype) <= limit else found & possible(values, limit)


def possible(values: np.ndarray, limit: float) -> np.ndarray:
    """Returns which values are no NaN, and at most `limit` in magnitude."""
    if _most(values.dtype) <= limit:
        return np.ones(values.shape, bool)
    if values.dtype.kind in "iu":
        return (values >= -limit) & (values <= limit)
    return np.abs(values) <= min(limit, float(np.finfo(values.dtype).max))


def count_absurd(modality: Modality, grids: Sequence[np.ndarray]) -> int:
    """Returns how many values are numbers that no value of the modality's unit can be.

    Its nodata is none of them.
    """
    found = 0
    for grid in grids:
        if _most(grid.dtype) > modality.limit:
            values = grid[~possible(grid, modality.limit)]
            values = values[np.isfinite(values)]
            filled = 0 if modality.nodata is None else np.count_nonzero(values == modality.nodata)
            found += values.size - int(filled)
    return found


def _most(dtype: np.dtype[Any]) -> float:
    """Returns the largest magnitude of a dtype."""
    if dtype.kind not in "iu":
        return np.inf
    limits = np.iinfo(dtype)
    return max(limits.max, -limits.min)
