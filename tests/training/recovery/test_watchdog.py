"""The watchdog, with loaders and steps that stall."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.recovery.watchdog import Watchdog
from seamo_fast.training.reporting.telemetry import read_metrics

Settings = Callable[..., PretrainConfig]


def stalls(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("stall-*.txt"))


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits up to ten seconds, however slow the machine is."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("no_figures", "quick_rate")
def test_a_loader_that_stalls_is_reported_and_the_run_continues(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(run__stall_seconds=0.3, run__steps_per_stage=2, data__workers=0)
    draw, calls = batches.draw_views, []

    def a_disk_that_hangs(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == 4:
            wait_for(lambda: len(stalls(config.run.folder)) > 0)
            time.sleep(0.7)  # twice as long again: still one stall
        return draw(*arguments)

    monkeypatch.setattr(batches, "draw_views", a_disk_that_hangs)
    caplog.set_level(logging.WARNING, logger="seamo_fast")
    loop.pretrain(config)
    (found,) = stalls(config.run.folder)
    text = found.read_text()
    assert "no step after 3\n" in text
    assert "a_disk_that_hangs" in text
    assert text.count("no step after") == 1
    assert (
        f"no step has ended for 0.3 s after step 3; the stacks of all threads are in {found}"
        in (caplog.text)
    )
    assert caplog.text.count("no step has ended") == 1
    assert [line["step"] for line in read_metrics(found.parent / "metrics.jsonl")] == [1, 2, 3, 4]


def test_every_stall_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reported = caplog.records
    with Watchdog(tmp_path, 0.05, 4) as watchdog:
        wait_for(lambda: len(reported) == 1)
        watchdog.beat(5)
        wait_for(lambda: len(reported) == 2)
    text = watchdog.path.read_text()
    assert text.index("after 4\n") < text.index("after 5\n")


@pytest.mark.parametrize("seconds", [0.5, None])
def test_steps_that_end_are_not_reported_and_no_thread_stays(
    tmp_path: Path, seconds: float | None
) -> None:
    before = threading.active_count()
    with Watchdog(tmp_path, seconds, 0) as watchdog:
        assert threading.active_count() == before + (seconds is not None)
        for step in range(60):
            time.sleep(0.01)
            watchdog.beat(step)
    assert threading.active_count() == before
    assert stalls(tmp_path) == []
