"""Linear probes end where scikit-learn's do, of classes and of flags, logistic and ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast.tasks.probes import linear
from seamo_fast.tasks.probes.linear import fit_probe

linear_model = pytest.importorskip("sklearn.linear_model")
N, D, C = 200, 20, 4
PENALTY = 1e-3


@pytest.fixture(autouse=True)
def one_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seamo_fast.tasks.probes.linear.PENALTIES", (PENALTY,))


def data(flags: bool = False) -> tuple[Tensor, Tensor]:
    """Correlated features of very different scales, as those of a network are."""
    hidden = torch.randn(N, D)
    labels = (hidden[:, :C] + torch.randn(N, C)).argmax(dim=1)
    features = hidden @ torch.randn(D, D) * torch.logspace(-2, 2, D) + 3
    return features, (hidden[:, :C] + torch.randn(N, C) > 0).long() if flags else labels


def standardised(features: Tensor) -> np.ndarray:
    values = features.double()
    return ((values - values.mean(0)) / values.std(0)).numpy()


def centred(logits: Tensor) -> Tensor:
    """Softmax does not see what all classes have in common."""
    return logits - logits.mean(dim=1, keepdim=True)


def test_classes() -> None:
    train = data()
    found = fit_probe(train, train, C).scores(train[0]).double()
    model = linear_model.LogisticRegression(C=1 / (N * PENALTY), tol=1e-10, max_iter=10_000)
    theirs = model.fit(standardised(train[0]), train[1]).decision_function(standardised(train[0]))
    torch.testing.assert_close(
        centred(found), centred(torch.from_numpy(theirs)), rtol=1e-4, atol=1e-3
    )
    shares = found.softmax(1)
    torch.testing.assert_close(
        shares, torch.from_numpy(model.predict_proba(standardised(train[0]))), rtol=0, atol=1e-4
    )


def test_flags_are_a_problem_each() -> None:
    train = data(flags=True)
    found = fit_probe(train, train, C).scores(train[0])
    for number in range(C):
        model = linear_model.LogisticRegression(C=1 / (N * PENALTY), tol=1e-10, max_iter=10_000)
        model.fit(standardised(train[0]), train[1][:, number])
        theirs = model.predict_proba(standardised(train[0]))[:, 1]
        np.testing.assert_allclose(found[:, number].sigmoid().numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize("flags", [False, True])
def test_ridge(flags: bool) -> None:
    train = data(flags)
    found = fit_probe(train, train, C, "ridge").scores(train[0])
    targets = train[1] if flags else torch.nn.functional.one_hot(train[1], C)
    model = linear_model.Ridge(alpha=N * PENALTY / 2).fit(standardised(train[0]), targets)
    np.testing.assert_allclose(found, model.predict(standardised(train[0])), atol=1e-3)


@pytest.mark.parametrize("items", [2, 5])
def test_fewer_items_than_features(items: int) -> None:
    """Few-shot: the weights are those that the few items span."""
    train = (torch.randn(items, D), torch.arange(items) % 2)
    found = fit_probe(train, train, 2).scores(train[0]).double()
    model = linear_model.LogisticRegression(C=1 / (items * PENALTY), tol=1e-10, max_iter=10_000)
    model.fit(standardised(train[0]), train[1])
    theirs = model.decision_function(standardised(train[0]))
    assert (found.argmax(1).numpy() == (theirs > 0)).all()
    assert found.isfinite().all()
    assert found.argmax(1).tolist() == train[1].tolist()


def test_a_penalty_takes_few_passes_over_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of features that are nearly dependent: dozens, not hundreds."""
    passes: list[int] = []
    cross_entropy = linear._Problem.cross_entropy
    monkeypatch.setattr(
        linear._Problem,
        "cross_entropy",
        lambda self, weights: passes.append(1) or cross_entropy(self, weights),
    )
    mix = torch.randn(64, 96) * torch.logspace(0, -2, 64)[:, None]
    labels = torch.arange(4000) % 10
    features = (torch.randn(4000, 64) + 0.3 * torch.randn(10, 64)[labels]) @ mix
    features = features + 0.05 * torch.randn(4000, 96) + 3
    fit_probe((features[:3000], labels[:3000]), (features[3000:], labels[3000:]), 10)
    assert len(passes) < 100
