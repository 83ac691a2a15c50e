"""Labelled items as models take them: every modality on one grid, whole patches, dates, groups.

Sizes: B items, T seasons, M modalities, C bands, p side of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.modalities import Modality
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.tasks.datasets.reading.base import LabelledTile
from seamo_fast.tasks.datasets.reading.collate import collate


@dataclass(frozen=True)
class Inputs:
    """Items of one shape.

    Attributes:
        images: Stored values [B, T, C, H, W] of each modality, all bands on the finest grid.
        valid: bool [B, T, M], groups that exist, in the order of `images`.
        dates: int32 [B, T, M], days since 1970-01-01, `MISSING_DATE` where unknown.
    """

    images: dict[str, Tensor]
    valid: Tensor
    dates: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        height, width = next(iter(self.images.values())).shape[-2:]
        return height, width

    def __len__(self) -> int:
        return len(self.valid)

    def season(self, t: int) -> Inputs:
        """Returns the images of one season, T = 1."""
        images = {name: image[:, t : t + 1] for name, image in self.images.items()}
        return Inputs(images, self.valid[:, t : t + 1], self.dates[:, t : t + 1])

    def padded(self, multiple: int) -> Inputs:
        """Returns images whose height and width are multiples of a number.

        The last row and column are repeated below and to the right, so that the upper left corner
        stays where it is: masks are cut back to the size they had.
        """
        return self.window(0, 0, *(-(-side // multiple) * multiple for side in self.size))

    def window(self, top: int, left: int, height: int, width: int) -> Inputs:
        """Returns a part of the images; the last row and column are repeated beyond them."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        images = {name: image[..., rows, columns] for name, image in self.images.items()}
        if top + height > self.size[0] or left + width > self.size[1]:
            images = {name: _extended(image, height, width) for name, image in images.items()}
        return replace(self, images=images)


def _extended(image: Tensor, height: int, width: int) -> Tensor:
    """Returns [..., height, width]; the last row and column are repeated."""
    rows, columns = (
        torch.arange(length).clamp(max=side - 1)
        for length, side in zip((height, width), image.shape[-2:], strict=True)
    )
    return image[..., rows[:, None], columns[None]]


def check_units(
    check: UnitCheck, modalities: Sequence[Modality], images: Mapping[str, Tensor], valid: Tensor
) -> None:
    """Compares images [B, T, C, H, W] with the units of their modalities, if they are the first.

    Raises:
        UnitError: They look like another unit, and the check is strict.
    """
    for m, modality in enumerate(modalities):
        check(modality, images[modality.name], valid[:, :, m])


def read_inputs(tiles: Sequence[LabelledTile], modalities: Sequence[Modality]) -> Inputs:
    """Stacks items of one shape.

    Args:
        tiles: See `shape_of`.
        modalities: What they hold.

    Raises:
        DataError: Modalities differ in their number of seasons.
    """
    batch = collate(tiles).tiles
    known = {modality.name: modality for modality in modalities}
    size = size_of(tiles[0])
    images = {name: on_one_grid(known[name], grids, size) for name, grids in batch.bands.items()}
    return Inputs(images, batch.valid, batch.dates)


def size_of(tile: LabelledTile) -> tuple[int, int]:
    """Returns H and W of the finest grid of an item."""
    height, width = max(grid.shape[-2:] for grids in tile.bands.values() for grid in grids)
    return height, width


def shape_of(tile: LabelledTile) -> tuple[tuple[torch.dtype, torch.Size], ...]:
    """Returns what must agree among the items of a batch."""
    return tuple((grid.dtype, grid.shape) for grids in tile.bands.values() for grid in grids)


def on_one_grid(modality: Modality, grids: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Returns all bands [B, T, C, H, W] in published order, coarse grids resampled.

    Args:
        modality: Says which bands each grid holds and what nodata is.
        grids: Each [B, T, Cg, Hg, Wg].
        size: H and W.
    """
    if len(grids) == 1 and tuple(grids[0].shape[-2:]) == size:
        return grids[0][:, :, list(modality.order)]
    resampled = [_resample(grid, size, modality.nodata, modality.limit) for grid in grids]
    return torch.cat(resampled, dim=2)[:, :, list(modality.order)]


def _resample(grid: Tensor, size: tuple[int, int], nodata: float | None, limit: float) -> Tensor:
    """Returns [B, T, C, H, W] float32, bilinear among measured pixels.

    A pixel whose nearest one was not measured stays so.
    """
    values = grid.flatten(0, 1).float()
    if tuple(values.shape[-2:]) == size:
        return values.unflatten(0, grid.shape[:2])
    lost = ~(values.abs() <= limit)  # NaN too
    if nodata is not None:
        lost = lost | (values == nodata)
    kept = _bilinear(torch.where(lost, 0, values), size)
    if lost.any():
        kept = kept / _bilinear((~lost).float(), size).clamp(min=1e-6)
        empty = F.interpolate(lost.float(), size, mode="nearest-exact") > 0
        kept = torch.where(empty, torch.nan if nodata is None else nodata, kept)
    return kept.unflatten(0, grid.shape[:2])


def _bilinear(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def by_shape(tiles: Mapping[int, LabelledTile]) -> list[dict[int, LabelledTile]]:
    """Returns items in groups of one shape, in the order in which shapes first come."""
    groups: dict[Any, dict[int, LabelledTile]] = {}
    for number, tile in tiles.items():
        groups.setdefault(shape_of(tile), {})[number] = tile
    return list(groups.values())
