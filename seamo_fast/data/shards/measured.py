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
    pixels = [np.any(each, axis=-3, keepdims=True) for each in found]
    return [
        np.isfinite(grid)
        & np.logical_or.reduce([_at_centres(each, grid.shape[-2:]) for each in pixels])
        for grid in grids
    ]


def known(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """Returns which values are finite and not nodata, whatever the other bands hold."""
    if values.dtype.kind in "iu":
        if nodata is None or not float(nodata).is_integer():
            return np.ones(values.shape, bool)
        return np.asarray(values != int(nodata))
    finite = np.isfinite(values)
    return finite if nodata is None else finite & (values != nodata)


def _at_centres(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns [..., H, W] at the centres of the pixels of an image of another size."""
    rows, columns = (
        (2 * np.arange(own) + 1) * other // (2 * own)
        for own, other in zip(size, mask.shape[-2:], strict=True)
    )
    return mask[..., rows[:, None], columns]
