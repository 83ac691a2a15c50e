"""Losses by name, as sums that add up over ranks and micro-batches.

Sizes: B items, K classes, N pixels, L terms of a loss. A target is int64 [B], or float [B, K] once
mixed (classes), float flags [B, K] (multilabel), or int64 [B, H, W] with `IGNORE` (mask, change).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import ConfigError, expect
from seamo_fast.tasks.datasets.reading.base import DENSE, IGNORE, Task

LOSSES: Final = ("cross_entropy", "focal", "dice", "lovasz")
_ENTROPIES: Final = ("cross_entropy", "focal")


class Term(Protocol):
    """One loss."""

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the sum over all that counts, [], of logits in float32 or float64."""
        ...

    def weight(self, target: Tensor) -> Tensor:
        """Returns how much counts, float32 []."""
        ...


@dataclass(frozen=True)
class Loss:
    """A sum of terms that count alike; the loss of a batch is `mean_loss(total, weight)`.

    Totals and weights of the parts of a batch add up to those of the whole.

    Attributes:
        terms: L losses.
    """

    terms: tuple[Term, ...]

    def __call__(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Returns total and weight, [L] each; if nothing counts, 0 with gradients of zeros.

        Args:
            logits: [B, K] or [B, K, H, W]; those in half precision are widened to float32.
            target: See the module.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        totals = torch.stack([term.total(logits, target) for term in self.terms])
        return totals, self.weight(target)

    def weight(self, target: Tensor) -> Tensor:
        """Returns the weight alone, [L], which needs no logits: a batch's before its first part."""
        return torch.stack([term.weight(target) for term in self.terms])


def mean_loss(total: Tensor, weight: Tensor) -> Tensor:
    """Returns the sum over terms of total / weight, []; 0 for a term of which nothing counts."""
    return (total / torch.where(weight > 0, weight, 1)).sum()


@dataclass(frozen=True)
class Entropy:
    """Cross-entropy, or the focal loss -(1 - p)^gamma log p (Lin et al., 2017, equation 4).

    p is the probability of the true class. A flag is a choice of two classes. The weight is the sum
    of the weights of the true classes, so that weights say what counts more, not how large a loss
    is. Label smoothing and weights together are those of `torch.nn.functional.cross_entropy`.

    Attributes:
        flags: Whether targets are flags.
        weights: [K] of classes, or [2, K] of absent and present flags, on the logits' device; None
            for 1 each.
        smoothing: Share of a target that is spread over all classes (Szegedy et al., 2016).
        gamma: How much less counts what is right already; 0 is cross-entropy.
    """

    flags: bool = False
    weights: Tensor | None = None
    smoothing: float = 0.0
    gamma: float = 0.0

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Term`."""
        if self.flags:
            gain = torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
            target = _two_classes(target)
        else:
            gain = logits.log_softmax(dim=1)
        if self.gamma:
            # the slope of x^gamma at 0 is infinite for a gamma below 1
            gain = gain * (-gain.expm1()).clamp(min=1e-12) ** self.gamma
        if self.weights is not None:
            gain = gain * self.weights[(..., *[None] * (gain.ndim - 1 - self.weights.ndim))]
        if target.is_floating_point():
            total, everywhere = -(gain * target).sum(), -gain.mean(dim=1).sum()
        else:
            # without a reduction it is deterministic on GPUs
            total = F.nll_loss(gain, target, ignore_index=IGNORE, reduction="none").sum()
            everywhere = -(gain.mean(dim=1) * (target != IGNORE)).sum()
        return (1 - self.smoothing) * total + self.smoothing * everywhere

    def weight(self, target: Tensor) -> Tensor:
        """See `Term`."""
        if target.is_floating_point():
            target = _two_classes(target) if self.flags else target
            return (target if self.weights is None else target * self.weights).sum()
        known = (target != IGNORE).float()
        return (known if self.weights is None else known * self.weights[target.clamp(min=0)]).sum()


def _two_classes(flags: Tensor) -> Tensor:
    """Returns [B, 2, K], the probabilities that flags are absent and present."""
    return torch.stack([1 - flags, flags], dim=1)


@dataclass(frozen=True)
class Regions:
    """A loss of the regions of a mask: the mean over classes that an image has, summed over images.

    Pixels without a label count nowhere, nor do images without any label.

    Attributes:
        each: Makes [B, K], the loss of each image and class, of probabilities [B, K, N], of bool
            [B, K, N], where a class is, and of bool [B, 1, N], where any is.
    """

    each: Callable[[Tensor, Tensor, Tensor], Tensor]

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Term`."""
        classes = torch.arange(logits.shape[1], device=target.device)
        flat = target.flatten(1)[:, None]
        truth = flat == classes[:, None]
        there = truth.any(dim=2)
        loss = self.each(logits.softmax(dim=1).flatten(2), truth, flat != IGNORE)
        return ((loss * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)).sum()

    def weight(self, target: Tensor) -> Tensor:
        """See `Term`."""
        return (target != IGNORE).flatten(1).any(dim=1).float().sum()


def dice(probabilities: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Returns 1 - 2 |P and Y| / (|P| + |Y|) with probabilities for P (Sudre et al., 2017), [B, K].

    Args:
        probabilities: [B, K, N].
        truth: bool [B, K, N].
        known: bool [B, 1, N].
    """
    common = (probabilities * truth).sum(dim=2)
    sizes = (probabilities * known).sum(dim=2) + truth.sum(dim=2)
    return 1 - 2 * common / sizes.clamp(min=1)  # below 1 only where the class is not


def lovasz(probabilities: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Returns the Lovász extension of the Jaccard loss at the errors (Berman et al., 2018), [B, K].

    Args: as `dice`.
    """
    errors = (probabilities - truth.to(probabilities)).abs() * known
    falling, order = errors.sort(dim=2, descending=True, stable=True)
    found = truth.gather(2, order).cumsum(dim=2)  # integers, so that GPUs sum them the same way
    size = truth.sum(dim=2, keepdim=True)
    wrong = torch.arange(1, errors.shape[2] + 1, device=errors.device)
    # equation 8: the loss if the first, the first two, ... pixels are wrong
    jaccard = 1 - (size - found) / (size + wrong - found).to(errors)
    steps = jaccard.diff(dim=2, prepend=jaccard.new_zeros(*jaccard.shape[:2], 1))
    return (falling * steps).sum(dim=2)


def loss_function(
    name: str,
    task: Task,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
) -> Loss:
    """Returns a loss by its name.

    Args:
        name: One of `LOSSES`, or a sum such as "cross_entropy+dice".
        task: Of flags, cross-entropy and focal loss are binary ones.
        weights: See `Entropy` and `balanced_weights`.
        smoothing: See `Entropy`.
        gamma: Of the focal loss.

    Raises:
        ConfigError: There is no such loss, or not for this task or with these settings.
    """
    names = name.split("+")
    known = f"one of {', '.join(LOSSES)}, or a sum such as cross_entropy+dice"
    expect(all(each in LOSSES for each in names), "loss", known, name)
    expect(len(set(names)) == len(names), "loss", "a sum of different losses", name)
    expect(0 <= smoothing < 1, "label_smoothing", "at least 0 and below 1", smoothing)
    expect(gamma >= 0, "focal_gamma", "at least 0", gamma)
    regions = [each for each in names if each not in _ENTROPIES]
    if regions and task not in DENSE:
        raise ConfigError(
            f"loss {regions[0]} compares regions of masks, but the labels are of whole images; "
            f"give --loss {' or '.join(_ENTROPIES)}"
        )
    if len(regions) == len(names) and (weights is not None or smoothing):
        raise ConfigError(
            f"loss {name} takes no class_weights and no label_smoothing; leave them out, or give "
            f"--loss cross_entropy+{regions[0]}"
        )
    entropy = partial(Entropy, task == "multilabel", weights, smoothing)
    makes: dict[str, Callable[[], Term]] = {
        "cross_entropy": entropy,
        "focal": partial(entropy, gamma),
        "dice": partial(Regions, dice),
        "lovasz": partial(Regions, lovasz),
    }
    return Loss(tuple(makes[each]() for each in names))


def balanced_weights(counts: Tensor) -> Tensor:
    """Returns weights with which all classes count alike: n / (classes that occur * count).

    They are scikit-learn's; their mean over all items is 1. A class that does not occur has 0.

    Args:
        counts: Items or pixels of each class [K], or how many items lack and have each flag [2, K].

    Returns:
        float32 of the same shape.
    """
    occurring = (counts > 0).sum(dim=0)
    weights = counts.sum(dim=0) / (occurring * counts).clamp(min=1)
    return torch.where(counts > 0, weights, 0).float()
