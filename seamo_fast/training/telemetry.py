"""What a run tells about itself: metrics of each interval, to the screen and to files."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from tqdm import tqdm

from seamo_fast.errors import DataError
from seamo_fast.training import runfolder

LOG: Final = logging.getLogger("seamo_fast")


@dataclass
class Meter:
    """Collects an interval's numbers without making the device wait.

    Attributes:
        flops: Model FLOPs of a sample's training step.
        rate: Measured FLOP/s of matrix products, what utilisation is counted against.
        device: Where the model runs.
    """

    flops: int
    rate: float
    device: torch.device
    _losses: list[dict[str, Tensor]] = field(default_factory=list)
    _norms: list[Tensor] = field(default_factory=list)
    _samples: int = 0
    _waited: float = 0.0
    _start: float = field(default_factory=time.perf_counter)

    def add(self, losses: dict[str, Tensor], norm: Tensor, samples: int, waited: float) -> None:
        """Notes one step: losses by name, gradient norm, samples, seconds waited for data."""
        self._losses.append({name: loss.detach() for name, loss in losses.items()})
        self._norms.append(norm.detach())
        self._samples += samples
        self._waited += waited

    def flush(self) -> dict[str, Any]:
        """Returns the interval's metrics and begins the next; waits for the device.

        Losses and the norm are means over the steps whose gradient was finite.
        """
        finite = torch.stack(self._norms).isfinite()
        metrics = {name: self._mean([loss[name] for loss in self._losses], finite)
                   for name in self._losses[0]}  # fmt: skip
        metrics["grad_norm"] = self._mean(self._norms, finite)
        seconds = time.perf_counter() - self._start
        speed = self._samples / seconds
        metrics.update(
            samples_per_second=speed,
            mfu=self.flops * speed / self.rate,
            data_wait=self._waited / seconds,
            memory_gib=peak_memory(self.device) / 2**30,
        )
        self._losses, self._norms, self._samples = [], [], 0
        self._waited = 0.0
        self.restart()
        return metrics

    def restart(self) -> None:
        """Begins the interval now, after a checkpoint or a figure that should not count."""
        self._start = time.perf_counter()

    @staticmethod
    def _mean(values: list[Tensor], finite: Tensor) -> float | None:
        kept = torch.stack(values).float()[finite]
        return kept.mean().item() if len(kept) else None


def peak_memory(device: torch.device) -> int:
    """Returns the most memory held so far in bytes: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class MetricsFile:
    """metrics.jsonl: one line an interval, each step of the run at most once.

    Args:
        path: The file; lines after `step` (of a run that was killed later) are dropped.
        step: Steps that the run has done.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        runfolder.write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Adds a line, visible to other processes at once."""
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics.jsonl; a last line that was cut off is left out.

    Raises:
        DataError: Another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    result = []
    for number, line in enumerate(lines):
        try:
            result.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise DataError(f"{path} line {number + 1} is not JSON; remove it") from error
    return result


class Telemetry:
    """Where metrics and messages go: bar or lines, metrics.jsonl, TensorBoard.

    Args:
        folder: The run folder.
        step: Steps that the run has done.
        total: Steps of the whole run.
        tensorboard: Write TensorBoard events.
    """

    def __init__(self, folder: Path, step: int, total: int, tensorboard: bool) -> None:
        self._total = total
        self._file = MetricsFile(folder / runfolder.METRICS, step)
        self._events = _events(folder / "tensorboard", step) if tensorboard else None
        self._bar = (
            tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self) -> None:
        """Moves the bar by one step."""
        if self._bar is not None:
            self._bar.update()

    def report(self, metrics: dict[str, Any]) -> None:
        """Shows and files one interval's metrics (with keys "step" and "stage")."""
        self._file.write(metrics)
        if self._events is not None:
            for key, value in metrics.items():
                if isinstance(value, (int, float)) and key != "step":
                    self._events.add_scalar(key, value, metrics["step"])
        if self._bar is not None:
            self._bar.set_description_str(metrics["stage"])
            self._bar.set_postfix_str(summary(metrics))
        else:
            LOG.info(f"{metrics['stage']}  {metrics['step']}/{self._total}  {summary(metrics)}")

    def sync(self) -> None:
        """Waits until all metrics so far are on the disk."""
        self._file.sync()

    def say(self, message: str) -> None:
        """Shows a message without tearing the bar."""
        if self._bar is not None:
            self._bar.clear()
        LOG.info(message)

    def close(self) -> None:
        """Writes out what is buffered and ends the bar."""
        self._file.close()
        if self._events is not None:
            self._events.close()
        if self._bar is not None:
            self._bar.close()


def _events(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def summary(metrics: Mapping[str, Any]) -> str:
    """Returns an interval's metrics as one line."""
    losses = ", ".join(
        f"{key.removeprefix('loss/')} {_number(value, '.4f')}"
        for key, value in metrics.items()
        if key.startswith("loss/")
    )
    parts = [
        f"loss {_number(metrics['loss'], '.4f')} ({losses})",
        f"lr {metrics['lr']:.2e}",
        f"grad {_number(metrics['grad_norm'], '.2f')}",
        f"{metrics['samples_per_second']:.1f} samples/s",
        f"MFU {metrics['mfu']:.0%}",
        f"wait {metrics['data_wait']:.0%}",
        f"{metrics['memory_gib']:.2f} GiB",
    ]
    if metrics["seconds_left"]:
        parts.append(f"{tqdm.format_interval(metrics['seconds_left'])} left")
    for key, word in (("skipped", "skipped steps"), ("bad_records", "damaged records")):
        if metrics.get(key):
            parts.append(f"{word}: {metrics[key]}")
    return "  ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
