"""What an interval of finetuning measures, and how it is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seamo_fast.tasks.finetuning.fit.step import StepResult
from seamo_fast.tasks.finetuning.losses import mean_loss
from seamo_fast.training.distributed import ranks
from seamo_fast.training.reporting.meter import peak_memory


class Meter:
    """Collects an interval's numbers without making the device wait."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins an interval now."""
        self._start = time.perf_counter()
        self._waited = 0.0
        self._samples = 0
        self._sums: list[Tensor] = []
        self._norms: list[Tensor] = []

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Counts what happens inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, found: StepResult, samples: int) -> Tensor:
        """Notes a step; returns its totals and weights, float64 [2, L], 0 if it was skipped.

        Args:
            found: What the step found.
            samples: Windows of this rank.
        """
        pair = torch.stack([found.total, found.weight]).double()
        kept = torch.where(found.norm.isfinite(), pair, 0)
        self._sums.append(kept)
        self._norms.append(found.norm)
        self._samples += samples
        return kept

    def flush(self, device: torch.device) -> dict[str, Any]:
        """Returns the interval's metrics and begins the next; waits for the device.

        The loss is that of all steps with a finite gradient, None without one; the norm is their
        mean. Nothing is measured where there was no step.
        """
        seconds = time.perf_counter() - self._start
        metrics: dict[str, Any] = {"memory_gib": peak_memory(device) / 2**30}
        if self._sums:
            norms = torch.stack(self._norms)
            norms = norms[norms.isfinite()]
            total, weight = ranks.total(torch.stack(self._sums).sum(0))
            metrics |= {
                "loss": mean_loss(total, weight).item() if len(norms) else None,
                "grad_norm": norms.float().mean().item() if len(norms) else None,
                "samples_per_second": self._samples * ranks.world() / seconds,
                "data_wait": self._waited / seconds,
            }
        self.restart()
        return metrics


def summary(metrics: Mapping[str, Any]) -> str:
    """Returns an interval's metrics as one line."""
    formats = {
        "loss": "loss {:.4f}",
        "val_loss": "validation loss {:.4f}",
        "lr": "lr {:.2e}",
        "grad_norm": "grad {:.2f}",
        "samples_per_second": "{:.1f} samples/s",
        "data_wait": "wait {:.0%}",
        "memory_gib": "{:.2f} GiB",
    }
    known = {key: text.format(metrics[key]) for key, text in formats.items() if _is(metrics, key)}
    figures = [
        f"{key.removeprefix('val_')} {value:.4f}"
        for key, value in metrics.items()
        if key.startswith("val_") and key not in formats and value is not None
    ]
    if metrics.get("loss", 0) is None:
        known["loss"] = "loss not finite"
    skipped = [f"skipped steps: {metrics['skipped']}"] if metrics.get("skipped") else []
    return "  ".join([*known.values(), *figures, *skipped])


def _is(metrics: Mapping[str, Any], key: str) -> bool:
    return metrics.get(key) is not None
