"""Accuracy with its uncertainty, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.tasks.evaluation.intervals import wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """How predictions of one part compare with its labels.

    Attributes:
        accuracy: Share of the images that are right.
        interval: Wilson's 95 % confidence interval of the accuracy.
        by_class: Share of each class's images that are right, None for a class without images.
        confusion: int64 [classes, classes], images by true class (row) and predicted (column).
    """

    accuracy: float
    interval: tuple[float, float]
    by_class: tuple[float | None, ...]
    confusion: Tensor


def evaluate(predicted: Tensor, labels: Tensor, classes: int) -> Evaluation:
    """Compares predicted with true classes, both int64 [n].

    Raises:
        DataError: There is nothing to compare: an accuracy of nothing is none.
    """
    if not len(labels):
        raise DataError("there are no test images, and so no accuracy")
    pairs = labels.cpu() * classes + predicted.cpu()
    confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    right, counts = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    return Evaluation(
        accuracy=sum(right) / sum(counts),
        interval=wilson_interval(sum(right), sum(counts)),
        by_class=tuple(r / n if n else None for r, n in zip(right, counts, strict=True)),
        confusion=confusion,
    )


def plot_confusion(confusion: Tensor, classes: Sequence[str], title: str, path: Path) -> None:
    """Writes the confusion matrix [classes, classes] as a PNG.

    Colours are shares of the true class, numbers are images.
    """
    from matplotlib.figure import Figure  # takes half a second, and only figures need it

    size = 2.5 + 0.55 * len(classes)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    share = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    shown = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(shown, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=150)
