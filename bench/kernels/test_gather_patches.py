"""gather_patches against chains that resample whole regions, and one that samples what is visible.

The width of the model does not matter: sizes are modalities, tiles as SSL4EO-S12 stores them, with
or without pixels that were not measured. Regions begin and end between the pixels of every grid:
what a crop can express.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels import common
from bench.ops import gather_patches as op
from bench.sizes import IMAGE, PATCH, SEASONS
from seamo_fast.kernels import gather_patches
from seamo_fast.modalities import get_modality

_TILE = 2640  # metres
_CELLS = 44  # pixels of 60 m
_COLUMNS = IMAGE // PATCH


class Inputs(NamedTuple):
    """Of one modality."""

    bands: list[Tensor]  # [B, T, Cg, Hg, Wg]
    boxes: Tensor  # [B, T, 4]
    regions: list[tuple[int, ...]]  # the boxes, a row an image, in cells
    index: Tensor  # int32 [B, T, K]
    shift: Tensor  # [C]
    scale: Tensor
    order: tuple[int, ...]
    nodata: float | None
    whole_pixel: bool
    dtype: torch.dtype


def inputs_of(case: common.Case) -> Inputs:
    """Regions of half a tile to a whole one; with nodata a fifth of every fourth tile is lost."""
    modality = get_modality(case.size)
    images = (case.batch, SEASONS)
    generator = torch.Generator().manual_seed(0)
    bands = []
    for gsd, channels in modality.grids:
        side = round(_TILE / gsd)
        shape = (*images, len(channels), side, side)
        stored = torch.randint(1, 10000, shape, generator=generator)
        if case.nodata:
            stored[:, 1, ..., : side * (_CELLS // 5) // _CELLS] = 0  # the same pixels of all grids
        dtype = torch.uint16 if modality.unit == "dn" else torch.float32
        bands.append(stored.to(common.device(), dtype))
    extent = torch.randint(31, _CELLS + 1, (*images, 1), generator=generator).expand(-1, -1, 2)
    start = (torch.rand(*images, 2, generator=generator) * (_CELLS - extent + 1)).long()
    cells = torch.cat([start, extent], -1)
    channels = len(modality.bands)
    return Inputs(
        bands,
        (cells / _CELLS).to(common.device()),
        [tuple(row) for row in cells.flatten(0, 1).tolist()],
        common.permutations(case)[..., : case.tokens].contiguous(),
        torch.full((channels,), 5000.0, device=common.device()),
        torch.full((channels,), 1 / 3000, device=common.device()),
        modality.order,
        modality.nodata if case.nodata else None,
        modality.nodata_rule == "pixel",
        case.dtype,
    )


def ours(x: Inputs) -> common.Results:
    """The operation under test."""
    return gather_patches(
        x.bands,
        x.boxes,
        x.index,
        x.shift,
        x.scale,
        order=x.order,
        image_size=IMAGE,
        patch_size=PATCH,
        nodata=x.nodata,
        whole_pixel=x.whole_pixel,
        dtype=x.dtype,
    )


def _measured(stored: Tensor, nodata: float | None) -> Tensor:
    values = stored.float()
    return values if nodata is None else values.masked_fill(values == nodata, torch.nan)


def _resized(stored: Tensor, nodata: float | None) -> Tensor:
    size = (IMAGE, IMAGE)
    return F.interpolate(_measured(stored, nodata)[None], size, mode="bilinear")


def _normalised(grids: list[Tensor], x: Inputs) -> Tensor:
    channels = [channel for grid in grids for channel in grid.unbind(1)]
    images = torch.stack([channels[c] for c in x.order], 1)
    return (images - x.shift[:, None, None]) * x.scale[:, None, None]


def _kept(patches: Tensor, x: Inputs) -> common.Results:
    if x.nodata is None:
        return patches.to(x.dtype), torch.ones_like(x.index, dtype=torch.bool)
    lost = patches.isnan()
    return patches.masked_fill(lost, 0).to(x.dtype), ~lost.any(-1)


def _visible(grids: list[Tensor], x: Inputs) -> common.Results:
    """Normalises images, cuts them and keeps the visible patches."""
    images = _normalised(grids, x).unflatten(0, x.index.shape[:2])
    patches = images.unflatten(4, (_COLUMNS, -1)).unflatten(3, (_COLUMNS, -1))
    patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
    index = x.index.long()[..., None].expand(-1, -1, -1, patches.shape[-1])
    return _kept(patches.gather(2, index), x)


def crop(x: Inputs, compiled: Callable[[Any], Any] = lambda part: part) -> common.Results:
    """Each sample's region cut out and resized, then normalised, cut into patches, gathered."""
    resize, grids = compiled(_resized), []
    for band in x.bands:
        pixels = band.shape[-1] // _CELLS
        images = []
        for tile, region in zip(band.flatten(0, 1), x.regions, strict=True):
            top, left, height, width = (pixels * cell for cell in region)
            images.append(resize(tile[:, top : top + height, left : left + width], x.nodata))
        grids.append(torch.cat(images))
    return compiled(_visible)(grids, x)


def parts_compiled(function: Callable[..., Any]) -> common.Function:
    """Not as one graph: every batch, with regions of its own, would be compiled again."""
    parts = functools.cache(lambda part: torch.compile(part, dynamic=True, fullgraph=True))
    return functools.partial(function, compiled=parts)


def _sampled(rows: Tensor, columns: Tensor, x: Inputs) -> list[Tensor]:
    """The grids at pixels of the region: blocks [B * T or 1, any, rows or columns], stacked."""
    top, left, height, width = x.boxes.flatten(0, 1)[:, None, None].unbind(3)
    down = 2 * (top + (rows + 0.5) / IMAGE * height) - 1
    across = 2 * (left + (columns + 0.5) / IMAGE * width) - 1
    shape = (*down.shape, across.shape[-1])
    points = [across[..., None, :].expand(shape), down[..., None].expand(shape)]
    places = torch.stack(points, -1).flatten(1, 2)
    measured = (_measured(band.flatten(0, 1), x.nodata) for band in x.bands)
    return [
        F.grid_sample(grid, places, align_corners=False, padding_mode="border") for grid in measured
    ]


def grid_sample(x: Inputs) -> common.Results:
    """All regions resampled in one call a grid; then as for the crops."""
    pixels = torch.arange(IMAGE, device=x.boxes.device)[None, None]
    return _visible(_sampled(pixels, pixels, x), x)


def grid_sample_visible(x: Inputs) -> common.Results:
    """Only the pixels of visible patches, one patch below the other."""
    inside = torch.arange(PATCH, device=x.boxes.device)
    index = x.index.flatten(0, 1)[..., None]
    rows, columns = (n * PATCH + inside for n in (index // _COLUMNS, index % _COLUMNS))
    images = _normalised(_sampled(rows, columns, x), x)
    patches = images.unflatten(2, (-1, PATCH)).transpose(1, 2).flatten(2)
    return _kept(patches.unflatten(0, x.index.shape[:2]), x)


def inside_the_region(
    x: Inputs, actual: common.Results, expected: common.Results
) -> tuple[common.Results, common.Results]:
    """Not the patches at its border: what is cut out is not interpolated with what is beside it."""
    row, column = x.index // _COLUMNS, x.index % _COLUMNS
    inner = (row % (_COLUMNS - 1) > 0) & (column % (_COLUMNS - 1) > 0)
    return tuple(result[inner] for result in actual), tuple(result[inner] for result in expected)


def arguments(x: Inputs) -> op.Arguments:
    """What ours takes."""
    return op.Arguments(
        x.bands,
        x.boxes,
        x.index,
        x.shift,
        x.scale,
        list(x.order),
        (IMAGE, IMAGE),
        PATCH,
        x.nodata,
        x.whole_pixel,
        dtype=x.dtype,
    )


BENCH = common.Bench(
    op=op,
    cases=[
        *common.cases(("s1grd", "s2l2a"), (common.FORWARD,)),
        common.Case("s1grd", nodata=True),
        common.Case("s2l2a", nodata=True),
    ],
    inputs=inputs_of,
    arguments=arguments,
    contestants={
        common.OURS: common.Contestant(ours, compiled=None),
        "crop": common.Contestant(crop, parts_compiled, compared=inside_the_region),
        "grid_sample": common.Contestant(grid_sample, compared=inside_the_region),
        "grid_sample, visible": common.Contestant(grid_sample_visible, compared=inside_the_region),
    },
    brief=("crop", "grid_sample, visible compiled"),
    tolerance=2e-3,
)


@common.contest(BENCH)
def test_gather_patches(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
