"""The meter, by a clock that only the test moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seamo_fast.training.reporting import meter
from seamo_fast.training.reporting.meter import Meter, Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the meter sees."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    return now


def new_meter(clock: list[float], flops: int = 500, rate: float = 10_000.0) -> Meter:
    return Meter(flops, rate, torch.device("cpu"), _start=clock[0])


def spend(measured: Meter, clock: list[float], seconds: dict[Any, float]) -> None:
    """Lets each part take its seconds."""
    for part, duration in seconds.items():
        with measured.time(part):
            clock[0] += duration


def test_an_interval_is_averaged(clock: list[float]) -> None:
    measured = new_meter(clock)
    for loss, norm in ((2.0, 1.0), (4.0, 3.0)):
        spend(measured, clock, {"data": 0.5, "count": 0.125, "forward": 0.25, "backward": 0.625})
        spend(measured, clock, {"optimizer": 0.25})
        measured.add({"loss": torch.tensor(loss)}, torch.tensor(norm), samples=8)
    clock[0] += 0.5
    metrics = measured.flush()
    assert metrics["loss"] == 3.0
    assert metrics["grad_norm"] == 2.0
    assert metrics["samples_per_second"] == 4.0
    assert metrics["mfu"] == pytest.approx(500 * 4.0 / 10_000)
    assert metrics["flops_per_second"] == 500 * 4.0
    assert metrics["data_wait"] == pytest.approx(0.25)
    assert metrics["time/forward_backward"] == pytest.approx(0.5)
    assert metrics["time/optimizer"] == pytest.approx(0.125)
    assert metrics["time/communication"] == 0
    assert metrics["checkpoint_seconds"] == 0
    assert 0.05 < metrics["memory_gib"] < 100


def test_the_next_interval_begins_where_it_is_restarted(clock: list[float]) -> None:
    measured = new_meter(clock)
    measured.add({"loss": torch.tensor(1.0)}, torch.tensor(1.0), 1)
    clock[0] += 1.0
    measured.flush()
    spend(measured, clock, {"checkpoint": 50.0})
    measured.restart()
    measured.add({"loss": torch.tensor(7.0)}, torch.tensor(1.0), 6)
    clock[0] += 2.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["samples_per_second"]) == (7.0, 3.0)
    assert metrics["checkpoint_seconds"] == 50.0


def test_steps_without_finite_gradient_do_not_spoil_the_mean(clock: list[float]) -> None:
    measured = new_meter(clock)
    measured.add({"loss": torch.tensor(1.0)}, torch.tensor(2.0), 1)
    measured.add({"loss": torch.tensor(float("nan"))}, torch.tensor(float("nan")), 1)
    clock[0] += 1.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["grad_norm"]) == (1.0, 2.0)
    measured.add({"loss": torch.tensor(float("nan"))}, torch.tensor(float("inf")), 1)
    clock[0] += 1.0
    assert measured.flush()["loss"] is None


class FakeEvent:
    """A CUDA event of a device that works off its queue only when it is waited for."""

    device_time = 0.0
    waited = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.reached: float | None = None

    def record(self, stream: object) -> None:
        self.reached = FakeEvent.device_time

    def synchronize(self) -> None:
        FakeEvent.waited += 1

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.reached is not None
        assert end.reached is not None
        return 1000 * (end.reached - self.reached)


def test_a_gpu_is_timed_by_its_own_events_and_waited_for_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    watch = Stopwatch(torch.device("cuda"))
    for seconds in (1.0, 3.0):
        with watch.time("optimizer"):
            FakeEvent.device_time += seconds
        FakeEvent.device_time += 10.0
    assert FakeEvent.waited == 0
    assert watch.totals() == {"optimizer": 4.0}
    assert FakeEvent.waited == 2
    assert watch.totals() == {}


def test_a_part_that_fails_counts_too(clock: list[float]) -> None:
    watch = Stopwatch(torch.device("cpu"))

    def fail() -> None:
        with watch.time("data"):
            clock[0] += 2.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watch.totals() == {"data": 2.0}


@pytest.mark.gpu
def test_a_gpu_takes_as_long_as_its_work() -> None:
    device = torch.device("cuda")
    square = torch.ones(4096, 4096, device=device)
    watch = Stopwatch(device)
    for count in (1, 10):
        with watch.time(str(count)):
            for _ in range(count):
                square @ square
    seconds = watch.totals()
    assert seconds["10"] > 3 * seconds["1"] > 0
