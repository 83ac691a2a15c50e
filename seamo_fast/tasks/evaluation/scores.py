"""Metrics over items that count more or less than once, so that a bootstrap needs one pass.

Items counting once, they equal those of torchmetrics and scikit-learn. Sizes: n items, R sets of
weights, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from seamo_fast.tasks.datasets.reading.base import IGNORE, Task

Metric = Callable[[Tensor, Tensor], Tensor]
_CHANGED: Final = 1


def accuracy(right: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], the share of items that are right.

    Args:
        right: bool [n].
        weights: [R, n], how often each item counts.
    """
    return weights @ right.to(weights) / weights.sum(dim=1)


def macro_precision(outcome: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], average precision of each class, averaged over those that occur.

    Args:
        outcome: [2, n, C], scores and flags.
        weights: [R, n].
    """
    scores, flags = outcome
    each = [
        average_precision(score, flag, weights)
        for score, flag in zip(scores.T, flags.T, strict=True)
    ]
    return torch.stack(each).nanmean(dim=0)


def micro_precision(outcome: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], average precision of all pairs of an item and a class; see above."""
    scores, flags = outcome
    pairs = weights.repeat_interleave(scores.shape[1], dim=1)
    return average_precision(scores.flatten(), flags.flatten(), pairs)


def average_precision(scores: Tensor, flags: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], the sum of precision over steps of recall; NaN without any flag.

    Args:
        scores: [n]; equal ones are one step.
        flags: [n], 0 or 1.
        weights: [R, n].
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = scores[order]
    last = torch.ones(len(ranked), dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    counts = weights[:, order]
    total = counts.cumsum(dim=1)[:, last]
    positive = (counts * flags[order].to(counts)).cumsum(dim=1)[:, last]
    steps = positive.diff(dim=1, prepend=positive.new_zeros(len(positive), 1))
    precision = positive / total.clamp(min=1)
    found = (steps * precision).sum(dim=1) / positive[:, -1]
    return torch.where(positive[:, -1] > 0, found, torch.nan)


def confusion_matrices(true: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Returns int64 [n, C, C], the pixels of each item by true (row) and predicted class.

    Args:
        true: Integers [n, ...]; what has no label, `IGNORE`, does not count.
        predicted: int64 [n, ...].
        classes: C.
    """
    items = torch.arange(len(true), device=true.device).view(-1, *[1] * (true.ndim - 1))
    pairs = (items * classes + true) * classes + predicted
    counts = torch.bincount(pairs[true != IGNORE], minlength=len(true) * classes**2)
    return counts.view(-1, classes, classes)


def one_against_rest(confusion: Tensor, number: int) -> Tensor:
    """Returns [n, 2, 2] of [n, C, C], in which one class is 1 and all others are 0."""
    right, true = confusion[:, number, number], confusion[:, number].sum(dim=1)
    predicted = confusion[:, :, number].sum(dim=1)
    neither = confusion.sum(dim=(1, 2)) - true - predicted + right
    found = torch.stack([neither, predicted - right, true - right, right], dim=1)
    return found.unflatten(1, (2, 2))


def _pooled(confusion: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns right, true and predicted pixels of each class, [R, C] each.

    Args:
        confusion: [n, C, C], pixels of each item by true (row) and predicted class.
        weights: [R, n].
    """
    found = (weights.double() @ confusion.double().flatten(1)).unflatten(1, confusion.shape[1:])
    return found.diagonal(dim1=1, dim2=2), found.sum(dim=2), found.sum(dim=1)


def mean_iou(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], intersection over union pooled over items, averaged over classes that occur."""
    right, true, predicted = _pooled(confusion, weights)
    union = true + predicted - right
    return torch.where(union > 0, right / union.clamp(min=1), torch.nan).nanmean(dim=1)


def pixel_accuracy(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], the share of pixels that are right."""
    right, true, _ = _pooled(confusion, weights)
    return right.sum(dim=1) / true.sum(dim=1).clamp(min=1)


def change_f1(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], F1 of the pixels that changed, pooled over items; 0 where none is right."""
    right, true, predicted = (each[:, _CHANGED] for each in _pooled(confusion, weights))
    return 2 * right / (true + predicted).clamp(min=1)


def change_iou(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], intersection over union of the pixels that changed; NaN where there are none."""
    right, true, predicted = (each[:, _CHANGED] for each in _pooled(confusion, weights))
    return right / (true + predicted - right)


def change_precision(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], the share of the pixels called changed that did change."""
    right, _, predicted = (each[:, _CHANGED] for each in _pooled(confusion, weights))
    return right / predicted.clamp(min=1)


def change_recall(confusion: Tensor, weights: Tensor) -> Tensor:
    """Returns [R], the share of the changed pixels that are found."""
    right, true, _ = (each[:, _CHANGED] for each in _pooled(confusion, weights))
    return right / true.clamp(min=1)


# The first of each is that of the table.
METRICS: Final[dict[Task, dict[str, Metric]]] = {
    "classes": {"accuracy": accuracy},
    "multilabel": {"mAP_micro": micro_precision, "mAP_macro": macro_precision},
    "mask": {"mIoU": mean_iou, "pixel_accuracy": pixel_accuracy},
    "change": {
        "F1": change_f1,
        "precision": change_precision,
        "recall": change_recall,
        "IoU": change_iou,
        "mIoU": mean_iou,
        "pixel_accuracy": pixel_accuracy,
    },
}


def score_of(scores: Tensor, labels: Tensor) -> float:
    """Returns accuracy, or micro average precision of flags: what validation chooses k by.

    Args:
        scores: [n, C].
        labels: int64 [n], or flags [n, C].
    """
    once = torch.ones(1, len(labels))
    if labels.ndim == 1:
        return accuracy(scores.argmax(dim=1) == labels, once).item()
    return micro_precision(torch.stack([scores, labels.to(scores)]), once).item()
