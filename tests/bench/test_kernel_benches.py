"""The benchmarks of the kernels: contestants agree with ours, and reports say what was missed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from bench.kernels import common, report

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
        pytest.param(bench, case, name, id=f"{bench.op}, {case.label}, {case.direction}, {name}")
        for bench in BENCHES
        for case in small_cases(bench)
        for name in bench.names(compiled=False)
        if name != common.OURS
    ],
)
def test_contestants_agree(bench: common.Bench, case: common.Case, name: str) -> None:
    common.check(bench, name, case)


def race(name: str, ratio: float, **others: object) -> report.Record:
    return {
        "op": "norm_pix_loss",
        "size": "s2l2a",
        "direction": common.BOTH,
        "contestant": name,
        "yardstick": False,
        "ratio": ratio,
        "ms": 1.5,
        "of matmul": 0.1,
        "of copy": 0.7,
        "extra MiB": 2.0,
    } | others


def test_table_has_worst_ratio_first_and_ours_last() -> None:
    records = [race("ours", 1.0), race("eager", 5.0), race("eager compiled", 2.0)]
    lines = report.tables(records).splitlines()[2:5]
    assert [line.split(" | ")[3] for line in lines] == ["eager compiled", "eager", "ours"]
    assert lines[0].endswith("| eager compiled | 2.00 | 1.500 | 10% | 70% | 2.0 |")


def test_best_keeps_ours_and_the_fastest_rival_of_each_race() -> None:
    bound = race("bare product", 0.9, op="embed_patches", yardstick=True)
    one = [race("eager", 5.0), race("ours", 1.0), race("eager compiled", 2.0)]
    other = [race("eager", 3.0, size="s1grd"), race("ours", 1.0, size="s1grd"), bound]
    kept = [(x["size"], x["contestant"]) for x in report.best([*one, *other])]
    assert sorted(kept) == [
        ("s1grd", "eager"), ("s1grd", "ours"), ("s2l2a", "eager compiled"), ("s2l2a", "ours")
    ]  # fmt: skip


def test_missed_names_each_threshold() -> None:
    good = [race("eager", 4.0), race("eager compiled", 1.5)]
    assert not any("norm_pix_loss" in line for line in report.missed(good))
    slow = [race("eager", 3.9), race("eager compiled", 1.4), race("eager", 0.9, size="s1grd")]
    assert [line for line in report.missed(slow) if "norm_pix_loss" in line] == [
        "norm_pix_loss, s1grd, forward+backward, eager: ratio 0.90, but nothing may be faster "
        "than ours",
        "norm_pix_loss, s2l2a, forward+backward, eager: ratio 3.90, at least 4 expected",
        "norm_pix_loss, s2l2a, forward+backward, eager compiled: ratio 1.40, at least 1.5 expected",
    ]


def test_what_was_not_measured_is_missed() -> None:
    lines = report.missed([])
    assert "the boundary was not measured" in lines
    assert len(lines) == 1 + sum(
        len(threshold.sizes) * max(1, len(threshold.contestants)) for threshold in report.THRESHOLDS
    )


def test_a_bound_may_be_faster_but_not_by_much() -> None:
    where = {"op": "embed_patches", "size": "small", "yardstick": True}
    assert not any("bare" in line for line in report.missed([race("bare product", 0.96, **where)]))
    lines = report.missed([race("bare product", 0.9, **where)])
    assert [line for line in lines if "bare" in line] == [
        "embed_patches, small, forward+backward, bare product: ratio 0.90, at least 0.95 expected"
    ]


def test_check_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boundary = {"op": "norm_pix_loss", "gradient": True, "call us": 9, "kernel us": 2}
    extra = [race("eager", 4.0), boundary | {"boundary us": 7.0}, {}]
    path = tmp_path / "found.json"
    entries = [{"extra_info": each, "stats": {"median": 0.0015}} for each in extra]
    path.write_text(json.dumps({"benchmarks": entries}), encoding="utf-8")
    assert report.main([str(path)]) == 0
    assert "| norm_pix_loss | yes | 9.0 | 2.0 | 7.0 |" in capsys.readouterr().out
    assert report.main([str(path), "--check"]) == 1
    assert "boundary of norm_pix_loss: 7.0 us, at most 5.0 allowed" in capsys.readouterr().err
