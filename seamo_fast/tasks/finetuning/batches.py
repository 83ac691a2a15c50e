"""Batches of items, and those that evaluate: whole images in order, predicted window by window.

Sizes: B items, T seasons, M modalities, C bands, K classes, p side of a patch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.data.loading.stream import ahead
from seamo_fast.modalities import Modality
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.tasks.datasets.reading.base import IGNORE
from seamo_fast.tasks.features.extractors import starts
from seamo_fast.tasks.features.inputs import check_units
from seamo_fast.tasks.features.items import Item, Items

THREADS: Final = min(8, os.cpu_count() or 1)
DEPTH: Final = 1  # batches a thread that are read ahead


@dataclass(frozen=True)
class Batch:
    """Items or windows of one shape, with their targets.

    Attributes:
        images: Stored values [B, T, C, H, W] by the dataset's name of each modality, all bands on
            one grid; H and W are multiples of p.
        valid: bool [B, T, M], groups that exist, in the order of `images`.
        dates: int32 [B, T, M], days since 1970-01-01, `MISSING_DATE` where unknown.
        target: Classes: int64 [B], or float32 [B, K] once mixed. Flags: float32 [B, K]. Masks and
            change: int64 [B, H, W], `IGNORE` where a pixel has no class, and in the padding.
        numbers: int64 [B], items of the dataset.
    """

    images: dict[str, Tensor]
    valid: Tensor
    dates: Tensor
    target: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""
        height, width = next(iter(self.images.values())).shape[-2:]
        return height, width

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """Returns the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def split(self, part: int, parts: int) -> Batch:
        """Returns one of so many parts of the rows, whose sizes differ by one at most."""
        rows = slice(part * len(self) // parts, (part + 1) * len(self) // parts)
        return self._map(lambda tensor: tensor[rows])

    def window(self, top: int, left: int, height: int, width: int) -> Batch:
        """Returns a part of the images, and of the masks where pixels have labels."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        images = {name: image[..., rows, columns] for name, image in self.images.items()}
        dense = self.target.ndim == 3
        target = self.target[..., rows, columns] if dense else self.target
        return replace(self, images=images, target=target)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        images = {name: change(image) for name, image in self.images.items()}
        others = {f.name: change(getattr(self, f.name)) for f in fields(self)[1:]}
        return Batch(images, **others)


class EvaluationBatches:
    """The items of the validation or test part in order, each once, read ahead.

    Whole images, or their middle where classes train on windows; batches hold items of one shape.

    Args:
        items: What is read.
        numbers: Those of the part.
        modalities: The dataset's, with statistics, whose unit is compared with the first images.
        patch: p; images are padded to multiples of it.
        crop: H and W of the middle that is taken; None for whole images.
        batch_size: Most items of a batch.
        strict: End if images look like another unit, instead of warning.
        rank: Number of this rank, which gets its part of the items, maybe none.
        world: Number of ranks.
        threads: Batches that are read at once; 0 reads when a batch is wanted.
    """

    def __init__(
        self,
        items: Items,
        numbers: Sequence[int],
        modalities: Sequence[Modality],
        patch: int,
        *,
        batch_size: int,
        crop: tuple[int, int] | None = None,
        strict: bool = False,
        rank: int = 0,
        world: int = 1,
        threads: int = THREADS,
    ) -> None:
        self.items = items
        self._modalities = modalities
        self._patch = patch
        self._crop = crop
        self._check = UnitCheck(strict)
        self._threads = threads
        own = numbers[rank * len(numbers) // world : (rank + 1) * len(numbers) // world]
        self._chunks = [own[at : at + batch_size] for at in range(0, len(own), batch_size)]

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches.

        Raises:
            DataError: As `Items.read`.
            UnitError: Images look like another unit, and `strict` is set.
        """
        for batches in ahead(self._make, range(len(self._chunks)), self._threads, DEPTH):
            for batch in batches:
                check_units(self._check, self._modalities, batch.images, batch.valid)
                yield batch

    def _make(self, number: int) -> list[Batch]:
        groups: dict[tuple[int, int], list[Batch]] = {}
        for each in self._chunks[number]:
            item = self.items.read(each)
            if item:
                batch = self._cut(item)
                groups.setdefault(batch.size, []).append(batch)
        return [stack(group) for group in groups.values()]

    def _cut(self, item: Item) -> Batch:
        whole = item.inputs.size
        height, width = self._crop or (-(-side // self._patch) * self._patch for side in whole)
        top, left = (
            max(side - length, 0) // 2 for side, length in zip(whole, (height, width), strict=True)
        )
        return cut(item, top, left, height, width)


def cut(item: Item, top: int, left: int, height: int, width: int) -> Batch:
    """Returns a window of an item, B = 1; beyond the image it is padded, see `Inputs.window`."""
    inputs = item.inputs.window(top, left, height, width)
    target = item.target[None]
    if target.ndim == 3:
        part = target[:, top : top + height, left : left + width].long()
        padding = (0, width - part.shape[2], 0, height - part.shape[1])
        target = F.pad(part, padding, value=IGNORE)
    return Batch(inputs.images, inputs.valid, inputs.dates, target, torch.tensor([item.number]))


def stack(batches: Sequence[Batch]) -> Batch:
    """Returns batches of one shape as one; images of different dtypes become float32."""
    images = {}
    for name in batches[0].images:
        parts = [batch.images[name] for batch in batches]
        mixed = len({part.dtype for part in parts}) > 1
        images[name] = torch.cat([part.float() for part in parts] if mixed else parts)
    others = {
        field.name: torch.cat([getattr(batch, field.name) for batch in batches])
        for field in fields(Batch)[1:]
    }
    return Batch(images, **others)


def by_windows(
    predict: Callable[[Batch], Tensor], batch: Batch, window: tuple[int, int], most: int
) -> Tensor:
    """Returns the logits [B, K, H, W] of whole images, window by window.

    Windows cover an image as `starts` says; where two overlap, the later one counts. The padding's
    logits are there too, but its targets are `IGNORE`.

    Args:
        predict: Returns the logits of windows.
        batch: Whole images.
        window: H and W of a window; of smaller images it is the image.
        most: Windows that are predicted at once, at least one of each item.
    """
    (H, W), B = batch.size, len(batch)
    height, width = min(window[0], H), min(window[1], W)
    corners = [(top, left) for top in starts(H, height) for left in starts(W, width)]
    if len(corners) == 1:
        return predict(batch)
    at_once = max(1, most // B)
    found = None
    for first in range(0, len(corners), at_once):
        some = corners[first : first + at_once]
        parts = predict(stack([batch.window(*each, height, width) for each in some]))
        if found is None:
            found = parts.new_empty(B, parts.shape[1], H, W)
        for (top, left), part in zip(some, parts.split(B), strict=True):
            found[:, :, top : top + height, left : left + width] = part
    assert found is not None
    return found


def covering(size: tuple[int, int], window: tuple[int, int]) -> int:
    """Returns how many windows cover an image."""
    rows, columns = (-(-side // length) for side, length in zip(size, window, strict=True))
    return rows * columns
