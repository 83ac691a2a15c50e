"""gather_patches in plain PyTorch, on any device: the oracle of the other backends."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .._dtypes import accumulation


class _Taps(NamedTuple):
    """The two neighbours of each wanted position along one axis, [B, T, K, p]."""

    low: Tensor
    high: Tensor
    fraction: Tensor  # weight of high


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
) -> tuple[Tensor, Tensor]:
    """Four gathers a grid, of wanted pixels only."""
    height, width = image_size
    columns = width // patch_size
    _checks.in_range("index", index, height // patch_size * columns)
    exact = torch.float64 if dtype == torch.float64 else accumulation(*bands)
    index = index.long()
    inside = torch.arange(patch_size, device=index.device)
    rows = (index // columns * patch_size)[..., None] + inside  # [B, T, K, p]
    cols = (index % columns * patch_size)[..., None] + inside
    top, left, tall, wide = boxes.to(exact)[..., None, None].unbind(2)

    bands = as_read(bands, limit)
    stored = [as_stored(nodata, band.dtype) for band in bands]
    holes: Sequence[Tensor | None] = [None] * len(bands)
    if whole_pixel and nodata is not None:
        holes = _holes(bands, stored, limit, exact)
    values: list[Tensor] = []  # one [B, T, K, p * p] a channel
    losses: list[Tensor] = []
    for band, empty, hole in zip(bands, stored, holes, strict=True):
        y = _taps(rows, top, tall, height, band.shape[3])
        x = _taps(cols, left, wide, width, band.shape[4])
        value, lost = _sample(band, y, x, empty, hole, limit, exact)
        values += value.unflatten(3, (-1, patch_size**2)).unbind(2)
        losses += lost.unflatten(3, (-1, patch_size**2)).unbind(2)

    patches = torch.stack([values[channel] for channel in order], dim=3)  # [B, T, K, C, p * p]
    missing = torch.stack([losses[channel] for channel in order], dim=3)
    patches.sub_(shift.to(exact)[:, None]).mul_(scale.to(exact)[:, None]).masked_fill_(missing, 0)
    return patches.flatten(3).to(dtype), ~missing.flatten(3).any(3)


def _taps(pixels: Tensor, start: Tensor, extent: Tensor, image: int, grid: int) -> _Taps:
    pixels = torch.where(extent < 0, image - 1 - pixels, pixels)
    position = start * grid + (pixels + 0.5) * (extent.abs() * grid / image) - 0.5
    position = position.clamp(0, grid - 1)
    low = position.floor()
    number = low.long()
    return _Taps(number, (number + 1).clamp(max=grid - 1), position - low)


def _holes(
    bands: Sequence[Tensor], nodata: Sequence[float | None], limit: float, exact: torch.dtype
) -> list[Tensor]:
    """Which pixels of each grid were measured in no channel of any, [B, T, 1, Hg, Wg]."""
    empty = []
    for band, value in zip(bands, nodata, strict=True):
        stored = band.to(exact)
        empty.append((_beyond(stored, limit) | (stored == value)).all(2, keepdim=True))
    return [
        torch.stack([_at_centres(each, band.shape[3:]) for each in empty]).all(0) for band in bands
    ]


def _beyond(values: Tensor, limit: float) -> Tensor:
    return ~(values.abs() <= limit)  # NaN too


def _at_centres(grid: Tensor, size: Sequence[int]) -> Tensor:
    """The pixels of a grid [..., H, W] where those of one of another size have their centres."""
    rows, cols = (
        (2 * torch.arange(own, device=grid.device) + 1) * other // (2 * own)
        for own, other in zip(size, grid.shape[-2:], strict=True)
    )
    return grid[..., rows, :][..., cols]


def _sample(
    band: Tensor,
    y: _Taps,
    x: _Taps,
    nodata: float | None,
    hole: Tensor | None,
    limit: float,
    exact: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Bilinear values and which of them are lost, both [B, T, Cg, K * p * p].

    ``hole``: where nodata means that nothing was measured, [B, T, 1, Hg, Wg]; None: anywhere.
    """
    batch, seasons, channels, _, width = band.shape
    # torch.gather knows no uint16 on some devices
    raw = band.view(torch.int16) if band.dtype == torch.uint16 else band
    raw = raw.flatten(3)
    may_lose = band.dtype.is_floating_point or nodata is not None
    shape = (batch, seasons, channels, math.prod(x.low.shape[2:]) * x.low.shape[3])
    value = torch.zeros(shape, dtype=exact, device=band.device)
    lost = torch.zeros(shape, dtype=torch.bool, device=band.device)
    for row, row_weight in ((y.low, 1 - y.fraction), (y.high, y.fraction)):
        for col, col_weight in ((x.low, 1 - x.fraction), (x.high, x.fraction)):
            place = (row[..., :, None] * width + col[..., None, :]).flatten(2)[:, :, None]
            weight = (row_weight[..., :, None] * col_weight[..., None, :]).flatten(2)[:, :, None]
            tap = raw.gather(3, place.expand(-1, -1, channels, -1)).view(band.dtype).to(exact)
            if may_lose:
                bad = _beyond(tap, limit)
                if nodata is not None:
                    empty = tap == nodata
                    bad |= empty if hole is None else empty & hole.flatten(3).gather(3, place)
                tap.masked_fill_(bad, 0)
                lost |= bad & (weight != 0)
            value.addcmul_(tap, weight)
    return value, lost


@functools.cache
def output_channels(order: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each channel of the concatenated grids goes, int32; copied to the device once."""
    places = sorted(range(len(order)), key=order.__getitem__)
    return torch.tensor(places, dtype=torch.int32).to(device, copy=True)


def as_read(bands: Sequence[Tensor], limit: float) -> list[Tensor]:
    """The bands, those of integers that can be beyond the limit as float32.

    Kernels compare floating-point numbers with it, and have no more to do for integers.
    """
    return [band.float() if _most(band.dtype) > limit else band for band in bands]


def _most(dtype: torch.dtype) -> int:
    if dtype.is_floating_point:
        return 0
    limits = torch.iinfo(dtype)
    return max(limits.max, -limits.min)


def as_stored(nodata: float | None, dtype: torch.dtype) -> float | None:
    """The nodata value as a band of this dtype holds it."""
    if nodata is None or not dtype.is_floating_point:
        return nodata
    return torch.tensor(nodata, dtype=dtype).item()
