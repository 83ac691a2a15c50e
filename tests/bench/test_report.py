"""The report of the benchmarks: its tables, the pages that quote them, and what was missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.kernels import common
from bench.report import __main__ as command
from bench.report import records, tables
from bench.report.records import Record, best
from bench.report.thresholds import THRESHOLDS, missed


def race(name: str, ratio: float, **others: object) -> Record:
    return {
        "table": "ops",
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
    lines = tables.details(records).splitlines()[2:5]
    assert [line.split(" | ")[3] for line in lines] == ["eager compiled", "eager", "ours"]
    assert lines[0].endswith("| eager compiled | 2.00 | 1.500 | 10% | 70% | 2.0 |")


def test_best_keeps_ours_and_the_fastest_rival_of_each_race() -> None:
    bound = race("bare product", 0.9, op="embed_patches", yardstick=True)
    one = [race("eager", 5.0), race("ours", 1.0), race("eager compiled", 2.0)]
    other = [race("eager", 3.0, size="s1grd"), race("ours", 1.0, size="s1grd"), bound]
    kept = [(x["size"], x["contestant"]) for x in best([*one, *other])]
    assert sorted(kept) == [
        ("s1grd", "eager"), ("s1grd", "ours"), ("s2l2a", "eager compiled"), ("s2l2a", "ours")
    ]  # fmt: skip


def test_missed_names_each_threshold() -> None:
    good = [race("eager", 4.0), race("eager compiled", 1.5)]
    assert not any("norm_pix_loss" in line for line in missed(good))
    slow = [race("eager", 3.9), race("eager compiled", 1.4), race("eager", 0.9, size="s1grd")]
    assert [line for line in missed(slow) if "norm_pix_loss" in line] == [
        "norm_pix_loss, s1grd, forward+backward, eager: ratio 0.90, but nothing may be faster "
        "than ours",
        "norm_pix_loss, s2l2a, forward+backward, eager: ratio 3.90, at least 4 expected",
        "norm_pix_loss, s2l2a, forward+backward, eager compiled: ratio 1.40, at least 1.5 expected",
    ]


def test_what_was_not_measured_is_missed() -> None:
    lines = missed([])
    assert "the boundary was not measured" in lines
    assert len(lines) == 1 + sum(
        len(threshold.sizes) * max(1, len(threshold.contestants))
        for thresholds in THRESHOLDS.values()
        for threshold in thresholds
    )


def test_a_bound_may_be_faster_but_not_by_much() -> None:
    where = {"op": "embed_patches", "size": "small", "yardstick": True}
    assert not any("bare" in line for line in missed([race("bare product", 0.96, **where)]))
    lines = missed([race("bare product", 0.9, **where)])
    assert [line for line in lines if "bare" in line] == [
        "embed_patches, small, forward+backward, bare product: ratio 0.90, at least 0.95 expected"
    ]


MACHINE = {
    "cpu": {"brand_raw": "A processor"},
    "capability": "AVX2",
    "threads": 2,
    "torch": "2.14.1",
    "gpu": None,
    "command": "pytest bench/ --benchmark-only",
}


def written(path: Path, *extra: Record) -> Path:
    """A file as pytest-benchmark writes it."""
    found = {
        "machine_info": MACHINE,
        "commit_info": {"id": "0123456789", "dirty": False},
        "benchmarks": [{"extra_info": each, "stats": {"median": 0.0015}} for each in extra],
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_check_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boundary = {"table": "boundary", "op": "norm_pix_loss", "gradient": True, "call us": 9}
    boundary |= {"kernel us": 2, "boundary us": 7.0}
    path = written(tmp_path / "found.json", race("eager", 4.0), boundary, {})
    assert command.main([str(path)]) == 0
    assert "| norm_pix_loss | yes | 9.0 | 2.0 | 7.0 |" in capsys.readouterr().out
    assert command.main([str(path), "--check"]) == 1
    assert "boundary of norm_pix_loss: 7.0 us, at most 5.0 allowed" in capsys.readouterr().err


def test_operations_are_rows_and_sizes_columns(tmp_path: Path) -> None:
    attention = {"op": "tm_attention", "size": "base"}
    path = written(
        tmp_path / "found.json",
        race("eager", 5.0),
        race("eager compiled", 2.0),
        race("ours", 1.0),
        race("flex", 3.0, **attention),
        race("eager", 4.0, **attention | {"size": "small"}),
        race("eager", 6.0, **attention | {"size": "small B=1"}),
    )
    assert tables.block("ops", [records.read(path)]).splitlines() == [
        "| op | direction | small | base | small B=1 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| tm_attention | forward+backward | 4.00 eager | 3.00 flex | 6.00 eager |",
        "",
        "| op | direction | s2l2a |",
        "| --- | --- | ---: |",
        "| norm_pix_loss | forward+backward | 2.00 eager compiled |",
        "",
        "A processor, AVX2, 2 threads, torch 2.14.1, commit 0123456: "
        "`pytest bench/ --benchmark-only`",
    ]


def test_one_command_writes_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- bench:ops -->\nold\n<!-- end -->\nAfter.\n")
    monkeypatch.setattr(command, "DOCS", (page,))
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.json")
    path = written(tmp_path / "found.json", race("eager", 5.00049), race("eager compiled", 7.0))
    assert command.main([str(path), "--write"]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n<!-- bench:ops -->\n| op | direction | s2l2a |\n")
    assert text.endswith("benchmark-only`\n<!-- end -->\nAfter.\n")
    assert "| norm_pix_loss | forward+backward | 5.00 eager |" in text
    assert command.main(["--write"]) == 0
    assert page.read_text() == text


def step(against: str, share: float, headline: str) -> Record:
    return {
        "table": "steps",
        "model": "a model",
        "ours": "as it is",
        "against": against,
        "batch": 8,
        "headline": headline,
        "seconds": 2.0,
        "share": share,
        "memory": 0.5,
    }


def test_the_front_page_names_the_hardest_rivals(tmp_path: Path) -> None:
    timm = {"table": "inference", "op": "models", "direction": common.FORWARD}
    path = written(
        tmp_path / "found.json",
        step("plain", 0.5, "plain"),
        step("ViTMAE", 0.5, "ViTMAE"),
        step("ViTMAE, compiled", 0.8, "ViTMAE"),
        step("plain", 0.4, ""),
        race("timm", 1.3, **timm | {"size": "base B=16"}),
        race("timm compiled", 1.1, **timm | {"size": "base B=16"}),
        race("timm", 1.05, **timm | {"size": "base B=1"}),
        race("eager", 3.0),
        race("flex", 2.0, op="tm_attention", size="small"),
        race("cat", 1.5, op="assemble_tokens", size="small"),
    )
    assert tables.block("summary", [records.read(path)]).splitlines()[2:7] == [
        "| training step, a model, batch 8 | plain | 2.00 | 0.50 |",
        "| training step, a model, batch 8 | ViTMAE, compiled | 1.25 | 0.50 |",
        "| inference, ViT-B/16, B=16 | timm compiled | 1.10 |  |",
        "| single kernels `norm_pix_loss`, `tm_attention` "
        "| best of PyTorch: eager, flex | 3.00, 2.00 |  |",
        "",
    ]


@pytest.mark.parametrize("page", command.DOCS, ids=lambda page: page.name)
def test_pages_quote_what_was_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- bench:" in text
    assert command.filled(text, records.stored()) == text


def test_a_slow_linear_probe_is_missed() -> None:
    ours: Record = {"table": "probes", "features": "noisy", "by": common.OURS, "accuracy": 0.875}
    times = {"seconds": 21.0, "ours seconds": 21.0}
    other = ours | {"by": "scikit-learn", "seconds": 42.0, "ours seconds": 20.0}
    lines = [line for line in missed([ours | times, other]) if "probe" in line]
    assert lines == ["linear probe, noisy features: 21.0 s, at most 20 allowed"]
    assert tables.probes([other]).endswith("| noisy | scikit-learn | 42.0 | 2.10 | 0.8750 |")
