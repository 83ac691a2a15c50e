"""The summary of several seeds: means with Student's t intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

from seamo_fast.errors import DataError
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.training.config import to_dict


def summarise(config: FinetuneConfig, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the results of several seeds: of each figure of the test part the mean over runs.

    Args:
        config: Settings; `seeds` runs.
        runs: What `results.json` of each holds.

    Raises:
        DataError: They have different figures.
    """
    names, *others = (run["test"].keys() for run in runs)
    for number, other in enumerate(others, 1):
        if other != names:
            raise DataError(
                f"seed_{number} has the figures {', '.join(other)}, but seed_0 {', '.join(names)}; "
                "remove the results of the one that is wrong to train it again"
            )
    return {
        "dataset": runs[0]["dataset"],
        "task": runs[0]["task"],
        "seeds": [config.seed + number for number in range(len(runs))],
        "test": {name: _of_runs([run["test"][name]["value"] for run in runs]) for name in names},
        "config": to_dict(config),
        "versions": runs[0]["versions"],
    }


def _of_runs(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    low, high = mean_interval(known)
    return {"value": fmean(known) if known else None, "low": low, "high": high, "runs": values}


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the 95 % interval of a mean by Student's t; None where one value says nothing."""
    if len(values) < 2:
        return None, None
    spread = student_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - spread, fmean(values) + spread


def student_quantile(share: float, freedom: int) -> float:
    """Returns the quantile of Student's t distribution, found by bisection.

    Args:
        share: In (0.5, 1).
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, NormalDist().inv_cdf(share) + 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, freedom) < share else (low, middle)
    return low


def _student(t: float, freedom: int) -> float:
    """Returns the distribution function at t >= 0 (Abramowitz and Stegun, 1964, 26.7.3 and 4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if freedom % 2 else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    inside = 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total
    return 0.5 + inside / 2
