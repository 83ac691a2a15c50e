"""What probes are trained and judged on: features with labels, an item or a patch each."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.randomness import generator
from seamo_fast.tasks.datasets.reading.base import DENSE, IGNORE
from seamo_fast.tasks.evaluation.config import ProbeConfig
from seamo_fast.tasks.features.extract import Source
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.tasks.features.store import LABELS, named
from seamo_fast.tasks.probes.subsets import share_of


class Examples(NamedTuple):
    """Labelled features: [n, D] float32, and int64 [n] or flags [n, classes]."""

    features: Tensor
    labels: Tensor

    def take(self, numbers: Tensor) -> Examples:
        """Returns some of them."""
        return Examples(self.features[numbers], self.labels[numbers])


class ExampleLoader:
    """Gives the examples of the training and validation part from the cache.

    Where pixels have labels, an example is a patch with the label that most of its labelled pixels
    have, and at most `config.patches` of them are drawn from the whole part. Labels are read once
    for all extractors whose patches have one size.

    Attributes:
        source: The dataset, whose features have been extracted.
        config: Says which share of the labels is used.
    """

    def __init__(self, source: Source, config: ProbeConfig) -> None:
        self.source = source
        self.config = config
        self._labels: dict[tuple[str, int | None], tuple[Tensor, Tensor]] = {}

    def load(self, extractor: Extractor, part: str) -> Examples:
        """Returns the examples of a part.

        Args:
            extractor: Whose features.
            part: "train" or "val".

        Raises:
            DataError: A label is outside of the classes, or less than two classes occur.
        """
        key = (part, extractor.patch if extractor.dense else None)
        if key not in self._labels:
            self._labels[key] = self._read_labels(*key)
        labels, used = self._labels[key]
        features, start = [], 0
        for chunk in range(len(self.source.chunks(part))):
            for each in self.source.store.read(named(extractor.key), part, chunk).values():
                rows = each.reshape(len(each), -1).T  # one of an item, [patches, D] of a map
                features.append(rows[used[start : start + len(rows)]].float())
                start += len(rows)
        return Examples(torch.cat(features), labels[used])

    def _read_labels(self, part: str, patch: int | None) -> tuple[Tensor, Tensor]:
        """Returns the labels of all items or patches, and bool [n], which of them are used."""
        source = self.source
        found: list[Tensor] = []
        for chunk in range(len(source.chunks(part))):
            found += source.store.read(LABELS, part, chunk).values()
        check_labels(found, source)
        if patch is None:
            labels = torch.stack(found).long()
            chosen = self._share(labels, part)
        else:
            classes = len(source.opened.dataset.classes)
            patches = [majority(mask, patch, classes).flatten() for mask in found]
            labels = torch.cat(patches)
            chosen = self._draw(patches, part)
        kinds = _kinds(labels[chosen])
        if part == "train" and kinds < 2:
            raise DataError(
                f"the training part of {source.opened.root} has labels of {kinds} class(es); a "
                "probe needs at least two"
            )
        used = torch.zeros(len(labels), dtype=torch.bool)
        used[chosen] = True
        return labels, used

    def _share(self, labels: Tensor, part: str) -> Tensor:
        return share_of(labels, self.config.train_fraction, self.config.seed, part)

    def _draw(self, labels: list[Tensor], part: str) -> Tensor:
        """Returns the numbers of some patches that have a label, of each image's patches."""
        images = torch.cat([torch.full_like(each, number) for number, each in enumerate(labels)])
        shared = self._share(torch.zeros(len(labels), dtype=torch.int64), part)
        usable = ((torch.cat(labels) != IGNORE) & torch.isin(images, shared)).nonzero()[:, 0]
        most = self.config.patches if part == "train" else self.config.patches // 2
        order = generator(self.config.seed, "patches", part).random(len(usable))
        chosen = usable[torch.from_numpy(order.argsort(kind="stable")[:most])]
        if not len(chosen):
            raise DataError(f"no patch of the {part} part of {self.source.opened.root} has a label")
        return chosen


def _kinds(labels: Tensor) -> int:
    """Returns how many classes occur."""
    return len(labels.unique()) if labels.ndim == 1 else int((labels.sum(dim=0) > 0).sum())


def check_labels(labels: list[Tensor], source: Source) -> None:
    """Raises DataError if a label is outside of the classes, or a flag neither 0 nor 1."""
    task, classes = source.opened.dataset.task, source.opened.dataset.classes
    most = 1 if task == "multilabel" else len(classes) - 1
    least = IGNORE if task in DENSE else 0
    for label in labels:
        if label.min() < least or label.max() > most:
            wrong = label[(label < least) | (label > most)].unique().tolist()
            raise DataError(
                f"{source.opened.root} has the labels {wrong[:5]}; expected 0 to {most}"
                + (f" and {IGNORE} for none" if least else "")
            )
        if task == "multilabel" and len(label) != len(classes):
            raise DataError(
                f"{source.opened.root} has {len(label)} flags an item; its {len(classes)} classes "
                "need one each"
            )


def majority(mask: Tensor, patch: int, classes: int) -> Tensor:
    """Returns the most frequent class of each patch, `IGNORE` where no pixel has one.

    Args:
        mask: Integers [H, W].
        patch: Side of a patch in pixels; those at the lower and right edge may be cut.
        classes: Number of classes; of equally frequent ones the first is taken.

    Returns:
        int64 [ceil(H / patch), ceil(W / patch)].
    """
    height, width = mask.shape
    padded = F.pad(mask.long(), (0, -width % patch, 0, -height % patch), value=IGNORE)
    flags = F.one_hot(padded + 1, classes + 1)[..., 1:]
    counts = flags.unflatten(1, (-1, patch)).unflatten(0, (-1, patch)).sum(dim=(1, 3))
    most, found = counts.max(dim=-1)
    return torch.where(most > 0, found, IGNORE)
