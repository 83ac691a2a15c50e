"""Bootstrap over test items and few-shot draws, the same resamples for every row.

So the difference of two rows is compared item by item (paired).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seamo_fast.randomness import generator
from seamo_fast.tasks.evaluation.scores import Metric

_AT_ONCE: Final = 50
_VALUES: Final = 2**25  # of all resamples at once
_TAILS: Final = (0.025, 0.975)


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Resampled(NamedTuple):
    """A metric of one row and column.

    Attributes:
        value: Mean over draws, all items counting once.
        values: [R], the same of each resample.
    """

    value: float
    values: Tensor

    def estimate(self) -> Estimate:
        """Returns the metric with its percentile interval."""
        return _estimate(self.value, self.values)

    def less(self, other: Resampled) -> Estimate:
        """Returns by how much this is above another row's."""
        return _estimate(self.value - other.value, self.values - other.values)


def resample(
    outcomes: Mapping[str, Sequence[Tensor]], metric: Metric, resamples: int, seed: int
) -> dict[str, Resampled]:
    """Computes a metric on resamples of the test items.

    Where there are several draws of training items, the draws are resampled too.

    Args:
        outcomes: For each row what the metric takes, one for each draw: [n], [n, C, C], or
            [2, n, C] of scores and flags.
        metric: Of an outcome and weights.
        resamples: R.
        seed: Of the resamples.
    """
    first = next(iter(outcomes.values()))[0]
    items = first.shape[1] if first.is_floating_point() else first.shape[0]
    at_once = max(1, min(_AT_ONCE, _VALUES // first.numel()))
    once = torch.ones(1, items)
    values = {
        name: [metric(each, once).item() for each in draws] for name, draws in outcomes.items()
    }
    found: dict[str, list[Tensor]] = {name: [] for name in outcomes}
    for start, weights in _weights(items, resamples, seed, at_once):
        for name, draws in outcomes.items():
            each = torch.stack([metric(outcome, weights) for outcome in draws]).double()  # [D, R]
            rng = generator(seed, "draws", start)  # the same for every row
            chosen = rng.multinomial(len(draws), [1 / len(draws)] * len(draws), each.shape[1])
            found[name].append((each.T * torch.from_numpy(chosen)).sum(dim=1) / len(draws))
    return {
        name: Resampled(sum(values[name]) / len(values[name]), torch.cat(found[name]))
        for name in outcomes
    }


def _weights(items: int, resamples: int, seed: int, at_once: int) -> Iterator[tuple[int, Tensor]]:
    """Yields the number of each block's first resample, and how often items count, [r, n]."""
    for start in range(0, resamples, at_once):
        rng = generator(seed, "bootstrap", start)
        rows = min(at_once, resamples - start)
        drawn = rng.integers(items, size=(rows, items)) + items * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)
        yield start, torch.from_numpy(counts).float()


def _estimate(value: float, values: Tensor) -> Estimate:
    low, high = values.nanquantile(values.new_tensor(_TAILS)).tolist()
    return Estimate(value, low, high)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the score interval of a proportion (Wilson, 1927), which stays within [0, 1]."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    spread = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    return max(0.0, centre - spread), min(1.0, centre + spread)
