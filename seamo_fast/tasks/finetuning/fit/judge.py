"""Judging a part of a dataset: the loss, and the scores of all its items."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seamo_fast.tasks.finetuning.batches import Batch, EvaluationBatches, by_windows
from seamo_fast.tasks.finetuning.fit.step import inputs_of
from seamo_fast.tasks.finetuning.losses import Loss, mean_loss
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.scores import Figures, Scores
from seamo_fast.training.distributed import ranks
from seamo_fast.training.precision import autocast


class Judged(NamedTuple):
    """What became of a part.

    Attributes:
        loss: Of all its items.
        figures: Of all its items.
    """

    loss: float
    figures: Figures


class Judge:
    """Judges a model on parts of its dataset; ranks share the items.

    Args:
        model: On its device.
        loss: What is reported; smoothing has no place in it.
        window: H and W of the windows that cover an image where pixels have labels.
        most: Windows that are predicted at once.
        dtype: Of matrix products.
    """

    def __init__(
        self,
        model: TaskModel,
        loss: Loss,
        window: tuple[int, int],
        most: int,
        dtype: torch.dtype,
    ) -> None:
        self._model = model
        self._loss = loss
        self._window = window
        self._most = most
        self._device = next(model.parameters()).device
        self._autocast = autocast(self._device, dtype)

    @torch.no_grad()
    def __call__(
        self, batches: EvaluationBatches, stopped: Callable[[], bool] = lambda: False
    ) -> Judged | None:
        """Returns what became of a part; None if it was stopped before its end.

        Args:
            batches: This rank's share of the part.
            stopped: Asked after each batch, by all ranks alike.

        Raises:
            DataError: As `EvaluationBatches`.
        """
        scores = Scores(self._model.task, len(self._model.classes), self._device)
        sums = torch.zeros(2, len(self._loss.terms), dtype=torch.float64, device=self._device)
        source = iter(batches)
        while True:
            with ranks.raise_on_all():
                batch = next(source, None)
            if not ranks.largest(int(batch is not None)):
                break
            if batch is not None:
                logits = self.predict(batch)
                target = batch.target.to(self._device)
                sums += torch.stack(self._loss(logits, target)).double()
                scores.update(logits, target, batch.numbers)
            if stopped():
                return None
        total, weight = ranks.total(sums)
        return Judged(mean_loss(total, weight).item(), scores.compute())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Returns logits [B, K], or [B, K, H, W] of whole images, float32."""
        self._model.eval()
        if not self._model.dense:
            return self._run(batch)
        return by_windows(self._run, batch, self._window, self._most)

    def _run(self, batch: Batch) -> Tensor:
        ready = inputs_of(batch, self._device)
        with self._autocast:
            return self._model(ready.images, ready.dates, ready.valid).float()
