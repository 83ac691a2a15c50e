"""Metrics equal scikit-learn's and torchmetrics', items counting once or as often as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast.tasks.evaluation import scores
from seamo_fast.tasks.evaluation.intervals import resample, wilson_interval

metrics = pytest.importorskip("sklearn.metrics")
torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
N, C = 60, 4


def weights() -> Tensor:
    """Once each, and a resample."""
    drawn = torch.randint(N, (N,), generator=torch.Generator().manual_seed(1))
    return torch.stack([torch.ones(N), torch.bincount(drawn, minlength=N).float()])


def repeated(values: np.ndarray, counts: Tensor) -> np.ndarray:
    return np.repeat(values, counts.int().numpy(), axis=0)


def flags() -> Tensor:
    """Scores with ties, and flags."""
    found = torch.randn(N, C).mul(3).round().div(3)
    return torch.stack([found, (found + torch.randn(N, C) > 0.5).float()])


@pytest.mark.parametrize("row", [0, 1])
def test_average_precision(row: int) -> None:
    outcome = flags()
    counts = weights()[row]
    score, flag = (repeated(each.numpy(), counts) for each in outcome)
    for ours, average in ((scores.macro_precision, "macro"), (scores.micro_precision, "micro")):
        found = ours(outcome, weights())[row].item()
        assert found == pytest.approx(metrics.average_precision_score(flag, score, average=average))
        theirs = torchmetrics.multilabel_average_precision(
            torch.from_numpy(score).sigmoid(), torch.from_numpy(flag).int(), C, average
        )
        assert found == pytest.approx(theirs.item(), abs=1e-6)


def test_a_class_without_items_does_not_count() -> None:
    outcome = flags()
    outcome[1, :, 2] = 0
    kept = [0, 1, 3]
    expected = metrics.average_precision_score(outcome[1][:, kept], outcome[0][:, kept])
    assert scores.macro_precision(outcome, weights())[0].item() == pytest.approx(expected)


def confusion_of(true: Tensor, predicted: Tensor) -> Tensor:
    pairs = [t * C + p for t, p in zip(true, predicted, strict=True)]
    return torch.stack([torch.bincount(each, minlength=C * C).view(C, C) for each in pairs])


@pytest.mark.parametrize("row", [0, 1])
def test_iou_and_f1(row: int) -> None:
    true = torch.randint(3, (N, 50))  # class 3 is predicted but never true
    predicted = torch.where(torch.rand(N, 50) < 0.6, true, torch.randint(C, (N, 50)))
    confusion = confusion_of(true, predicted)
    counts = weights()[row]
    y, p = (repeated(each.numpy(), counts).ravel() for each in (true, predicted))
    expected = {
        scores.mean_iou: metrics.jaccard_score(y, p, average="macro"),
        scores.pixel_accuracy: metrics.accuracy_score(y, p),
        scores.change_f1: metrics.f1_score(y == 1, p == 1),
        scores.change_precision: metrics.precision_score(y == 1, p == 1),
        scores.change_recall: metrics.recall_score(y == 1, p == 1),
    }
    for function, value in expected.items():
        assert function(confusion, weights())[row].item() == pytest.approx(value)
    theirs = torchmetrics.multiclass_jaccard_index(
        torch.from_numpy(p), torch.from_numpy(y), C, average="macro"
    )
    assert scores.mean_iou(confusion, weights())[row].item() == pytest.approx(theirs.item())


def test_nothing_changed_and_nothing_found_is_no_division_by_zero() -> None:
    confusion = torch.zeros(N, 2, 2, dtype=torch.int64)
    confusion[:, 0, 0] = 5
    for function in (scores.change_f1, scores.change_precision, scores.change_recall):
        assert function(confusion, weights()).tolist() == [0, 0]
    assert scores.mean_iou(confusion, weights()).tolist() == [1, 1]


def test_an_interval_is_that_of_the_proportion() -> None:
    right = torch.arange(500) % 5 > 0
    found = resample({"x": [right]}, scores.accuracy, 2000, 0)["x"].estimate()
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx(wilson_interval(400, 500), abs=0.005)


def test_rows_are_compared_item_by_item() -> None:
    right = torch.rand(300) < 0.7
    better = right.clone()
    better[(~right).nonzero()[:30, 0]] = True
    rows = resample({"a": [right], "b": [better], "c": [right]}, scores.accuracy, 1000, 0)
    assert rows["c"].less(rows["a"]) == (0, 0, 0)
    found = rows["b"].less(rows["a"])
    assert found.value == pytest.approx(0.1)
    # unpaired intervals are twice as wide
    assert 0.05 < found.low < 0.1 < found.high < 0.15
    assert found.high - found.low < 0.08


def test_draws_are_resampled_too() -> None:
    """All items agree: what varies is the draw."""
    draws = [torch.full((100,), n < 5) for n in range(10)]
    found = resample({"x": draws}, scores.accuracy, 2000, 0)["x"].estimate()
    assert found.value == 0.5
    assert found.low == pytest.approx(0.2, abs=0.05)
    assert found.high == pytest.approx(0.8, abs=0.05)


def test_the_seed_decides_the_interval() -> None:
    right = torch.rand(100) < 0.5
    first, same, other = (
        resample({"x": [right]}, scores.accuracy, 200, seed)["x"].values for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
