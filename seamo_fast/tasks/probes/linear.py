"""Linear probe: logistic or ridge regression on frozen features."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import DataError

PENALTIES: Final = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
Method = Literal["logistic", "ridge"]
_ROUNDS: Final = 20
_RANK: Final = 1e-10  # of the largest variance; directions with less are noise of the sums
_FLATTEST: Final = 1e-4  # where an item is all but certain, so that no direction is without scale


class _Effort(NamedTuple):
    """How far a minimum is sought.

    Attributes:
        tolerance: Largest slope, where curvatures are about 1.
        steps: Of L-BFGS before curvatures are measured anew.
        items: Most items that curvatures are measured on.
    """

    tolerance: float
    steps: int
    items: int


_ROUGH: Final = _Effort(1e-4, 20, 2**12)
_FINE: Final = _Effort(1e-6, 100, 2**14)


class Probe(NamedTuple):
    """A linear classifier on features as they are: logits = features @ weight.T + bias.

    Attributes:
        weight: float32 [classes, D].
        bias: float32 [classes].
        penalty: L2 penalty that validation chose.
        accuracy: Share of the validation labels, or flags, that are right.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    accuracy: float

    @property
    def chosen(self) -> dict[str, float]:
        """What validation chose."""
        return {"penalty": self.penalty}

    def scores(self, features: Tensor) -> Tensor:
        """Returns logits [n, classes] of features [n, D]."""
        return features @ self.weight.T + self.bias


class _Problem(NamedTuple):
    """Standardised features in the basis of their principal axes, an item a column.

    Axes are orthogonal, so the penalty is what it was; those that no item reaches are left out.

    Attributes:
        features: float64 [R + 1, n], the last row 1.
        targets: float64 [classes, n], 1 where an item has the class.
        exclusive: Whether an item has one class: softmax, else a sigmoid for each.
    """

    features: Tensor
    targets: Tensor
    exclusive: bool

    def single(self) -> _Problem:
        """Returns it in float32."""
        return self._replace(features=self.features.float(), targets=self.targets.float())

    def cross_entropy(self, linear: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean over items (of flags, of their sums over classes) and probabilities."""
        logits = linear @ self.features
        right = (logits * self.targets).sum(dim=0)
        if self.exclusive:
            total = logits.logsumexp(dim=0)
            return (total - right).mean(), (logits - total).exp()
        return (F.softplus(logits).sum(dim=0) - right).mean(), logits.sigmoid()

    def squares(self, linear: Tensor) -> Tensor:
        """Returns the mean over items of the squared distance of logits and targets."""
        return (linear @ self.features - self.targets).square().sum(dim=0).mean()


def fit_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: int,
    method: Method = "logistic",
) -> Probe:
    """Trains on features that are standardised by the training part, for each of `PENALTIES`.

    `logistic` minimises mean cross-entropy (of flags: the sum over classes of the binary ones)
    + penalty / 2 * |weight|^2 with L-BFGS, from the strongest penalty to the weakest, each starting
    where the last ended: roughly in float32, then the chosen one to the end in float64. `ridge`
    minimises the mean square of logits - targets with the same penalty, in closed form. The penalty
    with the least loss on the validation part is taken: it varies less than accuracy does.

    Args:
        train: Features [n, D] and labels int64 [n], or flags [n, classes].
        val: The same of the validation part.
        classes: Number of classes.
        method: See above.

    Raises:
        DataError: There are no training or no validation items.
    """
    sizes = [len(labels) for _, labels in (train, val)]
    if not all(sizes):
        raise DataError(f"{sizes[0]} training and {sizes[1]} validation images; both need some")
    mean, std = train[0].double().mean(dim=0), train[0].double().std(dim=0)
    std = torch.where(std > 0, std, 1)  # of one item it is NaN
    features, held_out = ((part[0].double() - mean) / std for part in (train, val))
    axes = _principal_axes(features)
    problem, judged = (
        _problem(part @ axes, labels, classes)
        for part, labels in ((features, train[1]), (held_out, val[1]))
    )
    penalty, linear = (_ridge if method == "ridge" else _logistic)(problem, judged)
    weight = linear[:, :-1] @ axes.T / std
    bias = linear[:, -1] - weight @ mean
    accuracy = _accuracy(linear @ judged.features, val[1], method)
    return Probe(weight.float(), bias.float(), penalty, accuracy)


def _principal_axes(features: Tensor) -> Tensor:
    """Returns the principal axes [D, R] that the features reach."""
    variances, axes = torch.linalg.eigh(features.T @ features / len(features))
    return axes[:, variances > _RANK * variances[-1:].clamp(min=1e-300)]


def _problem(features: Tensor, labels: Tensor, classes: int) -> _Problem:
    targets = F.one_hot(labels, classes) if labels.ndim == 1 else labels
    ones = features.new_ones(len(features), 1)
    columns = torch.cat([features, ones], dim=1).T.contiguous()
    return _Problem(columns, targets.T.double().contiguous(), labels.ndim == 1)


def _accuracy(logits: Tensor, labels: Tensor, method: Method) -> float:
    if labels.ndim == 1:
        return (logits.argmax(dim=0) == labels).double().mean().item()
    half = 0.5 if method == "ridge" else 0.0
    return ((half < logits.T) == labels.bool()).double().mean().item()


def _logistic(problem: _Problem, judged: _Problem) -> tuple[float, Tensor]:
    """Returns the penalty that is best for `judged`, and [classes, R + 1], weights and bias."""
    rough, held_out = problem.single(), judged.single()
    linear = rough.targets.new_zeros(len(rough.targets), len(rough.features))
    found = []
    for penalty in PENALTIES:
        linear = _minimise(linear, rough, penalty, _ROUGH)
        found.append((held_out.cross_entropy(linear)[0].item(), penalty, linear))
    _, penalty, linear = min(found, key=lambda each: each[0])
    return penalty, _minimise(linear.double(), problem, penalty, _FINE)


def _minimise(start: Tensor, problem: _Problem, penalty: float, effort: _Effort) -> Tensor:
    """Returns [classes, R + 1], weights and bias, where no slope is above the tolerance.

    L-BFGS in coordinates in which the curvature of each class's weights is 1: a tenth of the passes
    over the features that it takes without.
    """
    linear = start
    for _ in range(_ROUNDS):
        curvature = _curvature(linear, problem, penalty, effort.items)
        root = torch.linalg.cholesky(curvature).to(linear)
        linear, slope = _descend(linear, root, problem, penalty, effort)
        if slope <= effort.tolerance:
            break
    return linear


def _descend(
    start: Tensor, root: Tensor, problem: _Problem, penalty: float, effort: _Effort
) -> tuple[Tensor, float]:
    """Returns the weights after a few steps and the largest slope; root is [classes, R+1, R+1]."""
    scaled = (start[:, None] @ root)[:, 0].requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=effort.steps,
        tolerance_grad=effort.tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def unscaled() -> Tensor:
        return torch.linalg.solve_triangular(root.mT, scaled[..., None], upper=True)[..., 0]

    @torch.no_grad()
    def closure() -> float:
        linear = unscaled()
        weight = F.pad(linear[:, :-1], (0, 1))
        loss, probabilities = problem.cross_entropy(linear)
        slope = (probabilities - problem.targets) @ problem.features.T / problem.targets.shape[1]
        slope += penalty * weight
        scaled.grad = torch.linalg.solve_triangular(root, slope[..., None], upper=False)[..., 0]
        return (loss + penalty / 2 * weight.square().sum()).item()

    optimizer.step(closure)
    assert scaled.grad is not None
    return unscaled().detach(), scaled.grad.abs().max().item()


def _curvature(linear: Tensor, problem: _Problem, penalty: float, items: int) -> Tensor:
    """Returns each class's second derivatives [classes, R + 1, R + 1], from so many items."""
    every = -(-problem.features.shape[1] // items)
    values = problem.features[:, ::every].float()
    some = _Problem(values, problem.targets[:, ::every].float(), problem.exclusive)
    _, share = some.cross_entropy(linear.float())
    weights = (share * (1 - share)).clamp(min=_FLATTEST)  # [classes, m]
    found = torch.stack([(values * each) @ values.T for each in weights]).double()
    ridge = torch.full((len(values),), penalty, dtype=torch.float64)
    ridge[-1] = 0
    return found / values.shape[1] + torch.diag(ridge)


def _ridge(problem: _Problem, judged: _Problem) -> tuple[float, Tensor]:
    """Returns the penalty that is best for `judged`, and [classes, R + 1], weights and bias."""
    features, targets, _ = problem
    n = features.shape[1]
    squares, products = features @ features.T / n, features @ targets.T / n
    found = []
    for penalty in PENALTIES:
        ridge = squares.new_full((len(features),), penalty / 2)
        ridge[-1] = 0
        linear = torch.linalg.solve(squares + torch.diag(ridge), products).T.contiguous()
        found.append((judged.squares(linear).item(), penalty, linear))
    _, penalty, linear = min(found, key=lambda each: each[0])
    return penalty, linear
