"""Batches of labelled items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import torch
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.modalities import MISSING_DATE
from seamo_fast.tasks.datasets.reading.base import LabelledTile, SkippedTile
from seamo_fast.tiles import TileBatch

_EPOCH: Final = date(1970, 1, 1)


@dataclass
class LabelledBatch:
    """A batch of items, in the form that models take.

    Attributes:
        tiles: The images; `ids` are the items' numbers in their dataset.
        names: Names of the items.
        labels: int64 [B] or [B, classes], None for datasets without.
        masks: int64 [B, H, W], None for datasets without.
        skipped: Items that could not be read and are not in the batch.
    """

    tiles: TileBatch
    names: list[str]
    labels: Tensor | None
    masks: Tensor | None
    skipped: list[SkippedTile]


def collate(items: Sequence[LabelledTile | SkippedTile]) -> LabelledBatch:
    """Stacks the items of one dataset that could be read (`collate_fn` of torch's DataLoader).

    Raises:
        DataError: None could be read, or shapes differ: crop the items to one size before.
    """
    tiles = [item for item in items if isinstance(item, LabelledTile)]
    skipped = [item for item in items if isinstance(item, SkippedTile)]
    if not tiles:
        reasons = "; ".join(item.reason for item in skipped[:1])
        raise DataError(f"none of {len(skipped)} items can be read: {reasons}")
    names = tuple(tiles[0].bands)
    seasons = {name: len(tiles[0].valid[name]) for name in names}
    if len({len(tile.valid[name]) for tile in tiles for name in names}) > 1:
        raise DataError(f"modalities or items differ in their dates: {seasons} in {tiles[0].id}")
    valid = torch.tensor([[tile.valid[name] for name in names] for tile in tiles]).mT.contiguous()
    dates = [[[_days(day) for day in tile.dates[name]] for name in names] for tile in tiles]
    batch = TileBatch(
        modalities=names,
        bands={
            name: [
                _stack(name, [tile.bands[name][number] for tile in tiles])
                for number in range(len(tiles[0].bands[name]))
            ]
            for name in names
        },
        valid=valid,
        dates=torch.tensor(dates, dtype=torch.int32).mT.contiguous(),
        ids=torch.tensor([tile.number for tile in tiles]),
        epochs=torch.zeros(len(tiles), dtype=torch.int64),
        complete=bool(valid.all()),
    )
    return LabelledBatch(
        tiles=batch,
        names=[tile.id for tile in tiles],
        labels=_stack_all("labels", [tile.label for tile in tiles]),
        masks=_stack_all("masks", [tile.mask for tile in tiles]),
        skipped=skipped,
    )


def _days(day: date | None) -> int:
    return MISSING_DATE if day is None else (day - _EPOCH).days


def _stack_all(what: str, tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    if not present:
        return None
    if len(present) < len(tensors):
        raise DataError(f"{len(tensors) - len(present)} of {len(tensors)} items have no {what}")
    return _stack(what, present)


def _stack(what: str, tensors: Sequence[Tensor]) -> Tensor:
    kinds = dict.fromkeys((tensor.dtype, tuple(tensor.shape)) for tensor in tensors)
    if len(kinds) > 1:
        shapes = ", ".join(f"{dtype} {list(shape)}" for dtype, shape in kinds)
        raise DataError(f"{what} differ within a batch: {shapes}; crop the items to one size")
    return torch.stack(list(tensors))
