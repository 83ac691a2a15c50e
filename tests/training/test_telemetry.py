from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.training import telemetry
from seamo_fast.training.telemetry import Meter, MetricsFile, Telemetry, read_metrics, summary


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the meter sees."""
    now = [100.0]
    monkeypatch.setattr(telemetry.time, "perf_counter", lambda: now[0])
    return now


def meter(clock: list[float], flops: int = 500, rate: float = 10_000.0) -> Meter:
    return Meter(flops, rate, torch.device("cpu"), _start=clock[0])


def test_an_interval_is_averaged(clock: list[float]) -> None:
    measured = meter(clock)
    for loss, norm in ((2.0, 1.0), (4.0, 3.0)):
        measured.add({"loss": torch.tensor(loss)}, torch.tensor(norm), samples=8, waited=0.5)
    clock[0] += 4.0
    metrics = measured.flush()
    assert metrics["loss"] == 3.0
    assert metrics["grad_norm"] == 2.0
    assert metrics["samples_per_second"] == 4.0
    assert metrics["mfu"] == pytest.approx(500 * 4.0 / 10_000)
    assert metrics["data_wait"] == pytest.approx(0.25)
    assert 0.05 < metrics["memory_gib"] < 100


def test_the_next_interval_begins_where_it_is_told_to(clock: list[float]) -> None:
    measured = meter(clock)
    measured.add({"loss": torch.tensor(1.0)}, torch.tensor(1.0), 1, 0.0)
    clock[0] += 1.0
    measured.flush()
    clock[0] += 50.0
    measured.restart()
    measured.add({"loss": torch.tensor(7.0)}, torch.tensor(1.0), 6, 0.0)
    clock[0] += 2.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["samples_per_second"]) == (7.0, 3.0)


def test_steps_without_finite_gradient_do_not_spoil_the_mean(clock: list[float]) -> None:
    measured = meter(clock)
    measured.add({"loss": torch.tensor(1.0)}, torch.tensor(2.0), 1, 0.0)
    measured.add({"loss": torch.tensor(float("nan"))}, torch.tensor(float("nan")), 1, 0.0)
    clock[0] += 1.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["grad_norm"]) == (1.0, 2.0)
    measured.add({"loss": torch.tensor(float("nan"))}, torch.tensor(float("inf")), 1, 0.0)
    clock[0] += 1.0
    assert measured.flush()["loss"] is None


def line(step: int) -> dict[str, object]:
    return {
        "step": step, "stage": "first", "loss": 1.5, "loss/optic": 1.0, "loss/radar": None,
        "grad_norm": 2.0, "samples_per_second": 3.0, "mfu": 0.25, "data_wait": 0.5,
        "memory_gib": 1.0, "lr": 1e-3, "seconds_left": 61.0, "skipped": 1, "bad_records": 0,
    }  # fmt: skip


def test_a_line_says_everything() -> None:
    assert summary(line(3)) == (
        "loss 1.5000 (optic 1.0000, radar not finite)  lr 1.00e-03  grad 2.00  3.0 samples/s  "
        "MFU 25%  wait 50%  1.00 GiB  01:01 left  skipped steps: 1"
    )


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps(line(step)) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo'
    )
    file = MetricsFile(path, step=2)
    file.write(line(3))
    assert [found["step"] for found in read_metrics(path)] == [1, 2, 3]
    file.close()


def test_damage_in_the_middle_of_the_metrics_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl line 2 is not JSON"):
        read_metrics(path)


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = Telemetry(tmp_path, 0, 10, tensorboard=True)
    told.report(line(1))
    told.report(line(2))
    told.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/optic")] == [(1, 1.0), (2, 1.0)]
    assert {"mfu", "lr", "samples_per_second"} <= set(events.Tags()["scalars"])
    assert "loss/radar" not in events.Tags()["scalars"]


def test_a_terminal_gets_a_bar_and_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    told = Telemetry(tmp_path, 4, 10, tensorboard=False)
    told.advance()
    told.report(line(5))
    told.close()
    shown = capsys.readouterr()
    assert "5/10" in shown.err
    assert "loss 1.5000" in shown.err
    assert shown.out == ""
