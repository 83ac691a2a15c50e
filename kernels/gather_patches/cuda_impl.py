"""gather_patches in CUDA: wanted pixels only, straight from each native grid; a launch a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._dtypes import accumulation
from .._gpu import _cuda
from . import reference


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
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor] | None:
    """One launch a grid."""
    batch, seasons, wanted = index.shape
    size = len(order) * patch_size**2
    patches = index.new_empty((batch, seasons, wanted, size), dtype=dtype)
    if not _cuda.takes(patches) or accumulation(*bands) == torch.float64:
        return None
    lost = torch.zeros(index.shape, dtype=torch.int32, device=index.device)
    if patches.numel() == 0:
        return patches, lost == 0
    places = reference.output_channels(tuple(order), index.device)
    shared = {
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
        "lost": lost,
    }
    first = 0
    for band in bands:
        if band.shape[2]:
            _sample(band, places[first:], reference.as_stored(nodata, band.dtype), shared)
        first += band.shape[2]
    return patches, lost == 0


def _sample(band: Tensor, place: Tensor, nodata: float | None, shared: dict[str, Any]) -> None:
    strides = ("batch_stride", "season_stride", "channel_stride", "row_stride", "col_stride")
    _cuda.run(
        "gather_patches",
        band=band,
        storage=_cuda.storage(band),
        **dict(zip(strides, band.stride(), strict=True)),
        place=place,
        channels=band.shape[2],
        grid_height=band.shape[3],
        grid_width=band.shape[4],
        has_nodata=nodata is not None,
        nodata=nodata or 0.0,
        **shared,
    )
