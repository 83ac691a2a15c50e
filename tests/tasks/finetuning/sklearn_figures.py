"""The figures of a finetuning by scikit-learn, from predictions as they are stored."""

from __future__ import annotations

import numpy as np
import pytest

from seamo_fast.tasks.datasets.reading.base import Task

metrics = pytest.importorskip("sklearn.metrics")


def pixels(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes of all pixels that a confusion matrix counts, true and predicted."""
    rows, columns = np.indices(confusion.shape)
    counts = confusion.ravel()
    return np.repeat(rows.ravel(), counts), np.repeat(columns.ravel(), counts)


def by_sklearn(task: Task, kept: dict[str, np.ndarray]) -> dict[str, float]:
    if task == "multilabel":
        scores, flags = kept["logits"], kept["target"]
        occurring = flags.any(axis=0)
        guess = scores > 0
        counted = (flags + guess).any(axis=0)
        return {
            "mAP_macro": metrics.average_precision_score(flags[:, occurring], scores[:, occurring]),
            "mAP_micro": metrics.average_precision_score(flags, scores, average="micro"),
            "F1_macro": metrics.f1_score(flags[:, counted], guess[:, counted], average="macro"),
            "F1_micro": metrics.f1_score(flags, guess, average="micro"),
        }
    if task == "classes":
        y, p = kept["target"], kept["logits"].argmax(axis=1)
        return {
            "accuracy": metrics.accuracy_score(y, p),
            "accuracy_macro": metrics.recall_score(y, p, average="macro", labels=np.unique(y)),
            "F1_macro": metrics.f1_score(y, p, average="macro"),
        }
    y, p = pixels(kept["confusion"].sum(axis=0))
    found = {
        "mIoU": metrics.jaccard_score(y, p, average="macro"),
        "pixel_accuracy": metrics.accuracy_score(y, p),
    }
    if task == "mask":
        return found | {"F1_macro": metrics.f1_score(y, p, average="macro")}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(y, p, average="binary")
    iou = metrics.jaccard_score(y, p)
    return found | {"F1": f1, "precision": precision, "recall": recall, "IoU": iou}


def confusion(task: Task, kept: dict[str, np.ndarray]) -> np.ndarray | None:
    """Items or pixels by true and predicted class, int64 [K, K]; None for flags."""
    if task == "multilabel":
        return None
    if task == "classes":
        y, p, classes = kept["target"], kept["logits"].argmax(axis=1), kept["logits"].shape[1]
    else:
        y, p = pixels(kept["confusion"].sum(axis=0))
        classes = kept["confusion"].shape[1]
    found: np.ndarray = metrics.confusion_matrix(y, p, labels=range(classes))
    return found


def by_class(task: Task, kept: dict[str, np.ndarray]) -> list[float | None]:
    """The figure of each class; None where there is none."""
    if task == "multilabel":
        pairs = zip(kept["target"].T, kept["logits"].T, strict=True)
        return [metrics.average_precision_score(y, p) if y.any() else None for y, p in pairs]
    counts = confusion(task, kept)
    assert counts is not None
    y, p = pixels(counts)
    score = metrics.recall_score if task == "classes" else metrics.jaccard_score
    values = score(y, p, average=None, labels=range(len(counts)), zero_division=0)
    known = counts.sum(axis=1) + (0 if task == "classes" else counts.sum(axis=0))
    return [float(value) if there else None for value, there in zip(values, known, strict=True)]
