"""Which stored values were measured; statistics, checks and packing ask here."""

from __future__ import annotations

from collections.abc import Sequence

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
    found = [known(grid, modality.nodata) for grid in grids]
    if modality.nodata_rule == "band" or all(each.all() for each in found):
        return found
    pixels = [np.any(each, axis=-3) for each in found]
    return [
        _values(grid, _anywhere(each, pixels)) for grid, each in zip(grids, pixels, strict=True)
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


def _values(grid: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Returns which values [..., C, H, W] are finite and of these pixels [..., H, W]."""
    found = np.broadcast_to(pixels[..., None, :, :], grid.shape)
    return found if grid.dtype.kind in "iu" else found & np.isfinite(grid)


def known(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """Returns which values are finite and not nodata, whatever the other bands hold."""
    if values.dtype.kind in "iu":
        if nodata is None or not float(nodata).is_integer():
            return np.ones(values.shape, bool)
        return np.asarray(values != int(nodata))
    finite = np.isfinite(values)
    return finite if nodata is None else finite & (values != nodata)
