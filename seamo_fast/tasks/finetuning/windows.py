"""Which windows of which training items make which batch.

Sizes: B items, T seasons, M modalities, C bands, K classes, p side of a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F

from seamo_fast.data.loading.stream import ahead
from seamo_fast.randomness import generator
from seamo_fast.tasks.datasets.reading.base import DENSE
from seamo_fast.tasks.features.items import Item, Items
from seamo_fast.tasks.finetuning.augment import Mixing, Orientations, orientation, oriented
from seamo_fast.tasks.finetuning.batches import DEPTH, THREADS, Batch, covering, cut, stack


class TrainingBatches:
    """The windows of the training items in random order, epoch after epoch, read ahead.

    Which windows make a batch, where they lie and how they are turned and mixed follows from the
    seed, the epoch, the item and the window alone. Of masks an item gives as many windows an epoch
    as cover it, at random places; of classes and flags one. An item that cannot be read is left out
    of its batch (`items.skipped`), which may leave a batch smaller, or empty.

    Attributes:
        items: What is read.
        steps: Batches an epoch; the last may be smaller.
        window: H and W of a window.

    Args:
        items: See above.
        sizes: H and W of each training item.
        window: See above; multiples of p. Smaller items are padded below and on the right.
        mixing: Which windows are mixed.
        batch_size: Windows of a batch, of all ranks together.
        seed: Of everything random.
        augment: Which orientations windows get.
        rank: Number of this rank; the parts of all ranks make the batch of one.
        world: Number of ranks.
        threads: Batches that are read at once; 0 reads when a batch is wanted.
    """

    def __init__(
        self,
        items: Items,
        sizes: Mapping[int, tuple[int, int]],
        window: tuple[int, int],
        mixing: Mixing,
        *,
        batch_size: int,
        seed: int,
        augment: Orientations = "turns",
        rank: int = 0,
        world: int = 1,
        threads: int = THREADS,
    ) -> None:
        self.items = items
        self.window = window
        self._mixing = mixing
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._rank, self._world = rank, world
        self._threads = threads
        dense = items.dataset.task in DENSE
        windows = [covering(size, window) if dense else 1 for size in sizes.values()]
        self._windows = np.array(
            [
                (number, window)
                for number, count in zip(sizes, windows, strict=True)
                for window in range(count)
            ]
        )
        self.steps = -(-len(self._windows) // batch_size)
        self._order = lru_cache(maxsize=3)(self._permute)  # reading ahead crosses epochs

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields this rank's part of each batch from number `start` on, without end.

        Batch n is the one of step n % `steps` of epoch n // `steps`. A part may be empty.

        Raises:
            DataError: As `Items.read`.
        """
        return ahead(self._make, count(start), self._threads, DEPTH)

    def _permute(self, epoch: int) -> np.ndarray:
        return generator(self._seed, "finetune", "order", epoch).permutation(self._windows)

    def _part(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """Returns item and window of this rank's rows; windows that are mixed stay together."""
        rows = self._order(epoch)[step * self._batch_size :][: self._batch_size]
        unit = 2 if self._mixing.active else 1
        units = -(-len(rows) // unit)
        first, last = ((self._rank + each) * units // self._world * unit for each in (0, 1))
        return [(int(number), int(window)) for number, window in rows[first:last]]

    def _make(self, number: int) -> Batch:
        epoch, step = divmod(number, self.steps)
        part = self._part(epoch, step)
        found = {at: item for at, (n, _) in enumerate(part) if (item := self.items.read(n))}
        if not found:
            return self._empty()
        batch = stack([self._cut(item, epoch, part[at][1]) for at, item in found.items()])
        if not self._mixing.active:
            return batch
        rows = {at: row for row, at in enumerate(found)}
        partners = [rows.get(at ^ 1, row) for at, row in rows.items()]
        draws = [generator(self._seed, "finetune", "mix", epoch, *part[at]) for at in found]
        images, valid, target = self._mixing(
            batch.images, batch.valid, batch.target, partners, draws
        )
        return replace(batch, images=images, valid=valid, target=target)

    def _cut(self, item: Item, epoch: int, window: int) -> Batch:
        rng = generator(self._seed, "finetune", "window", epoch, item.number, window)
        top, left = (
            int(rng.integers(max(side - length, 0) + 1))
            for side, length in zip(item.inputs.size, self.window, strict=True)
        )
        code = orientation(rng, self._augment, self.window[0] == self.window[1])
        batch = cut(item, top, left, *self.window)
        images = {name: oriented(image, code) for name, image in batch.images.items()}
        target = oriented(batch.target, code) if batch.target.ndim == 3 else batch.target
        return self._mixable(replace(batch, images=images, target=target))

    def _mixable(self, batch: Batch) -> Batch:
        """Returns float32 images, and classes as shares, where windows are mixed."""
        if not self._mixing.active:
            return batch
        images = {name: image.float() for name, image in batch.images.items()}
        target = batch.target
        if target.ndim == 1:
            target = F.one_hot(target, len(self.items.dataset.classes)).float()
        return replace(batch, images=images, target=target)

    def _empty(self) -> Batch:
        """Returns a batch of no rows."""
        dataset, T, M = self.items.dataset, self.items.seasons, len(self.items.dataset.modalities)
        images = {
            each.name: torch.empty(1, T, len(each.bands), *self.window)
            for each in dataset.modalities
        }
        target = torch.zeros(1, dtype=torch.int64)
        if dataset.task in DENSE:
            target = target.expand(1, *self.window)
        elif dataset.task == "multilabel":
            target = torch.zeros(1, len(dataset.classes))
        valid = torch.zeros(1, T, M, dtype=torch.bool)
        one = Batch(images, valid, valid.int(), target, torch.zeros(1, dtype=torch.int64))
        return self._mixable(one).split(0, 2)
