"""A TorchGeo dataset as a labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.folders import check_modality
from seamo_fast.tasks.datasets.reading.base import IGNORE, Contents, LabelledDataset, OnBad, Task


class Number(NamedTuple):
    """An item of the adapted dataset."""

    id: str
    split: str
    number: int


class TorchGeoDataset(LabelledDataset[Number]):
    """The items of a map-style dataset that yields dictionaries as TorchGeo's do.

    `image` is [C, H, W], or [T, C, H, W] of several dates; `label` a class number or flags; `mask`
    [H, W] or [1, H, W]. Values are taken as the dataset gives them: pass no transforms, and tell
    their unit by the modality. Dates are unknown.

    Args:
        dataset: Any map-style dataset with such items.
        modalities: What is under which key, all bands on one grid, such as
            {"image": EUROSAT_MS} or {"image_s1": s1, "image_s2": s2}.
        classes: Names of the classes.
        split: Name of the part that the dataset was opened for.
        ignore: Value in the masks that stands for no class, None if there is none.
        on_bad: See `LabelledDataset`.
        task: What is to be predicted for an item.

    Raises:
        DataError: The dataset has no items.
        ValueError: A modality has more than one grid, or stands under two keys.
    """

    def __init__(
        self,
        dataset: Any,
        modalities: Mapping[str, Modality],
        classes: Sequence[str],
        split: str = "",
        ignore: int | None = None,
        on_bad: OnBad = "stop",
        task: Task = "classes",
    ) -> None:
        self.dataset = dataset
        self.task = task
        self._keys = {check_modality(each).name: key for key, each in modalities.items()}
        if len(self._keys) < len(modalities):
            raise ValueError(
                f"the keys {', '.join(modalities)} must hold different modalities; two dates of "
                "one are [T, C, H, W] under one key"
            )
        self._ignore = ignore
        title = type(dataset).__name__
        entries = [
            Number(f"{title}_{number}", split, number)
            for number in range(len(cast(Sized, dataset)))
        ]
        super().__init__(list(modalities.values()), classes, entries, None, on_bad)

    def _read(self, entry: Number) -> Contents:
        try:
            item = self.dataset[entry.number]
        except Exception as error:  # whatever the dataset's own reader meets
            raise DataError(
                f"{entry.id} cannot be read ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(item, Mapping):
            raise DataError(f"{entry.id} is a {type(item).__name__}; expected a dictionary")
        contents = Contents({}, {}, self._label(entry, item), self._mask(entry, item))
        for modality in self.modalities:
            image = _array(item, self._keys[modality.name], entry.id)
            if image.ndim not in (3, 4) or image.shape[-3] != len(modality.bands):
                raise DataError(
                    f"{entry.id}: {self._keys[modality.name]!r} has shape {list(image.shape)}; "
                    f"expected [{len(modality.bands)}, H, W] or [T, {len(modality.bands)}, H, W]"
                )
            contents.bands[modality.name] = [image if image.ndim == 4 else image[None]]
        return contents

    def _label(self, entry: Number, item: Mapping[str, Any]) -> int | np.ndarray | None:
        if "label" not in item:
            return None
        label = _array(item, "label", entry.id)
        numbers = np.isfinite(label).all()
        if label.ndim > 1 or not numbers or not np.array_equal(label, label.astype(np.int64)):
            raise DataError(f"{entry.id} has no class number or flags as its label: {label}")
        return label.astype(np.int64) if label.ndim else int(label)

    def _mask(self, entry: Number, item: Mapping[str, Any]) -> np.ndarray | None:
        if "mask" not in item:
            return None
        mask = _array(item, "mask", entry.id)
        mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
        if mask.ndim != 2:
            raise DataError(f"{entry.id} has a mask {list(mask.shape)}; expected [H, W]")
        if not np.isfinite(mask).all() or not np.array_equal(mask, mask.astype(np.int64)):
            raise DataError(f"{entry.id} has a mask with values that are no class numbers")
        return np.where(mask == self._ignore, IGNORE, mask) if self._ignore is not None else mask


def _array(item: Mapping[str, Any], key: str, id: str) -> np.ndarray:
    if key not in item:
        raise DataError(f"{id} has no {key!r}; it has {', '.join(map(str, item))}")
    try:
        values = torch.as_tensor(item[key])
        values = values.float() if values.dtype == torch.bfloat16 else values
        return values.numpy(force=True)
    except (TypeError, RuntimeError, ValueError) as error:
        raise DataError(f"{id}: {key!r} is no array ({error})") from error
