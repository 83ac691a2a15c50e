"""The one pass over the labels of the test part, after all probes of all rows are fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.cli import progress_bar
from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.base import DENSE, Task
from seamo_fast.tasks.evaluation.examples import check_labels
from seamo_fast.tasks.evaluation.fit import Predictor
from seamo_fast.tasks.features.extract import Source
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.tasks.features.store import LABELS, named

Columns = Mapping[str, Sequence[Predictor]]


class Row(NamedTuple):
    """What makes a row's features, and its fitted probes by column, one for each draw."""

    extractor: Extractor
    columns: Columns


class Judged(NamedTuple):
    """What became of the test part.

    Attributes:
        outcomes: For each column and row, for each draw, what the task's metrics take.
        predictions: For each column and row, for each draw: classes int64 [n] or scores
            [n, classes]; of masks the outcomes again.
        truth: Labels of all test items; empty for masks.
    """

    outcomes: dict[str, dict[str, list[Tensor]]]
    predictions: dict[str, dict[str, list[Tensor]]]
    truth: Tensor


def judge(source: Source, rows: Mapping[str, Row]) -> Judged:
    """Predicts every test item by every probe, and compares: labels are read once, here.

    Raises:
        DataError: A label is outside of the classes, or a mask has another size than its image.
    """
    task, classes = source.opened.dataset.task, len(source.opened.dataset.classes)
    parts: dict[tuple[str, str, int], list[Tensor]] = {}
    truth: list[Tensor] = []
    chunks = source.chunks("test")
    with progress_bar(sum(map(len, chunks))) as bar:
        bar.set_description("test")
        for chunk, numbers in enumerate(chunks):
            labels = list(source.store.read(LABELS, "test", chunk).values())
            check_labels(labels, source)
            bar.update(len(numbers))
            if not labels:  # all were skipped
                continue
            for name, row in rows.items():
                kind = named(row.extractor.key)
                features = list(source.store.read(kind, "test", chunk).values())
                for (column, draw), predictor in _predictors(row.columns):
                    found = _predict(predictor, features, labels, row.extractor, classes)
                    parts.setdefault((column, name, draw), []).append(found)
            truth += [] if task in DENSE else labels
    labels_of_all = torch.stack(truth).long() if truth else torch.empty(0)
    return _judged({key: torch.cat(each) for key, each in parts.items()}, labels_of_all, task)


def _predictors(columns: Columns) -> Iterator[tuple[tuple[str, int], Predictor]]:
    for column, draws in columns.items():
        for draw, predictor in enumerate(draws):
            yield (column, draw), predictor


def _predict(
    predictor: Predictor,
    features: Sequence[Tensor],
    labels: Sequence[Tensor],
    extractor: Extractor,
    classes: int,
) -> Tensor:
    """Returns for each item its class, its scores, or the confusion matrix of its pixels."""
    if extractor.dense:
        found = [
            _confusion(predictor, maps, mask, extractor.patch, classes)
            for maps, mask in zip(features, labels, strict=True)
        ]
        return torch.stack(found)
    scores = predictor.scores(torch.stack(list(features)))
    return scores if extractor.task == "multilabel" else scores.argmax(dim=1)


def _confusion(
    predictor: Predictor, features: Tensor, mask: Tensor, patch: int, classes: int
) -> Tensor:
    """Returns [classes, classes] pixels by true (row) and predicted class.

    The scores of patches are put at their centres and interpolated bilinearly.

    Args:
        predictor: Of patches.
        features: [D, h, w].
        mask: [H, W].
        patch: Side of a patch.
        classes: Number of classes.
    """
    rows, columns = features.shape[1:]
    if (rows, columns) != tuple(-(-side // patch) for side in mask.shape):
        raise DataError(
            f"a mask is {list(mask.shape)}, but its image has {rows} x {columns} patches of "
            f"{patch} pixels; images and masks must have one size"
        )
    scores = predictor.scores(features.flatten(1).T.float()).T.unflatten(1, (rows, columns))
    size = (rows * patch, columns * patch)
    pixels = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    predicted = pixels.argmax(dim=0)[: mask.shape[0], : mask.shape[1]]
    known = mask >= 0
    pairs = mask[known].long() * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def _judged(found: Mapping[tuple[str, str, int], Tensor], truth: Tensor, task: Task) -> Judged:
    judged = Judged({}, {}, truth)
    for (column, row, _), predicted in found.items():
        if task == "classes":
            outcome = predicted == truth
        elif task == "multilabel":
            outcome = torch.stack([predicted, truth.to(predicted)])
        else:
            outcome = predicted
        judged.outcomes.setdefault(column, {}).setdefault(row, []).append(outcome)
        judged.predictions.setdefault(column, {}).setdefault(row, []).append(predicted)
    return judged
