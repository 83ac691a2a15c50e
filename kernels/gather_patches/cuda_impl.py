"""gather_patches in CUDA: wanted pixels only, straight from each native grid; a launch a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._dtypes import accumulation
from .._gpu import _cuda
from . import reference

_MOST_GRIDS = 8  # of GatherPatches in csrc/cuda/gather_patches.cu


def forward(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    order: Sequence[int],
    image_size: Sequence[int],
    patch_size: int,
    nodata: float | None,
    whole_pixel: bool,
    limit: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor] | None:
    """One launch a grid; one more by pixel, for the patches that lost something in the first."""
    batch, seasons, wanted = index.shape
    size = len(order) * patch_size**2
    patches = index.new_empty((batch, seasons, wanted, size), dtype=dtype)
    if not _cuda.takes(patches) or accumulation(*bands) == torch.float64:
        return None
    whole_pixel = whole_pixel and nodata is not None
    if whole_pixel and len(bands) > _MOST_GRIDS:
        return None
    lost = torch.zeros(index.shape, dtype=torch.int32, device=index.device)
    if patches.numel() == 0:
        return patches, lost == 0
    places = reference.output_channels(tuple(order), index.device)
    bands = reference.as_read(bands, limit)  # until the launches
    grids = [_grid(band, reference.as_stored(nodata, band.dtype)) for band in bands]
    shared: dict[str, Any] = {
        "has_nodata": nodata is not None,
        "limit": limit,
        "grids": tuple(grids) if whole_pixel else (),
        "grid_count": len(grids),
        "boxes": _cuda.floats(boxes),
        "index": index.contiguous(),
        "index_is_long": index.dtype == torch.int64,
        "shift": _cuda.floats(shift),
        "scale": _cuda.floats(scale),
        "images": batch * seasons,
        "seasons": seasons,
        "wanted": wanted,
        "all_channels": len(order),
        "image_height": image_size[0],
        "image_width": image_size[1],
        "patch": patch_size,
        "patches": patches,
        "patches_storage": _cuda.storage(patches),
    }
    _sample(grids, places, suspects=None, lost=lost, **shared)
    if whole_pixel:
        lost, suspects = torch.zeros_like(lost), lost
        _sample(grids, places, suspects=suspects, lost=lost, **shared)
    return patches, lost == 0


def _sample(each: Sequence[Any], places: Tensor, **shared: Any) -> None:
    first = 0
    for grid in each:
        if grid.channels:
            _cuda.run("gather_patches", grid=grid, place=places[first:], **shared)
        first += grid.channels


def _grid(band: Tensor, nodata: float | None) -> Any:
    """The struct StoredGrid of a band."""
    return _cuda.struct("StoredGrid")(
        band.data_ptr(), _cuda.storage(band), *band.stride(), *band.shape[2:], nodata or 0.0
    )
