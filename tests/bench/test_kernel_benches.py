"""The benchmarks of the kernels: contestants agree with ours."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from bench.kernels import common

BENCHES = [
    importlib.import_module(f"bench.kernels.{path.stem}").BENCH
    for path in sorted(Path(common.__file__).parent.glob("test_*.py"))
    if path.stem != "test_boundary"
]


def small_cases(bench: common.Bench) -> list[common.Case]:
    """What differs in more than size, at few tokens."""
    cases = (case._replace(size=bench.cases[0].size, batch=2, tokens=8) for case in bench.cases)
    return list(dict.fromkeys(cases))


@pytest.mark.parametrize(
    ("bench", "case", "name"),
    [
        pytest.param(bench, case, name, id=f"{bench.name}, {case.label}, {case.direction}, {name}")
        for bench in BENCHES
        for case in small_cases(bench)
        for name in bench.names(compiled=False)
        if name != common.OURS
    ],
)
def test_contestants_agree(bench: common.Bench, case: common.Case, name: str) -> None:
    common.check(bench, name, case)


def test_brief_races_name_contestants_that_exist() -> None:
    for bench in BENCHES:
        assert bench.brief
        assert set(bench.brief) <= set(bench.names())
        assert any(bench.is_brief(bench.brief[0], case) for case in bench.cases)
