"""What an interval of training measures: losses, speed, and where the time went."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from seamo_fast.training.step import StepResult

# for these this process waits; all else is timed on the device
_HOST: Final = ("data", "checkpoint")
# phases behind each metric time/...
_REPORTED: Final = {
    "forward_backward": ("count", "forward", "backward"),
    "optimizer": ("optimizer",),
    "communication": ("communication",),
}


class Stopwatch:
    """Adds up how long named parts take, without making the device wait.

    On a GPU it notes CUDA events, which the device reaches in its own time, and reads them in
    `totals`.

    Args:
        device: Whose time it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Adds what happens inside to `part`."""
        start = self._now()
        try:
            yield
        finally:
            self._spans.append((part, start, self._now()))

    def totals(self) -> dict[str, float]:
        """Returns the seconds of each part since the last call; waits for the device."""
        seconds: dict[str, float] = {}
        for part, start, end in self._spans:
            seconds[part] = seconds.get(part, 0.0) + self._between(start, end)
        self._spans = []
        return seconds

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, start: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000


@dataclass
class Meter:
    """Collects an interval's numbers without making the device wait.

    Attributes:
        modalities: Names, in the order of the M axis.
        flops: Model FLOPs of a sample's training step.
        rate: Measured FLOP/s of matrix products, what utilisation is counted against.
        device: Where the model runs.
    """

    modalities: Sequence[str]
    flops: int
    rate: float
    device: torch.device
    _steps: list[StepResult] = field(default_factory=list)
    _samples: int = 0
    _start: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._on_device = Stopwatch(self.device)
        self._on_host = Stopwatch(torch.device("cpu"))

    def time(self, phase: str) -> AbstractContextManager[None]:
        """Adds what happens inside to a phase: of a training step, or "data", "checkpoint"."""
        watch = self._on_host if phase in _HOST else self._on_device
        return watch.time(phase)

    def add(self, step: StepResult, samples: int) -> None:
        """Notes one step and its number of samples."""
        self._steps.append(step)
        self._samples += samples

    def flush(self) -> dict[str, Any]:
        """Returns the interval's metrics and begins the next; waits for the device.

        `loss/...` are means over the target patches of the steps whose gradient was finite, None
        where they have none; `loss` is their sum. The norm is the mean over those steps.
        `data_wait` and `time/...` are shares of the interval.
        `checkpoint_seconds` is what checkpoints held training up since the interval before; it is
        no part of this one.
        """
        losses, counts, norms = (torch.stack(each).cpu() for each in zip(*self._steps, strict=True))
        finite = norms.isfinite()
        metrics = self._losses(losses, counts, finite)
        metrics["grad_norm"] = norms[finite].float().mean().item() if finite.any() else None
        on_device, on_host = self._on_device.totals(), self._on_host.totals()
        seconds = time.perf_counter() - self._start
        speed = self._samples / seconds
        metrics.update(
            samples_per_second=speed,
            flops_per_second=self.flops * speed,
            mfu=self.flops * speed / self.rate,
            data_wait=on_host.get("data", 0.0) / seconds,
            **{
                f"time/{name}": sum(on_device.get(phase, 0.0) for phase in phases) / seconds
                for name, phases in _REPORTED.items()
            },
            checkpoint_seconds=on_host.get("checkpoint", 0.0),
            memory_gib=peak_memory(self.device) / 2**30,
        )
        self._steps, self._samples = [], 0
        self.restart()
        return metrics

    def restart(self) -> None:
        """Begins the interval now, after a checkpoint or a figure that should not count."""
        self._start = time.perf_counter()

    def _losses(self, losses: Tensor, counts: Tensor, finite: Tensor) -> dict[str, Any]:
        """Returns the means of losses [steps, M] over patches [steps, M], in float64.

        A product by a number of patches is exact there: one step's mean is its loss to the bit.
        """
        kept = counts[finite].sum(0)
        means = (losses[finite].double() * counts[finite]).sum(0) / kept
        total = means[kept > 0].float().sum().item() if kept.any() else None
        rows = zip(self.modalities, means.tolist(), kept.tolist(), strict=True)
        by_modality = {f"loss/{name}": mean if count else None for name, mean, count in rows}
        return {"loss": total, **by_modality}


def peak_memory(device: torch.device) -> int:
    """Returns the most memory held so far in bytes: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
