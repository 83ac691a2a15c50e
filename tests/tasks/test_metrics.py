"""Accuracy, its interval, and the confusion matrix."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.tasks.evaluation.intervals import wilson_interval
from seamo_fast.tasks.metrics import evaluate, plot_confusion


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # scipy.stats.binomtest(...).proportion_ci(method="wilson")
        (8, 10, 0.4901624715366418, 0.9433178485456248),
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371109, 1.0),
        (421, 500, 0.8074376489887337, 0.8713473021355645),
    ],
)
def test_wilson_interval_equals_published_numbers(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-12)


def test_the_interval_s_ends_lie_z_standard_errors_away() -> None:
    for end in wilson_interval(37, 90, confidence=0.99):
        z = abs(37 / 90 - end) / math.sqrt(end * (1 - end) / 90)
        assert z == pytest.approx(2.5758293035489004)


def test_evaluation_counts_by_class() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 3])
    predicted = torch.tensor([0, 1, 1, 1, 0, 2])
    found = evaluate(predicted, labels, 4)
    assert found.confusion.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert found.accuracy == 0.5
    assert found.by_class == (0.5, 2 / 3, None, 0.0)
    assert found.interval == wilson_interval(3, 6)


def test_the_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "confusion.png"
    plot_confusion(torch.tensor([[5, 0], [0, 0]]), ["Forest", "River"], "title", path)
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[0] > 300
    dark = (pixels[..., 2] - pixels[..., 0] > 0.3).mean()
    assert 0.05 < dark < 0.4  # one of four cells is full


def test_nothing_has_no_accuracy() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(DataError, match="no test images, and so no accuracy"):
        evaluate(nothing, nothing, 3)
