"""One pass over the training items before anything is trained."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from seamo_fast.checkpoint_files import record_digest
from seamo_fast.cli import progress_bar
from seamo_fast.errors import ConfigError, DataError, expect
from seamo_fast.files import brief, read_json, write_json
from seamo_fast.modalities import Modality
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import (
    DENSE,
    LabelledDataset,
    LabelledTile,
    OnBad,
)
from seamo_fast.tasks.features.inputs import by_shape, check_units, read_inputs, size_of
from seamo_fast.tasks.features.items import count_labels, target_of
from seamo_fast.tasks.features.reading import (
    add_tile,
    chunked,
    no_statistics,
    read_chunks,
    with_statistics,
)
from seamo_fast.tasks.finetuning.batches import covering

_LOG = logging.getLogger(__name__)
_LOOKED_AT: Final = 2  # chunks whose units are compared


@dataclass(frozen=True)
class Survey:
    """What the training items are.

    Attributes:
        modalities: The dataset's, with the statistics of the training items.
        sizes: H and W of each item that can be read, by number, ascending.
        seasons: T of every item.
        counts: Of each class how many items have it, or pixels of masks.
        skipped: Why items were left out.
    """

    modalities: tuple[Modality, ...]
    sizes: dict[int, tuple[int, int]]
    seasons: int
    counts: tuple[int, ...]
    skipped: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Writes it as JSON, with its SHA-256; `load` reads it back to the bit.

        Raises:
            DataError: The disk is full or not writable.
        """
        modalities = [each.to_dict() for each in self.modalities]
        sizes = [[number, *size] for number, size in self.sizes.items()]
        # as JSON has it, so that the digest is that of what is read
        said = json.loads(json.dumps({**asdict(self), "modalities": modalities, "sizes": sizes}))
        write_json(path, {**said, "sha256": record_digest(said)})

    @classmethod
    def load(cls, path: Path) -> Survey:
        """Reads what `save` wrote.

        Raises:
            DataError: It is damaged.
        """
        try:
            data = read_json(path)
            if not isinstance(data, dict) or data.pop("sha256", None) != record_digest(data):
                raise ValueError("its SHA-256 differs")
            return cls(
                tuple(Modality.from_dict(each) for each in data["modalities"]),
                {number: (height, width) for number, height, width in data["sizes"]},
                data["seasons"],
                tuple(data["counts"]),
                tuple(data["skipped"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({brief(error)}); restore it, or choose another --output"
            ) from error

    def window(
        self, opened: Opened, size: int | None, image_size: int, patch: int
    ) -> tuple[int, int]:
        """Returns H and W of training windows, multiples of p.

        Args:
            opened: The dataset that this is the survey of.
            size: The setting: side of a window. None for whole images where they have classes or
                flags; where pixels have labels for `image_size`, or the largest image if smaller.
            image_size: Of the backbone.
            patch: p.

        Raises:
            ConfigError: The size is no multiple of p, or whole images differ in their shape.
        """
        if size is not None:
            good = size >= patch and size % patch == 0
            expect(good, "size", f"a multiple of the model's patch size {patch}", size)
            return size, size
        dense = opened.dataset.task in DENSE
        first, *others = self.sizes
        for other in [] if dense else others:
            if self.sizes[other] != self.sizes[first]:
                names = (
                    f"{opened.dataset.entries[n].id} is {' x '.join(map(str, self.sizes[n]))}"
                    for n in (first, other)
                )
                raise ConfigError(
                    f"images differ in their size: {', '.join(names)}; give --size, the side of "
                    "the windows that are cut out of them"
                )
        height, width = (
            -(-max(sides) // patch) * patch for sides in zip(*self.sizes.values(), strict=True)
        )
        return (min(height, image_size), min(width, image_size)) if dense else (height, width)

    def images_at_once(self, window: tuple[int, int], batch_size: int) -> int:
        """Returns how many whole images have the pixels of so many windows, at least one."""
        most = max(covering(size, window) for size in self.sizes.values())
        return max(1, batch_size // most)


def take_survey(opened: Opened, on_bad: OnBad = "skip", strict: bool = False) -> Survey:
    """Reads every training item once.

    Args:
        opened: The dataset; its split says which items train.
        on_bad: What an item that cannot be read does.
        strict: End if images look like another unit, instead of warning.

    Raises:
        DataError: No item of a class can be read, less than two classes occur, an item has no
            label or a wrong one, items differ in their seasons, or a band is constant.
        UnitError: Images look like another unit, and `strict` is set.
    """
    dataset = opened.dataset
    statistics = no_statistics(opened)
    counts = torch.zeros(len(dataset.classes), dtype=torch.int64)
    sizes: dict[int, tuple[int, int]] = {}
    skipped: dict[int, str] = {}
    seasons = _Seasons()
    check = UnitCheck(strict)
    chunks = chunked(opened.split.train, dataset.task)
    with progress_bar(len(opened.split.train)) as bar:
        bar.set_description("survey")
        reading = read_chunks(dataset, chunks, on_bad)
        for number, (chunk, (tiles, reasons)) in enumerate(zip(chunks, reading, strict=True)):
            skipped.update(zip((n for n in chunk if n not in tiles), reasons, strict=True))
            for n, tile in tiles.items():
                seasons.add(tile)
                sizes[n] = size_of(tile)
                counts += count_labels(target_of(tile, dataset, sizes[n]), len(counts))
                add_tile(statistics, opened, tile)
            for group in by_shape(tiles) if number < _LOOKED_AT else ():
                inputs = read_inputs(list(group.values()), dataset.modalities)
                check_units(check, dataset.modalities, inputs.images, inputs.valid)
            bar.update(len(chunk))
    _check_classes(opened, counts, skipped)
    modalities = with_statistics(opened, statistics)
    return Survey(modalities, sizes, seasons.found, tuple(counts.tolist()), tuple(skipped.values()))


class _Seasons:
    """The number of seasons that all items have."""

    def __init__(self) -> None:
        self.found = 0
        self._first = ""

    def add(self, tile: LabelledTile) -> None:
        """Raises DataError if a modality has another number of seasons than the first one."""
        own = sorted({len(valid) for valid in tile.valid.values()})
        if not self.found:
            self.found, self._first = own[0], tile.id
        if own != [self.found]:
            raise DataError(
                f"{tile.id} has {' and '.join(map(str, own))} seasons; expected {self.found} of "
                f"every modality of every item, as {self._first} has"
            )


def _check_classes(opened: Opened, counts: Tensor, skipped: dict[int, str]) -> None:
    """Raises DataError if a class was lost, or there is nothing to distinguish."""
    dataset, where = opened.dataset, f"the training part of {opened.root}"
    if len(skipped) == len(opened.split.train):
        raise DataError(
            f"none of the {len(skipped)} items of {where} can be read: "
            f"{next(iter(skipped.values()))}"
        )
    there = (counts > 0).tolist()
    for number, reason in skipped.items() if dataset.task == "classes" else ():
        label = _label_if_readable(dataset, number)
        if label is not None and not there[label]:
            raise DataError(
                f"{where}: no image of {dataset.classes[label]} can be read ({reason}); restore "
                "the images, or remove the class"
            )
    names = [name for name, found in zip(dataset.classes, there, strict=True) if found]
    if len(names) < 2:
        raise DataError(
            f"{where} has labels of {len(names)} class(es) ({', '.join(names) or 'none'}); at "
            "least two are needed"
        )
    lacking = [name for name in dataset.classes if name not in names]
    if lacking:
        _LOG.warning(f"{where} has no labels of {', '.join(lacking)}, which cannot be learned")


def _label_if_readable(dataset: LabelledDataset[Any], number: int) -> int | None:
    try:
        return cast(int, dataset.label_of(number))
    except DataError:
        return None
