"""The linear probe beside what people use, to the same accuracy."""

from __future__ import annotations

import importlib.util
from statistics import median
from typing import Any

import pytest

from bench.kernels.common import clock
from bench.tasks import probes


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("features", probes.FEATURES)
@pytest.mark.parametrize("name", probes.CONTESTANTS)
def test_linear_probe(benchmark: Any, name: str, features: str) -> None:
    """Each contestant, with a call of ours before each call of it."""
    if name == "scikit-learn" and importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    benchmark.group = f"linear probe, {features} features"
    given = probes.problem(features)
    accuracy = probes.accuracy(given, name)
    partner: list[float] = []
    benchmark.pedantic(
        lambda: probes.CONTESTANTS[name](given),
        setup=lambda: partner.append(clock(lambda: probes.ours(given))),
        rounds=3,
    )
    if benchmark.stats is None:  # --benchmark-disable
        return
    benchmark.extra_info |= {
        "table": "probes",
        "features": features,
        "by": name,
        "accuracy": accuracy,
        "seconds": benchmark.stats.stats.median,
        "ours seconds": median(partner),
    }
