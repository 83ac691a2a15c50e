"""Watches for steps without a finite gradient, which the optimiser has already skipped."""

from __future__ import annotations

import torch
from torch import Tensor

from seamo_fast.errors import SeaMoError


class NonFiniteGuard:
    """Counts skipped steps and ends a run that has nothing but such steps.

    Args:
        most: Steps in a row that are too many.
        skipped: Skipped steps before.
        settings: What the message calls the learning rate, clipping and the precision.

    Attributes:
        skipped: All skipped steps of the run.
    """

    def __init__(
        self,
        most: int,
        skipped: int = 0,
        settings: tuple[str, str, str] = ("optim.blr", "optim.clip", "run.precision"),
    ) -> None:
        self.skipped = skipped
        self._most = most
        self._settings = settings
        self._in_a_row = 0
        self._pending: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, norm: Tensor, ids: Tensor) -> None:
        """Notes one step's gradient norm and samples; on the CPU it is looked at at once."""
        self._pending.append((step, norm.detach(), ids))
        if norm.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Reads the noted norms, for which the device has to be waited for.

        Raises:
            SeaMoError: Too many steps in a row had no finite gradient.
        """
        if not self._pending:
            return
        finite = torch.stack([norm for _, norm, _ in self._pending]).isfinite().tolist()
        for (step, _, ids), good in zip(self._pending, finite, strict=True):
            self._in_a_row = 0 if good else self._in_a_row + 1
            self.skipped += not good
            if self._in_a_row >= self._most:
                blr, clip, precision = self._settings
                raise SeaMoError(
                    f"{self._most} steps in a row had no finite gradient, up to step {step} "
                    f"(its samples: {ids.tolist()}); look for NaN or infinite values in the data, "
                    f"lower {blr}, set {clip}, or try --{precision} fp32. "
                    "The checkpoints are untouched"
                )
        self._pending = []
