"""Linear probe: multinomial logistic regression on frozen features."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import DataError

PENALTIES: Final = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_ITERATIONS: Final = 300


class Probe(NamedTuple):
    """A linear classifier on features as they are: logits = features @ weight.T + bias.

    Attributes:
        weight: float32 [classes, D].
        bias: float32 [classes].
        penalty: L2 penalty that validation chose.
        accuracy: On the validation features.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    accuracy: float


def fit_probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], classes: int) -> Probe:
    """Trains on features that are standardised by the training part, for each of `PENALTIES`.

    Minimises mean cross-entropy + penalty / 2 * |weight|^2 in float64 with L-BFGS, from the
    strongest penalty to the weakest, each starting where the last ended. The penalty with the least
    cross-entropy on the validation part is taken: it varies less than accuracy does.

    Args:
        train: Features [n, D] and labels int64 [n].
        val: The same of the validation part.
        classes: Number of classes.

    Raises:
        DataError: There are no training or no validation images.
    """
    sizes = [len(labels) for _, labels in (train, val)]
    if not all(sizes):
        raise DataError(f"{sizes[0]} training and {sizes[1]} validation images; both need some")
    mean, std = train[0].double().mean(dim=0), train[0].double().std(dim=0)
    std = torch.where(std > 0, std, 1)
    features, held_out = ((part[0].double() - mean) / std for part in (train, val))
    linear = torch.zeros(classes, features.shape[1] + 1, dtype=torch.float64)
    least, best = float("inf"), None
    for penalty in PENALTIES:
        linear = _minimise(linear, features, train[1], penalty)
        logits = _logits(linear, held_out)
        loss = F.cross_entropy(logits, val[1]).item()
        if best is None or loss < least:
            weight = linear[:, :-1] / std
            bias = linear[:, -1] - weight @ mean
            accuracy = (logits.argmax(dim=1) == val[1]).double().mean().item()
            least, best = loss, Probe(weight.float(), bias.float(), penalty, accuracy)
    assert best is not None
    return best


def _minimise(start: Tensor, features: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Returns [classes, D + 1], weights and bias."""
    linear = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [linear], max_iter=_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        logits = _logits(linear, features)
        squares = linear[:, :-1].square().sum()
        loss = F.cross_entropy(logits, labels) + penalty / 2 * squares
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    return linear.detach()


def _logits(linear: Tensor, features: Tensor) -> Tensor:
    return features @ linear[:, :-1].T + linear[:, -1]
