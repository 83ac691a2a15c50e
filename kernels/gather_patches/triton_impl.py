"""gather_patches in Triton: wanted pixels only, straight from each native grid.

Every grid is one launch: a program computes the place of its pixels once and samples each of its
channels there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._dtypes import accumulation
from .._gpu import _triton
from .._gpu._triton import cast
from . import reference

_CONFIGS = tuple(
    triton.Config({"BLOCK_PIXELS": block, "BLOCK_CHANNELS": channels}, num_warps=4)
    for block, channels in ((512, 4), (512, 1))
)


@triton.jit
def _taps(pixel, start, extent, IMAGE, GRID):
    """The two neighbours of a pixel along one axis, and the weight of the second."""
    start = tl.load(start).to(tl.float32)
    extent = tl.load(extent).to(tl.float32)
    pixel = tl.where(extent < 0, IMAGE - 1 - pixel, pixel).to(tl.float32)
    step = tl.div_rn(tl.abs(extent) * GRID, IMAGE * 1.0)
    place = start * GRID + (pixel + 0.5) * step - 0.5
    place = tl.minimum(tl.maximum(place, 0.0), GRID - 1.0)
    low = tl.floor(place)
    number = low.to(tl.int32)
    return number, tl.minimum(number + 1, GRID - 1), place - low


@triton.jit
def _add(
    value, lost, place, weight, inside, hole, nodata, limit,
    NODATA: tl.constexpr, FLOAT: tl.constexpr,
):  # fmt: skip
    """Adds one weighted neighbour; one that is no measurement counts as 0 and marks the value."""
    tap = tl.load(place, mask=inside, other=0).to(tl.float32)
    if FLOAT:
        bad = ~(tl.abs(tap) <= limit)  # NaN too
        if NODATA:
            bad |= (tap == nodata) & hole
        lost |= bad & (weight != 0)
        tap = tl.where(bad, 0.0, tap)
    elif NODATA:
        bad = (tap == nodata) & hole
        lost |= bad & (weight != 0)
        tap = tl.where(bad, 0.0, tap)
    return value + tap * weight, lost


@triton.jit
def _channels(
    band, band_c, first, last, offsets, weights, inside, holes, nodata, limit, channel,
    shift, scale, patches, first_channel, place,
    NODATA: tl.constexpr, FLOAT: tl.constexpr, AREA: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Samples and stores channels of a grid; returns which pixels lost a value in one of them.

    ``offsets``, ``weights`` and ``holes`` are of the four neighbours: nodata counts at a hole.
    """
    lost = tl.zeros([BLOCK_PIXELS], tl.int1)
    for c in range(first, last):
        value = tl.zeros([BLOCK_PIXELS], tl.float32)
        gone = tl.zeros([BLOCK_PIXELS], tl.int1)
        for i in tl.static_range(4):
            value, gone = _add(
                value, gone, band + offsets[i], weights[i], inside, holes[i], nodata, limit,
                NODATA, FLOAT,
            )  # fmt: skip
        own = tl.load(channel + c)
        value = (value - tl.load(shift + own).to(tl.float32)) * tl.load(scale + own).to(tl.float32)
        value = tl.where(gone, 0.0, value)
        to = patches + (first_channel + own) * AREA + place
        tl.store(to, cast(value, patches.dtype.element_ty), mask=inside)
        lost |= gone
        band += band_c
    return lost


@triton.jit
def _holes(wanted, image, T, row, col, HEIGHT, WIDTH, limit, grids):
    """Which of the wanted pixels of a grid were measured in no channel of any grid."""
    row = row.to(tl.int64) * 2 + 1
    col = col.to(tl.int64) * 2 + 1
    for g in tl.static_range(len(grids)):
        band, band_b, band_t, band_c, band_y, band_x, channels, height, width, nodata = grids[g]
        # the pixel of this grid at the centre
        place = row * height // (2 * HEIGHT) * band_y + col * width // (2 * WIDTH) * band_x
        place += image // T * band_b + image % T * band_t
        for _ in range(channels):
            value = tl.load(band + place, mask=wanted, other=0).to(tl.float32)
            wanted &= (value == nodata) | ~(tl.abs(value) <= limit)
            place += band_c
    return wanted


@triton.jit
def _pixels(index, K, WIDTH, PATCH: tl.constexpr, BLOCK_PIXELS: tl.constexpr):
    """A block of the wanted pixels of one image: which they are, and where in the image."""
    AREA: tl.constexpr = PATCH * PATCH
    blocks = tl.cdiv(K * AREA, BLOCK_PIXELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = pixel < K * AREA
    patch = image * K + pixel // AREA
    number = tl.load(index + patch, mask=inside, other=0).to(tl.int32)
    row = number // (WIDTH // PATCH) * PATCH + pixel % AREA // PATCH
    col = number % (WIDTH // PATCH) * PATCH + pixel % PATCH
    return image, inside, patch, pixel % AREA, row, col


@triton.jit
def _neighbours(y, y_next, y_weight, x, x_next, x_weight, band_y, band_x):
    """Offsets and weights of the four neighbours of each pixel."""
    above, below = y.to(tl.int64) * band_y, y_next.to(tl.int64) * band_y
    left, right = x.to(tl.int64) * band_x, x_next.to(tl.int64) * band_x
    offsets = (above + left, above + right, below + left, below + right)
    weights = (
        (1 - y_weight) * (1 - x_weight), (1 - y_weight) * x_weight,
        y_weight * (1 - x_weight), y_weight * x_weight,
    )  # fmt: skip
    return offsets, weights


@triton.jit
def _forward_kernel(
    band, boxes, index, shift, scale, channel, patches, valid, nodata, limit,
    band_b, band_t, band_c, band_y, band_x,
    T, K, CHANNELS, OUTPUT_CHANNELS, GRID_HEIGHT, GRID_WIDTH, HEIGHT, WIDTH,
    PATCH: tl.constexpr, NODATA: tl.constexpr, FLOAT: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """A block of the wanted pixels of one image in some channels of one grid."""
    AREA: tl.constexpr = PATCH * PATCH
    image, inside, patch, place, row, col = _pixels(index, K, WIDTH, PATCH, BLOCK_PIXELS)
    box = boxes + image * 4
    y, y_next, y_weight = _taps(row, box, box + 2, HEIGHT, GRID_HEIGHT)
    x, x_next, x_weight = _taps(col, box + 1, box + 3, WIDTH, GRID_WIDTH)
    offsets, weights = _neighbours(y, y_next, y_weight, x, x_next, x_weight, band_y, band_x)
    first = tl.program_id(1) * BLOCK_CHANNELS
    band += image // T * band_b + image % T * band_t + first.to(tl.int64) * band_c
    lost = _channels(
        band, band_c, first, tl.minimum(first + BLOCK_CHANNELS, CHANNELS), offsets, weights,
        inside, (inside, inside, inside, inside), nodata, limit, channel, shift, scale,
        patches, patch * OUTPUT_CHANNELS, place, NODATA, FLOAT, AREA, BLOCK_PIXELS,
    )  # fmt: skip
    if NODATA or FLOAT:
        # programs of several channels and grids may write the same False
        tl.store(valid + patch, tl.zeros([BLOCK_PIXELS], tl.int1), mask=inside & lost)


@triton.jit
def _again_kernel(
    band, boxes, index, shift, scale, channel, patches, valid, nodata, limit, before, grids,
    band_b, band_t, band_c, band_y, band_x,
    T, K, CHANNELS, OUTPUT_CHANNELS, GRID_HEIGHT, GRID_WIDTH, HEIGHT, WIDTH,
    PATCH: tl.constexpr, FLOAT: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same by pixel, of the patches that were not valid ``before``: few programs have one."""
    AREA: tl.constexpr = PATCH * PATCH
    image, inside, patch, place, row, col = _pixels(index, K, WIDTH, PATCH, BLOCK_PIXELS)
    wanted = inside & (tl.load(before + patch, mask=inside, other=1) == 0)
    if tl.max(wanted.to(tl.int32), 0) > 0:
        box = boxes + image * 4
        y, y_next, y_weight = _taps(row, box, box + 2, HEIGHT, GRID_HEIGHT)
        x, x_next, x_weight = _taps(col, box + 1, box + 3, WIDTH, GRID_WIDTH)
        holes = (
            _holes(wanted, image, T, y, x, GRID_HEIGHT, GRID_WIDTH, limit, grids),
            _holes(wanted, image, T, y, x_next, GRID_HEIGHT, GRID_WIDTH, limit, grids),
            _holes(wanted, image, T, y_next, x, GRID_HEIGHT, GRID_WIDTH, limit, grids),
            _holes(wanted, image, T, y_next, x_next, GRID_HEIGHT, GRID_WIDTH, limit, grids),
        )
        offsets, weights = _neighbours(y, y_next, y_weight, x, x_next, x_weight, band_y, band_x)
        first = tl.program_id(1) * BLOCK_CHANNELS
        band += image // T * band_b + image % T * band_t + first.to(tl.int64) * band_c
        lost = _channels(
            band, band_c, first, tl.minimum(first + BLOCK_CHANNELS, CHANNELS), offsets, weights,
            wanted, holes, nodata, limit, channel, shift, scale,
            patches, patch * OUTPUT_CHANNELS, place, True, FLOAT, AREA, BLOCK_PIXELS,
        )  # fmt: skip
        tl.store(valid + patch, tl.zeros([BLOCK_PIXELS], tl.int1), mask=wanted & lost)


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
    if not _triton.takes(patches) or accumulation(*bands) == torch.float64:
        return None
    valid = torch.ones(index.shape, dtype=torch.bool, device=index.device)
    if patches.numel() == 0:
        return patches, valid
    channel = reference.output_channels(tuple(order), index.device)
    shared = [x.contiguous() for x in (boxes, index, shift, scale)]
    bands = reference.as_read(bands, limit)
    stored = [reference.as_stored(nodata, band.dtype) for band in bands]

    def sample(kernel: Any, *more: Any, **options: Any) -> None:
        first = 0
        for band, value in zip(bands, stored, strict=True):
            kernel[_grid(batch * seasons, wanted * patch_size**2, band.shape[2])](
                band, *shared, channel[first:], patches, valid, value or 0.0, limit, *more,
                *band.stride(), seasons, wanted, band.shape[2], len(order), *band.shape[3:],
                *image_size, PATCH=patch_size, FLOAT=band.is_floating_point(),
                enable_fp_fusion=False, **options,
            )  # fmt: skip
            first += band.shape[2]

    with _triton.device_of(index):
        sample(_tuned(), NODATA=nodata is not None)
        if whole_pixel and nodata is not None:
            grids = tuple(
                (band, *band.stride(), *band.shape[2:], value)
                for band, value in zip(bands, stored, strict=True)
            )
            before, valid = valid, torch.ones_like(valid)
            sample(_again_kernel, before, grids, BLOCK_PIXELS=128, BLOCK_CHANNELS=4, num_warps=4)
    return patches, valid


@functools.cache
def _tuned() -> Any:
    return _triton.tuned(_forward_kernel, _CONFIGS, ("K", "CHANNELS", "PATCH"))


def _grid(images: int, pixels: int, channels: int) -> Callable[[dict[str, Any]], tuple[int, int]]:
    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        blocks = triton.cdiv(pixels, meta["BLOCK_PIXELS"])
        return images * blocks, triton.cdiv(channels, meta["BLOCK_CHANNELS"])

    return grid
