"""`python -m seamo_fast.profile step`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from seamo_fast.pretrain import COMMAND
from seamo_fast.profile.__main__ import main
from seamo_fast.profile.config import STEP
from seamo_fast.profile.phases import Phases
from seamo_fast.profile.steps import ProfiledSteps
from seamo_fast.training import batches
from seamo_fast.training.loop import pretrain
from seamo_fast.training.reporting.figures import Figures
from seamo_fast.training.reporting.telemetry import read_metrics
from seamo_fast.training.step import step_flops

PHASES = [
    "data", "transfer", "embed", "encoder", "targets and loss", "fusion", "decoder s2l2a",
    "decoder s1grd", "backward", "optimizer", "between",
]  # fmt: skip


def run(config: Path, folder: Path, *settings: str) -> int:
    lengths = ["--profile.warmup=1", "--profile.steps=2", "--profile.traced=2"]
    where = f"--profile.folder={folder}"
    return main(["step", "--config", str(config), where, *lengths, *settings])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_step_is_reported_by_phase_and_by_operator(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, tmp_path / "out") == 0
    shown = capsys.readouterr().out
    settings = STEP.parse(["--config", str(config)])[0]
    shards = batches.open_shards(settings.data.path)
    stage = batches.make_plan(settings, shards).stages[-1]
    gflop = 2 * step_flops(settings, shards, stage) / 1e9
    assert f"{gflop:.2f} GFLOP a step" in shown
    assert "0 programs, 0 graph breaks, 0 recompilations" in shown
    assert shown == (tmp_path / "out" / "profile.txt").read_text()
    by_phase = table(tmp_path / "out" / "phases.csv")
    assert [row["phase"] for row in by_phase] == PHASES
    assert sum(float(row["share %"]) for row in by_phase) == pytest.approx(100)
    calls = {row["operator"]: float(row["calls/step"]) for row in operators(tmp_path / "out")}
    # two modalities, each gathered twice: visible and hidden patches
    assert calls["seamo::gather_patches"] == 4
    assert calls["seamo::_norm_pix_loss"] == 2
    assert calls["Python in backward"] == 1
    assert (tmp_path / "out" / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_micro_batches_are_phases_of_one_step(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path, "--optim.accumulate=2") == 0
    by_phase = table(tmp_path / "phases.csv")
    assert [row["phase"] for row in by_phase] == [*PHASES[:2], "count", *PHASES[2:]]
    assert sum(float(row["share %"]) for row in by_phase) == pytest.approx(100)
    calls = {row["operator"]: float(row["calls/step"]) for row in operators(tmp_path)}
    # as in one batch, for each of two micro-batches, and the hidden patches once more to count them
    assert calls["seamo::gather_patches"] == 2 * (4 + 2)
    assert calls["seamo::_norm_pix_loss"] == 2 * 2
    for phase, count in (("count", 1), ("encoder", 2), ("backward", 2), ("optimizer", 1)):
        assert calls[f"Python in {phase}"] == count, phase


def operators(folder: Path) -> list[dict[str, str]]:
    rows = table(folder / "operators.csv")
    assert sum(float(row["share %"]) for row in rows) == pytest.approx(100)
    return rows


def test_the_trace_shows_phases_around_their_operators(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path) == 0
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = (
        "embed", "encoder", "targets and loss", "fusion", "seamo::gather_patches",
        "seamo::_tm_attention",
    )  # fmt: skip
    spans = {
        name: [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == name]
        for name in names
    }

    def inside(operator: str, phase: str) -> int:
        return sum(
            any(start <= first and last <= end for start, end in spans[phase])
            for first, last in spans[operator]
        )

    assert len(spans["encoder"]) == 2
    assert inside("seamo::gather_patches", "embed") == 4
    assert inside("seamo::gather_patches", "targets and loss") == 4
    assert inside("seamo::_tm_attention", "fusion") == 2


@pytest.mark.parametrize(
    ("how", "phases"),
    [
        ("regional", PHASES),
        ("full", ["data", "transfer", "forward", "backward", "optimizer", "between"]),
    ],
)
def test_a_compiled_step_reports_what_was_compiled(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    phases: list[str],
) -> None:
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: compile_module(self, backend="aot_eager", **options),
    )
    shards = batches.open_shards(STEP.parse(["--config", str(config)])[0].data.path)
    # a batch that lacks a group needs other programs
    assert all(shards.groups(number)[0].all() for number in range(len(shards)))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    assert run(config, tmp_path, f"--run.compile={how}") == 0
    programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert programs > 0
    expected = f"compiled ({how}): {programs} programs, 0 graph breaks, 0 recompilations after"
    assert expected in capsys.readouterr().out
    assert [row["phase"] for row in table(tmp_path / "phases.csv")] == phases
    torch.compiler.reset()


def test_profiled_steps_are_those_of_a_run(config: Path) -> None:
    settings = STEP.parse(["--config", str(config)])[0]
    plain = ProfiledSteps(settings, 3)
    phases = Phases(torch.device("cpu"))
    watched = ProfiledSteps(settings, 3, phase=phases.time)
    phases.attach(watched.model)  # type: ignore[arg-type]
    assert [plain.step() for _ in range(3)] == [watched.step() for _ in range(3)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_profiled_steps_have_the_losses_of_a_run(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    monkeypatch.setattr(Figures, "write", lambda *_: None)
    options = [f"--optim.accumulate={accumulate}", f"--run.folder={tmp_path}", "--run.log_every=1"]
    settings, _ = COMMAND.parse(["--config", str(config), *options, "--run.steps_per_stage=3"])
    pretrain(settings)
    profiled = ProfiledSteps(settings, 3)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert [profiled.step().item() for _ in range(3)] == losses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps"], "error: unknown command 'steps'; the nearest known is 'step'"),
        (["step", "--profile.step=3"], "the nearest known is 'profile.steps'"),
        (["step", "--profile.steps=0"], "profile.steps must be at least 1, but got 0"),
        (["parity", "--parity.seeds=1"], "parity.seeds must be at least 2, but got 1"),
        (["step", "--data.path=/nowhere"], "error: shard folder /nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
