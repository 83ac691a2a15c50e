"""Decoded items with their targets, the latest of them kept within a bound of memory."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.base import (
    DENSE,
    IGNORE,
    LabelledDataset,
    LabelledTile,
    OnBad,
)
from seamo_fast.tasks.features.inputs import Inputs, read_inputs


@dataclass(frozen=True)
class Item:
    """One item as models take it.

    Attributes:
        number: In its dataset.
        inputs: Its images, B = 1.
        target: Class int64 []; flags float32 [K]; or the mask int16 [H, W], `IGNORE` where a pixel
            has no class.
    """

    number: int
    inputs: Inputs
    target: Tensor

    @property
    def bytes(self) -> int:
        """Memory that its images and target take."""
        return sum(each.nbytes for each in (*self.inputs.images.values(), self.target))


class Items:
    """Reads items of a dataset, for any number of threads; what is kept changes no result.

    Attributes:
        dataset: The items.
        seasons: T that every item must have.
        skipped: Why items were left out so far, by number.
        kept_bytes: Memory that is taken now.

    Args:
        dataset: See above.
        seasons: See above.
        on_bad: "skip" leaves an item out that cannot be read, "stop" raises.
        memory: Bytes of decoded items that are kept at most.
    """

    def __init__(
        self,
        dataset: LabelledDataset[Any],
        seasons: int,
        on_bad: OnBad = "skip",
        memory: int = 2**31,
    ) -> None:
        self.dataset = dataset
        self.skipped: dict[int, str] = {}
        self.seasons = seasons
        self._on_bad = on_bad
        self._memory = memory
        self.kept_bytes = 0
        self._bytes: dict[int, int] = {}
        self._kept: OrderedDict[int, Future[Item | None]] = OrderedDict()
        self._lock = Lock()

    def read(self, number: int) -> Item | None:
        """Returns an item, None where it is left out.

        Raises:
            DataError: It has no label or a wrong one, or cannot be read and `on_bad` is "stop".
        """
        with self._lock:
            known = self._kept.get(number)
            future = self._kept.setdefault(number, Future())
            self._kept.move_to_end(number)
        if known is None:  # other threads that want the item wait for this one
            try:
                future.set_result(self._decode(number))
            except BaseException as error:
                future.set_exception(error)
                raise
            self._keep(number, future)
        return future.result()

    def _keep(self, number: int, future: Future[Item | None]) -> None:
        """Counts an item, and drops those not wanted for the longest time, down to the bound."""
        with self._lock:
            if self._kept.get(number) is future:
                item = future.result()
                self._bytes[number] = item.bytes if item else 0
                self.kept_bytes += self._bytes[number]
            while self.kept_bytes > self._memory:
                oldest, _ = self._kept.popitem(last=False)
                self.kept_bytes -= self._bytes.pop(oldest, 0)

    def _decode(self, number: int) -> Item | None:
        try:
            tile = self.dataset.read(number)
            inputs = read_inputs([tile], self.dataset.modalities)
            found = inputs.valid.shape[1]
            if found != self.seasons:
                raise DataError(
                    f"{tile.id} has {found} seasons, but the training items have {self.seasons}"
                )
        except DataError as error:
            if self._on_bad == "stop":
                raise
            self.skipped[number] = str(error)
            return None
        return Item(number, inputs, target_of(tile, self.dataset, inputs.size))


def target_of(tile: LabelledTile, dataset: LabelledDataset[Any], size: tuple[int, int]) -> Tensor:
    """Returns the target of an item, see `Item`.

    Args:
        tile: The item.
        dataset: Says what its label is, and the classes.
        size: H and W of its images.

    Raises:
        DataError: It has none, one outside of the classes, or a mask of another size.
    """
    label = label_of(tile, dataset.task)
    classes = len(dataset.classes)
    if dataset.task == "multilabel":
        if label.shape != (classes,) or ((label != 0) & (label != 1)).any():
            raise DataError(
                f"{tile.id} has the label {label.tolist()}; expected a flag of 0 or 1 for each of "
                f"the {classes} classes"
            )
        return label.float()
    least = 0 if dataset.task == "classes" else IGNORE
    wrong = label[(label < least) | (label >= classes)]
    if len(wrong):
        raise DataError(
            f"{tile.id} has the label {wrong.flatten()[0]}; expected 0 to {classes - 1}, the "
            f"numbers of the {classes} classes" + (f", or {IGNORE} for none" if least else "")
        )
    if dataset.task != "classes" and tuple(label.shape) != size:
        raise DataError(
            f"{tile.id}: its mask is {_sides(label.shape)}, but its image {_sides(size)}"
        )
    return label if dataset.task == "classes" else label.short()


def count_labels(target: Tensor, classes: int) -> Tensor:
    """Returns int64 [K]: how many items or pixels have each class."""
    if target.dtype == torch.float32:
        return target.long()
    labels = target.flatten().long()
    return torch.bincount(labels[labels != IGNORE], minlength=classes)


def label_of(tile: LabelledTile, task: str) -> Tensor:
    """Returns the label or mask of an item.

    Raises:
        DataError: It has none.
    """
    dense = task in DENSE
    label = tile.mask if dense else tile.label
    if label is None:
        raise DataError(f"{tile.id} has no {'mask' if dense else 'label'}")
    return label


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
