from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.training.config import PretrainConfig, to_dict
from seamo_fast.training.reporting.telemetry import MetricsFile, Telemetry, read_metrics, summary

Settings = Callable[..., PretrainConfig]


def line(step: int) -> dict[str, object]:
    return {
        "step": step, "stage": "first", "loss": 1.5, "loss/optic": 1.0, "loss/radar": None,
        "grad_norm": 2.0, "samples_per_second": 3.0, "mfu": 0.25, "data_wait": 0.5,
        "memory_gib": 1.0, "lr": 1e-3, "seconds_left": 61.0, "skipped": 1, "bad_records": 0,
    }  # fmt: skip


def opened(folder: Path, step: int, total: int, config: PretrainConfig) -> Telemetry:
    run = config.run
    return Telemetry(
        folder, step, total, to_dict(config), tensorboard=run.tensorboard, wandb=run.wandb
    )


def report(telemetry: Telemetry, step: int) -> None:
    telemetry.report(line(step), "first", summary(line(step)))


def test_a_line_says_everything() -> None:
    assert summary(line(3)) == (
        "loss 1.5000 (optic 1.0000)  lr 1.00e-03  grad 2.00  3.0 samples/s  "
        "MFU 25%  wait 50%  1.00 GiB  01:01 left  skipped steps: 1"
    )


def test_a_line_names_no_number_where_there_is_none() -> None:
    nothing = {"loss": None, "loss/optic": None}
    assert summary(line(3) | nothing).startswith("no loss, as there was no target  lr 1.00e-03  ")
    assert summary(line(3) | nothing | {"grad_norm": None}).startswith(
        "loss not finite  lr 1.00e-03  grad not finite  "
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


BROKEN = {
    "half a line": b'{"st',
    "binary": bytes(range(128, 256)),
    "zeros, as file systems leave them": bytes(4096),
    "no object": b"[1, 2]",
    "a number": b"3",
    "nested": b"[" * 100_000,
    "no step": b'{"loss": 1.0}',
    "a step that is no number": b'{"step": "2"}',
    "a step that is a half": b'{"step": 2.5}',
    "a loss that is no number": b'{"step": 2, "loss/optic": "low"}',
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_broken_lines_are_removed_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n' + damage)
    assert [found["step"] for found in read_metrics(path)] == [1, 3]
    for _ in range(2):
        file = MetricsFile(path, step=3)
        file.write({"step": 4})
        file.close()
    found = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert found == [1, 3, 4]
    assert caplog.messages == [
        f"{path}: 2 broken lines are removed, the first is line 2; a crash or a power failure "
        "leaves such lines"
    ]


def test_each_step_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": {step}}}\n' for step in (1, 2, 3, 1, 2, 4)))
    MetricsFile(path, step=3).close()
    assert [found["step"] for found in read_metrics(path)] == [1, 2, 3]


def test_metrics_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    for read in (read_metrics, lambda path: MetricsFile(path, 0)):
        with pytest.raises(DataError, match=r"metrics\.jsonl cannot be read \(Is a directory\)"):
            read(path)


def test_tensorboard_gets_the_numbers(tmp_path: Path, settings: Settings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    telemetry = opened(tmp_path, 0, 10, settings(run__tensorboard=True))
    report(telemetry, 1)
    report(telemetry, 2)
    telemetry.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/optic")] == [(1, 1.0), (2, 1.0)]
    assert {"mfu", "lr", "samples_per_second"} <= set(events.Tags()["scalars"])
    assert "loss/radar" not in events.Tags()["scalars"]


def test_a_terminal_gets_a_bar_and_no_lines(
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    telemetry = opened(tmp_path, 4, 10, settings())
    telemetry.advance()
    report(telemetry, 5)
    telemetry.close()
    shown = capsys.readouterr()
    assert "5/10" in shown.err
    assert "loss 1.5000" in shown.err
    assert shown.out == ""


class FakeWandb:
    """What `import wandb` gives, with a note of every call."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> Any:
        self.begun.append(settings)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self.logged.append((step, numbers))

    def _finish(self) -> None:
        self.finished += 1


def test_wandb_gets_the_numbers_and_goes_on_with_the_same_run(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = settings(run__wandb="seamo")
    for step in (1, 2):
        telemetry = opened(tmp_path, step - 1, 10, config)
        report(telemetry, step)
        telemetry.close()
    first, second = fake.begun
    assert first == second
    assert first["project"] == "seamo"
    assert first["config"] == to_dict(config)
    assert Path(first["dir"]) == tmp_path
    assert [step for step, _ in fake.logged] == [1, 2]
    assert fake.logged[0][1]["loss/optic"] == 1.0
    assert not {"stage", "step", "loss/radar"} & set(fake.logged[0][1])
    assert fake.finished == 2
    (tmp_path / "other").mkdir()
    opened(tmp_path / "other", 0, 10, config).close()
    assert fake.begun[-1]["id"] != first["id"]


def test_missing_wandb_names_the_command_that_installs_it(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    opened(tmp_path, 0, 10, settings()).close()
    with pytest.raises(
        ConfigError, match=r"pip install 'seamo_fast\[wandb\]', or leave wandb null"
    ):
        opened(tmp_path, 0, 10, settings(run__wandb="seamo"))
