"""What probes are trained and judged on: features with labels, an item or a patch each."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.randomness import generator
from seamo_fast.tasks.datasets.reading.base import IGNORE
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


def load_examples(source: Source, extractor: Extractor, part: str, config: ProbeConfig) -> Examples:
    """Returns the examples of the training or validation part from the cache.

    Where pixels have labels, an example is a patch with the label that most of its labelled pixels
    have, and at most `config.patches` of them are drawn from the whole part.

    Args:
        source: The dataset.
        extractor: Whose features.
        part: "train" or "val".
        config: Says which share of the labels is used.

    Raises:
        DataError: A label is outside of the classes, or less than two classes occur.
    """
    load = _load_patches if extractor.dense else _load_items
    found = load(source, named(extractor.key), part, extractor.patch, config)
    labels = found.labels
    kinds = len(labels.unique()) if labels.ndim == 1 else int((labels.sum(dim=0) > 0).sum())
    if part == "train" and kinds < 2:
        raise DataError(
            f"the training part of {source.opened.root} has labels of {kinds} class(es); a probe "
            "needs at least two"
        )
    return found


def _load_items(source: Source, kind: str, part: str, patch: int, config: ProbeConfig) -> Examples:
    features: list[Tensor] = []
    labels: list[Tensor] = []
    for chunk in range(len(source.chunks(part))):
        features += source.store.read(kind, part, chunk).values()
        labels += source.store.read(LABELS, part, chunk).values()
    check_labels(labels, source)
    found = Examples(torch.stack(features), torch.stack(labels).long())
    return found.take(share_of(found.labels, config.train_fraction, config.seed, part))


def _load_patches(
    source: Source, kind: str, part: str, patch: int, config: ProbeConfig
) -> Examples:
    classes = len(source.opened.dataset.classes)
    chunks = range(len(source.chunks(part)))
    labels = []
    for chunk in chunks:
        masks = list(source.store.read(LABELS, part, chunk).values())
        check_labels(masks, source)
        labels += [majority(mask, patch, classes).flatten() for mask in masks]
    images = torch.cat([torch.full_like(each, number) for number, each in enumerate(labels)])
    used = share_of(
        torch.zeros(len(labels), dtype=torch.int64), config.train_fraction, config.seed, part
    )
    flat = torch.cat(labels)
    usable = ((flat != IGNORE) & torch.isin(images, used)).nonzero()[:, 0]
    most = config.patches if part == "train" else config.patches // 2
    order = generator(config.seed, "patches", part).random(len(usable)).argsort(kind="stable")
    chosen = usable[torch.from_numpy(order[:most])].sort().values
    if not len(chosen):
        raise DataError(f"no patch of the {part} part of {source.opened.root} has a label")
    features, start = [], 0
    for chunk in chunks:
        for each in source.store.read(kind, part, chunk).values():
            rows = each.flatten(1).T  # [patches, D]
            inside = chosen[(chosen >= start) & (chosen < start + len(rows))] - start
            features.append(rows[inside].float())
            start += len(rows)
    return Examples(torch.cat(features), flat[chosen])


def check_labels(labels: list[Tensor], source: Source) -> None:
    """Raises DataError if a label is outside of the classes, or a flag neither 0 nor 1."""
    task, classes = source.opened.dataset.task, source.opened.dataset.classes
    most = 1 if task == "multilabel" else len(classes) - 1
    least = IGNORE if task in ("mask", "change") else 0
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
