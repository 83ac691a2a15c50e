"""Linear probes to the same end: ours, scikit-learn's, and L-BFGS of PyTorch as people write it.

Each standardises the features, fits logistic regression for each of our penalties, each from where
the last ended, and takes the one with the least loss on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.kernels.common import OURS
from seamo_fast.tasks.probes.linear import PENALTIES, fit_probe

SLOPE = 1e-4  # at which a rival stops, the default of scikit-learn; ours stops at 1e-6
_STEPS = 10_000
# how far classes are apart, beside the spread within them
FEATURES = {"noisy": 0.15, "nearly separable": 0.5}


class Size(NamedTuple):
    """Of a problem."""

    items: int = 16_000  # that train; a quarter of them validate, as many are predicted
    width: int = 384
    classes: int = 10


class Problem(NamedTuple):
    """Features [n, D] with labels [n], and features to predict."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int


Contestant = Callable[[Problem], Tensor]  # predicted classes of the test features


def problem(features: str, size: Size = Size()) -> Problem:  # noqa: B008 (immutable)
    """Features that are correlated and of different scales, as those of a network are."""
    items, width, classes = size
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden = width // 3
    mix = normal(hidden, width) * torch.logspace(0, -2, hidden)[:, None]
    labels = torch.arange(items + 2 * (items // 4)) % classes
    values = normal(len(labels), hidden) + FEATURES[features] * normal(classes, hidden)[labels]
    values = values @ mix + 0.05 * normal(len(labels), width) + 3
    ends = (items, items + items // 4)
    parts = zip(values.tensor_split(ends), labels.tensor_split(ends), strict=True)
    return Problem(*parts, classes)


def ours(given: Problem) -> Tensor:
    """`seamo_fast.tasks.probes.linear`."""
    return fit_probe(given.train, given.val, given.classes).scores(given.test[0]).argmax(dim=1)


def scikit_learn(given: Problem) -> Tensor:
    """`LogisticRegression` with `warm_start`, in float64."""
    from sklearn.linear_model import LogisticRegression

    train, val, test = _standardised(given)
    least, predicted = float("inf"), torch.empty(0)
    model = LogisticRegression(warm_start=True, tol=SLOPE, max_iter=_STEPS)
    for penalty in PENALTIES:
        model.set_params(C=1 / (len(train) * penalty)).fit(train.numpy(), given.train[1].numpy())
        logits = torch.from_numpy(model.decision_function(val.numpy()))
        loss = F.cross_entropy(logits, given.val[1]).item()
        if loss < least:
            least, predicted = loss, torch.from_numpy(model.predict(test.numpy()))
    return predicted


def torch_lbfgs(given: Problem) -> Tensor:
    """`torch.optim.LBFGS` on `nn.Linear`, in float32."""
    train, val, test = (part.float() for part in _standardised(given))
    least, predicted = float("inf"), torch.empty(0)
    linear = nn.Linear(train.shape[1], given.classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            linear.parameters(),
            max_iter=_STEPS,
            tolerance_grad=SLOPE,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(linear(train), given.train[1])
            loss = loss + penalty / 2 * linear.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            loss = F.cross_entropy(linear(val), given.val[1]).item()
            if loss < least:
                least, predicted = loss, linear(test).argmax(dim=1)
    return predicted


def _standardised(given: Problem) -> list[Tensor]:
    features = given.train[0].double()
    mean, std = features.mean(dim=0), features.std(dim=0)
    return [(part[0].double() - mean) / std for part in (given.train, given.val, given.test)]


CONTESTANTS: dict[str, Contestant] = {
    OURS: ours,
    "scikit-learn": scikit_learn,
    "torch L-BFGS": torch_lbfgs,
}


def accuracy(given: Problem, name: str, allowed: float = 0.003) -> float:
    """Returns a contestant's accuracy on the test part.

    Raises AssertionError unless it is that of ours, to so much.
    """
    found, expected = (
        (CONTESTANTS[each](given) == given.test[1]).double().mean().item() for each in (name, OURS)
    )
    assert abs(found - expected) <= allowed, f"{name}: accuracy {found:.4f}, ours {expected:.4f}"
    return found
