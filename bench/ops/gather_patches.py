"""gather_patches: arguments, sizes, the formula and the work; read by tests, benches and audit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import sizes
from bench.ops.work import Audited, Threshold, Work, without_memory
from seamo_fast.kernels import gather_patches
from seamo_fast.kernels._dtypes import accumulation

FUNCTION = gather_patches
OUTPUTS = ("patches", "valid")
GRADIENTS = ()
LARGEST = torch.finfo(torch.float32).max
DTYPES = (
    torch.uint16,
    torch.int16,
    torch.uint8,
    torch.float16,
    torch.float32,
    torch.float64,
)


class Arguments(NamedTuple):
    """As in the schema."""

    bands: list[Tensor]  # [B, T, Cg, Hg, Wg]
    boxes: Tensor  # [B, T, 4]
    index: Tensor  # int [B, T, K]
    shift: Tensor  # [C]
    scale: Tensor  # [C]
    order: list[int]
    image_size: tuple[int, int]
    patch_size: int
    nodata: float | None = None
    whole_pixel: bool = False
    limit: float = LARGEST
    dtype: torch.dtype = torch.float32


def make(
    stored: torch.dtype = torch.uint16,
    *,
    batch: int = 1,
    t: int = 2,
    k: int = 3,
    p: int = 4,
    grids: Sequence[tuple[int, int, int]] = ((2, 11, 12), (1, 5, 6)),
    patches: tuple[int, int] = (3, 4),
    nodata: float | None = None,
    whole_pixel: bool = False,
    limit: float = LARGEST,
    dtype: torch.dtype = torch.float32,
) -> Arguments:
    """Random arguments: grids (channels, height, width), an image of patches[0] x patches[1]."""
    channels = sum(grid[0] for grid in grids)
    return Arguments(
        bands=[random_band((batch, t, *grid), stored) for grid in grids],
        boxes=random_boxes(batch, t),
        index=torch.rand(batch, t, patches[0] * patches[1]).argsort(-1)[..., :k],
        shift=torch.rand(channels) * 100,
        # float16 holds what comes out
        scale=(torch.rand(channels) + 0.5) / (100 if dtype == torch.float16 else 1),
        order=torch.randperm(channels).tolist(),
        image_size=(patches[0] * p, patches[1] * p),
        patch_size=p,
        nodata=nodata,
        whole_pixel=whole_pixel,
        limit=limit,
        dtype=dtype,
    )


def random_band(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Any stored values, but NaN and infinity."""
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), dtype=torch.float64).mul(20).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, tuple(shape)).to(dtype)


def random_boxes(batch: int, seasons: int) -> Tensor:
    """Regions of at least a quarter of the tile, some flipped."""
    extent = torch.rand(batch, seasons, 2) * 0.5 + 0.5
    start = torch.rand(batch, seasons, 2) * (1 - extent)
    flip = torch.rand(batch, seasons, 2) < 0.5
    return torch.cat([start, torch.where(flip, -extent, extent)], dim=-1)


def formula(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    order: Sequence[int] | None = None,
    image_size: tuple[int, int] = (0, 0),
    patch_size: int = 1,
    nodata: float | None = None,
    whole_pixel: bool = False,
    limit: float = LARGEST,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """``F.grid_sample`` of whole images, then the wanted patches; in float64 whatever ``dtype``."""
    images, holes = [], []
    for number, band in enumerate(bands):
        stored = band.double()
        lost = ~(stored.abs() <= limit)
        if nodata is not None:
            empty = stored == nodata
            if whole_pixel:
                empty &= _measured_nowhere(bands, number, nodata, limit)
            lost |= empty
        images.append(_sampled_image(stored.masked_fill(lost, 0), boxes, image_size))
        holes.append(_sampled_image(lost.double(), boxes, image_size))
    image, hole = torch.cat(images, 2), torch.cat(holes, 2) > 0
    if order is not None:
        image, hole = image[:, :, list(order)], hole[:, :, list(order)]
    image = (image - shift.double()[:, None, None]) * scale.double()[:, None, None]
    image[hole] = 0
    return patchified(image, index, patch_size), ~patchified(hole, index, patch_size).any(-1)


def _measured_nowhere(bands: Sequence[Tensor], number: int, nodata: float, limit: float) -> Tensor:
    """Which pixels of a grid no channel of any has measured, [B, T, 1, H, W]."""
    nowhere = torch.ones_like(bands[number][:, :, :1], dtype=torch.bool)
    for other in bands:
        stored = other.double()
        measured = ((stored.abs() <= limit) & (stored != nodata)).any(2, keepdim=True)
        for axis in (3, 4):
            own, count = bands[number].shape[axis], other.shape[axis]
            nearest = [int(Fraction(2 * i + 1, 2 * own) * count) for i in range(own)]
            measured = measured[(slice(None),) * axis + (nearest,)]
        nowhere &= ~measured
    return nowhere


def _sampled_image(band: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Region of a float64 grid [B, T, C, H, W] as an image [B, T, C, *image_size]."""
    batch, seasons = boxes.shape[:2]
    image = torch.empty(batch, seasons, band.shape[2], *image_size, dtype=torch.float64)
    for b in range(batch):
        for t in range(seasons):
            top, left, tall, wide = boxes[b, t].double().tolist()
            y = top + (torch.arange(image_size[0]) + 0.5).double() / image_size[0] * abs(tall)
            x = left + (torch.arange(image_size[1]) + 0.5).double() / image_size[1] * abs(wide)
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) * 2 - 1
            region = F.grid_sample(
                band[b, t][None], grid[None], padding_mode="border", align_corners=False
            )[0]
            flipped = [axis for axis, extent in ((1, tall), (2, wide)) if extent < 0]
            image[b, t] = region.flip(flipped)
    return image


def patchified(image: Tensor, index: Tensor, p: int) -> Tensor:
    """Wanted patches of images [B, T, C, S, S'], each as a row (C, p, p)."""
    columns = image.shape[-1] // p
    rows = []
    for b in range(index.shape[0]):
        for t in range(index.shape[1]):
            for number in index[b, t].tolist():
                y, x = number // columns * p, number % columns * p
                rows.append(image[b, t, :, y : y + p, x : x + p].reshape(-1))
    size = image.shape[2] * p * p
    return (
        torch.stack(rows).view(*index.shape, size) if rows else image.new_empty(*index.shape, size)
    )


def at_base(
    dtype: torch.dtype, *, stored: torch.dtype = torch.uint16, whole_pixel: bool = False
) -> Arguments:
    """Shapes alone, but whole tiles as boxes: 64 samples of Sentinel-2, for the base model."""
    lead = (64, sizes.SEASONS)
    bands = [
        without_memory(*lead, count, side, side, dtype=stored)
        for count, side in ((4, 264), (6, 132), (2, 44))
    ]
    return Arguments(
        bands,
        boxes=torch.tensor([0.0, 0, 1, 1]).expand(*lead, 4).contiguous(),
        index=torch.arange(sizes.TOKENS, dtype=torch.int32).expand(*lead, -1).contiguous(),
        shift=without_memory(12),
        scale=without_memory(12),
        order=list(range(12)),
        image_size=(sizes.IMAGE, sizes.IMAGE),
        patch_size=sizes.PATCH,
        nodata=0.0,
        whole_pixel=whole_pixel,
        dtype=dtype,
    )


RIVALS = ()  # nothing in PyTorch reads patches from whole grids


def batch(size: int) -> dict[str, Any]:
    """What ``make`` takes for a batch of that size."""
    return {"batch": size}


def computed(x: Arguments) -> list[torch.dtype]:
    """The dtypes that a backend has to compute in."""
    return [accumulation(*x.bands), torch.float64 if x.dtype == torch.float64 else torch.float32]


def dtypes(x: Arguments) -> dict[str, torch.dtype]:
    """Of the results of the operators."""
    return {"patches": x.dtype, "valid": torch.bool}


def terms(x: Arguments, grad: None) -> dict[str, float]:
    """The largest value that may come out: float32 positions move by a part of a pixel."""
    bands = [band.double().abs() for band in x.bands]
    stored = max(
        (float(band.where(band <= x.limit, 0).max()) for band in bands if band.numel()), default=1.0
    )
    return {"patches": max(1.0, stored * float(x.scale.abs().max()))}


def work(x: Arguments, *, both: bool = False) -> Work:
    """Each pixel that a wanted patch needs is read once, however many patches share it.

    Operations: three interpolations of three a value, and the normalisation.
    """
    values = x.index.numel() * len(x.order) * x.patch_size**2
    read = sum(
        _pixels(band, x) * band.shape[2] * band.element_size() for band in x.bands if band.numel()
    )
    return Work(11 * values, read + values * x.dtype.itemsize)


def _pixels(band: Tensor, x: Arguments) -> int:
    """How many pixels of a grid some wanted patch is interpolated from."""
    *_, height, width = band.shape
    index = x.index.flatten(0, 1).long()[..., None]
    columns = x.image_size[1] // x.patch_size
    boxes = x.boxes.flatten(0, 1)[..., None, None]
    taps = []
    for axis, side, corner in ((0, height, index // columns), (1, width, index % columns)):
        pixel = corner * x.patch_size + torch.arange(x.patch_size, device=index.device)
        start, extent, image = boxes[:, axis], boxes[:, axis + 2], x.image_size[axis]
        pixel = torch.where(extent < 0, image - 1 - pixel, pixel)
        place = start * side + (pixel + 0.5) * extent.abs() * side / image - 0.5
        low = place.clamp(0, side - 1).floor().long()
        taps.append(torch.cat([low, (low + 1).clamp(max=side - 1)], -1))
    images = torch.arange(len(index), device=index.device)[:, None, None, None]
    needed = torch.zeros(len(index), height, width, dtype=torch.bool, device=index.device)
    needed[images, taps[0][..., None], taps[1][..., None, :]] = True
    return int(needed.sum())


# more than a block in every dimension and a rest: CPU 8 columns of up to 32 pixels; Triton 512
# pixels and 1 or 4 channels; CUDA 256 pixels and 8 channels
NATIVE = ((4, 60, 48), (6, 30, 24), (2, 10, 8))  # of 10, 20 and 60 m
SIZES: tuple[dict[str, Any], ...] = (
    {"k": 1},
    {"k": 12},
    {"p": 1},
    {"p": 7},
    {"p": 8, "k": 12},
    {"t": 1},
    {"grids": ((2, 1, 2), (1, 1, 2))},
    {"batch": 2, "t": 3, "k": 5, "p": 8, "grids": NATIVE},
    {"batch": 2, "t": 2, "k": 12, "p": 7, "grids": ((9, 11, 12), (5, 5, 6))},
    {"batch": 2, "t": 2, "p": 23, "k": 2, "grids": ((2, 70, 70), (1, 23, 23), (3, 1, 5))},
)
MANY: tuple[dict[str, Any], ...] = (  # for kernels that are not interpreted
    {"batch": 2, "t": 3, "k": 20, "patches": (4, 5), "p": 7, "grids": NATIVE},
    {"batch": 2, "t": 3, "k": 9, "p": 16, "grids": ((2, 49, 70), (1, 16, 16), (6, 1, 5))},
)
EMPTY: tuple[dict[str, Any], ...] = ({"batch": 0}, {"t": 0}, {"k": 0})
SMALLEST: dict[str, Any] = {
    "t": 1,
    "k": 2,
    "grids": ((2, 8, 8), (2, 4, 4)),
    "patches": (2, 2),
    "nodata": 0.0,
}  # where a call costs least
AUDITED = Audited(
    more=({"whole_pixel": True},),
    more_cuda=tuple(
        {"stored": dtype, "whole_pixel": True}
        for dtype in (torch.int16, torch.uint8, torch.float16, torch.float32)
    ),
)
_TILES = ("s2l2a", "s2l2a nodata")
THRESHOLDS = (
    Threshold(_TILES, ("crop",), 6, both=False),
    Threshold(_TILES, ("crop compiled", "grid_sample compiled"), 2.5, both=False),
    Threshold(_TILES, ("ours",), 0.5, "of copy", both=False),
)
