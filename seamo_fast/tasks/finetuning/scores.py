"""Figures of a whole part by torchmetrics, and what each item adds, so that others can check them.

Averages over classes leave out those without a true item (accuracy, average precision), or that are
neither true nor predicted anywhere (IoU, F1). Pixels are pooled over the part, and figures of
change are those of the pixels that changed. Sizes: B items of a batch, n of a part, K classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.tasks.datasets.reading.base import DENSE, Task
from seamo_fast.tasks.evaluation.intervals import Estimate, resample, wilson_interval
from seamo_fast.tasks.evaluation.scores import (
    METRICS,
    Metric,
    change_iou,
    confusion_matrices,
    macro_precision,
    one_against_rest,
)
from seamo_fast.training.distributed import ranks

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_AT_ONCE: Final = 16  # masks whose pixels are in memory
CHOSEN: Final[dict[Task, str]] = {  # the figure that validation maximises
    "classes": "accuracy",
    "multilabel": "mAP_macro",
    "mask": "mIoU",
    "change": "F1",
}
_MEANS: Final[dict[Task, str]] = {  # what the mean over classes is called
    "classes": "accuracy_macro",
    "multilabel": "mAP_macro",
    "mask": "mIoU",
    "change": "mIoU",
}
OF_CLASS: Final[dict[Task, str]] = {  # what `Figures.by_class` holds
    "classes": "accuracy",
    "multilabel": "average precision",
    "mask": "IoU",
    "change": "IoU",
}


class Figures(NamedTuple):
    """What predictions of a part are worth.

    Attributes:
        values: Figures of the part by name; those of `evaluate` have the same names.
        by_class: Float [K], see `OF_CLASS`; NaN for a class that averages leave out.
        confusion: int64 [K, K], items or pixels by true (row) and predicted class; None for flags.
        predictions: Of the items by their number, "numbers" int64 [n]: "logits" float32 [n, K] and
            "target" int64 [n] or [n, K]; of masks "confusion" int64 [n, K, K].
    """

    values: dict[str, float]
    by_class: Tensor
    confusion: Tensor | None
    predictions: dict[str, Tensor]


class Scores:
    """Collects what a model makes of a part, in any order and on any rank.

    Args:
        task: What is predicted.
        classes: K.
        device: Where the figures are computed.

    Raises:
        ConfigError: torchmetrics is not installed.
    """

    def __init__(self, task: Task, classes: int, device: torch.device) -> None:
        self._task, self._classes, self._device = task, classes, device
        self._metrics = _metrics(task, classes).to(device)
        self._kept: list[dict[str, Tensor]] = []

    def update(self, logits: Tensor, target: Tensor, numbers: Tensor) -> None:
        """Adds items, or windows of items that do not overlap.

        Args:
            logits: [B, K], or [B, K, H, W].
            target: int64 [B], flags [B, K], or int64 [B, H, W] with `IGNORE`.
            numbers: int64 [B], those of the items.
        """
        if target.ndim > 2:
            kept = {"confusion": confusion_matrices(target, logits.argmax(dim=1), self._classes)}
        else:
            kept = {"logits": logits.detach().float(), "target": target.long()}
        kept["numbers"] = numbers
        self._kept.append({name: each.cpu() for name, each in kept.items()})

    def compute(self) -> Figures:
        """Returns the figures of the items of all ranks, which all have to ask.

        Raises:
            DataError: There is no label.
        """
        parts = [each for kept in ranks.every(self._kept) for each in kept]
        found = _by_number(parts) if parts else {}
        labels = found.get("target" if self._task == "multilabel" else "confusion")
        if not found or (labels is not None and not labels.any()):
            count = len(found.get("numbers", ()))
            raise DataError(f"{count} items without any label have no {CHOSEN[self._task]}")
        confusion, counts = self._counts(found)
        self._metrics.reset()
        for predicted, target in self._pairs(found):
            self._metrics.update(predicted.to(self._device), target.to(self._device))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No positive samples")  # by_class says so
            computed = {name: value.cpu() for name, value in self._metrics.compute().items()}
        by_class = computed.pop("by_class").masked_fill(counts == 0, torch.nan)
        if self._task == "multilabel":  # of flags, torchmetrics counts absent classes as 0
            computed["F1_macro"] = computed["F1_macro"][counts + found["logits"].gt(0).sum(0) > 0]
        values = {name: value.mean().item() for name, value in computed.items()}
        values[_MEANS[self._task]] = by_class.nanmean().item()
        values = {CHOSEN[self._task]: values.pop(CHOSEN[self._task]), **values}
        return Figures(values, by_class, confusion, found)

    def _counts(self, found: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor]:
        """Returns the confusion matrix, and what must not be 0 for a class to count, [K]."""
        if self._task == "multilabel":
            return None, found["target"].sum(dim=0)
        if self._task == "classes":
            predicted = found["logits"].argmax(dim=1)
            confusion = confusion_matrices(found["target"][None], predicted[None], self._classes)[0]
            return confusion, confusion.sum(dim=1)
        confusion = found["confusion"].sum(dim=0)
        return confusion, confusion.sum(dim=0) + confusion.sum(dim=1)

    def _pairs(self, found: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields predictions and labels as torchmetrics takes them."""
        if self._task == "multilabel":
            # probabilities are asked for; sigmoid would make all large logits equal
            yield (F.softsign(found["logits"].double()) + 1) / 2, found["target"]
        elif self._task == "classes":
            yield found["logits"].argmax(dim=1), found["target"]
        else:
            pairs = torch.arange(self._classes**2, device=self._device)
            for counts in found["confusion"].flatten(1).split(_AT_ONCE):
                pixels = pairs.repeat_interleave(counts.sum(dim=0).to(self._device))
                if len(pixels):
                    yield pixels % self._classes, pixels // self._classes


def _by_number(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns all parts in one, items by their number, the windows of an item added up."""
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    numbers, where = whole["numbers"].unique(return_inverse=True)
    if "confusion" in whole:
        sums = whole["confusion"].new_zeros(len(numbers), *whole["confusion"].shape[1:])
        return {"numbers": numbers, "confusion": sums.index_add(0, where, whole["confusion"])}
    if len(numbers) < len(where):
        raise ValueError("an item is judged twice")
    order = where.argsort()
    return {name: each[order] for name, each in whole.items()}


def intervals(
    task: Task, predictions: Mapping[str, Tensor], resamples: int, seed: int
) -> tuple[dict[str, Estimate], list[Estimate]]:
    """Returns figures with 95 % intervals: those that `evaluate` has, and that of each class.

    They are percentiles of bootstrap resamples of the items; of accuracies Wilson's, as few items
    are often all right. One item has no interval.

    Args:
        task: What is predicted.
        predictions: See `Figures`.
        resamples: How many.
        seed: Of the resamples.
    """
    several = len(predictions["numbers"]) > 1

    def estimate(outcome: Tensor, metric: Metric) -> Estimate:
        found = resample({"": [outcome]}, metric, resamples, seed)[""].estimate()
        return found if several else Estimate(found.value, math.nan, math.nan)

    if task in DENSE:
        outcome = predictions["confusion"]
        classes = [
            estimate(one_against_rest(outcome, number), change_iou)
            for number in range(outcome.shape[1])
        ]
    elif task == "multilabel":
        outcome = torch.stack([predictions["logits"], predictions["target"].float()])
        classes = [
            estimate(outcome[..., [number]], macro_precision) for number in range(outcome.shape[2])
        ]
    else:
        outcome = predictions["logits"].argmax(dim=1) == predictions["target"]
        classes = [
            _share(outcome[predictions["target"] == number])
            for number in range(predictions["logits"].shape[1])
        ]
    whole = {name: estimate(outcome, metric) for name, metric in METRICS[task].items()}
    if task == "classes":
        whole["accuracy"] = _share(outcome)
    return whole, classes


def _share(right: Tensor) -> Estimate:
    if not len(right):
        return Estimate(math.nan, math.nan, math.nan)
    found = int(right.sum())
    return Estimate(found / len(right), *wilson_interval(found, len(right)))


def _metrics(task: Task, classes: int) -> MetricCollection:
    """Returns the figures of a task; "by_class" is [classes]."""
    try:
        from torchmetrics import MetricCollection  # takes seconds
        from torchmetrics import classification as of
    except ImportError as error:
        raise ConfigError(
            "finetuning needs torchmetrics; install it with pip install 'seamo_fast[finetune]'"
        ) from error
    metrics: dict[str, Any]
    alone: dict[str, Any] = {"sync_on_compute": False}  # every rank has all items already
    if task == "multilabel":
        metrics = {
            "by_class": of.MultilabelAveragePrecision(classes, average="none", **alone),
            "mAP_micro": of.MultilabelAveragePrecision(classes, average="micro", **alone),
            "F1_macro": of.MultilabelF1Score(classes, average="none", **alone),
            "F1_micro": of.MultilabelF1Score(classes, average="micro", **alone),
        }
    elif task == "classes":
        metrics = {
            "by_class": of.MulticlassAccuracy(classes, average="none", **alone),
            "accuracy": of.MulticlassAccuracy(classes, average="micro", **alone),
            "F1_macro": of.MulticlassF1Score(classes, average="macro", **alone),
        }
    else:
        metrics = {
            "by_class": of.MulticlassJaccardIndex(classes, average="none", **alone),
            "pixel_accuracy": of.MulticlassAccuracy(classes, average="micro", **alone),
        }
        if task == "mask":
            metrics["F1_macro"] = of.MulticlassF1Score(classes, average="macro", **alone)
        else:
            metrics["F1"] = of.BinaryF1Score(**alone)
            metrics["precision"] = of.BinaryPrecision(**alone)
            metrics["recall"] = of.BinaryRecall(**alone)
            metrics["IoU"] = of.BinaryJaccardIndex(**alone)
    return MetricCollection(metrics)
