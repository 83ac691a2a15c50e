"""The meter, by a clock that only the test moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.randomness import generator
from seamo_fast.training.reporting import meter
from seamo_fast.training.reporting.meter import Meter, Stopwatch
from seamo_fast.training.step import StepResult


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the meter sees."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    return now


def new_meter(clock: list[float], *modalities: str) -> Meter:
    return Meter(modalities or ("a",), 500, 10_000.0, torch.device("cpu"), _start=clock[0])


def step(losses: list[float], counts: list[int], norm: float = 1.0) -> StepResult:
    return StepResult(torch.tensor(losses), torch.tensor(counts), torch.tensor(norm))


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
        measured.add(step([loss], [7], norm), samples=8)
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
    measured.add(step([1.0], [7]), 1)
    clock[0] += 1.0
    measured.flush()
    spend(measured, clock, {"checkpoint": 50.0})
    measured.restart()
    measured.add(step([7.0], [7]), 6)
    clock[0] += 2.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["samples_per_second"]) == (7.0, 3.0)
    assert metrics["checkpoint_seconds"] == 50.0


def test_steps_without_finite_gradient_do_not_spoil_the_mean(clock: list[float]) -> None:
    measured = new_meter(clock)
    measured.add(step([1.0], [7], norm=2.0), 1)
    measured.add(step([math.nan], [7], norm=math.nan), 1)
    clock[0] += 1.0
    metrics = measured.flush()
    assert (metrics["loss"], metrics["loss/a"], metrics["grad_norm"]) == (1.0, 1.0, 2.0)
    measured.add(step([math.nan], [7], norm=math.inf), 1)
    clock[0] += 1.0
    metrics = measured.flush()
    assert metrics["loss"] is metrics["loss/a"] is metrics["grad_norm"] is None


def test_losses_are_means_over_patches_and_not_over_steps(clock: list[float]) -> None:
    measured = new_meter(clock, "a", "b", "c", "d")
    measured.add(step([1.0, 0.0, 0.0, 0.5], [10, 0, 0, 4]), 1)
    measured.add(step([3.0, 1.5, 0.0, 9.0], [30, 8, 0, 4], norm=math.inf), 1)
    measured.add(step([2.0, 1.1, 0.0, 0.0], [30, 6, 0, 0]), 1)
    clock[0] += 1.0
    metrics = measured.flush()
    losses = {key: value for key, value in metrics.items() if key.startswith("loss")}
    b = float(torch.tensor(1.1))  # of one step alone
    assert losses.pop("loss") == pytest.approx(1.75 + b + 0.5, rel=1e-7)
    assert losses == {"loss/a": 1.75, "loss/b": b, "loss/c": None, "loss/d": 0.5}


def test_the_mean_of_one_step_is_its_loss_to_the_bit(clock: list[float]) -> None:
    measured = new_meter(clock, "a", "b")
    rng = generator(0, "losses")
    for losses in torch.from_numpy(rng.random((200, 2), np.float32)):
        counts = torch.from_numpy(rng.integers(1, 2**28, 2))
        measured.add(StepResult(losses, counts, torch.ones(())), 1)
        clock[0] += 1.0
        metrics = measured.flush()
        assert [metrics["loss/a"], metrics["loss/b"]] == losses.tolist()
        assert metrics["loss"] == losses.sum().item()


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
