"""The contestants of the linear probe's benchmark reach the same accuracy, or are not timed."""

from __future__ import annotations

import pytest
import torch

from bench.tasks import probes

SMALL = probes.Size(items=400, width=24, classes=4)


@pytest.mark.parametrize("features", probes.FEATURES)
@pytest.mark.parametrize("name", probes.CONTESTANTS)
def test_contestants_predict_what_ours_does(name: str, features: str) -> None:
    if name == "scikit-learn":
        pytest.importorskip("sklearn")
    given = probes.problem(features, SMALL)
    predicted = probes.CONTESTANTS[name](given)
    assert (predicted == probes.ours(given)).double().mean() >= 0.98
    probes.accuracy(given, name, allowed=0.02)


def test_problems_are_of_the_size_that_is_asked_for() -> None:
    given = probes.problem("noisy", SMALL)
    assert given.train[0].shape == (400, 24)
    assert [len(part[1]) for part in (given.train, given.val, given.test)] == [400, 100, 100]
    assert given.train[1].unique().tolist() == [0, 1, 2, 3]


def test_a_contestant_of_another_accuracy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = probes.problem("nearly separable", SMALL)
    monkeypatch.setitem(probes.CONTESTANTS, "zeros", lambda given: torch.zeros(100))
    with pytest.raises(AssertionError, match=r"zeros: accuracy 0\.2500, ours 0\."):
        probes.accuracy(given, "zeros")
