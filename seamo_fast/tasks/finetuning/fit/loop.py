"""The loop of a finetuning: epochs of steps, validation after each, the best one kept."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from seamo_fast.errors import CheckpointError
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.batches import Batch
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit.judge import Judged
from seamo_fast.tasks.finetuning.fit.meter import Meter, summary
from seamo_fast.tasks.finetuning.fit.state import State
from seamo_fast.tasks.finetuning.fit.step import Step
from seamo_fast.tasks.finetuning.losses import mean_loss
from seamo_fast.tasks.finetuning.results.folder import OTHER
from seamo_fast.tasks.finetuning.results.write import finite
from seamo_fast.tasks.finetuning.scores import CHOSEN
from seamo_fast.tasks.finetuning.windows import TrainingBatches
from seamo_fast.training import schedule
from seamo_fast.training.distributed import ranks
from seamo_fast.training.recovery.nonfinite import NonFiniteGuard
from seamo_fast.training.recovery.stop_signals import StopRequest
from seamo_fast.training.reporting.telemetry import Telemetry

Validate = Callable[[Callable[[], bool]], Judged | None]
_SETTINGS: Final = ("blr", "clip", "precision")


class Trainer:
    """Trains the steps that are left; every rank takes the same decisions.

    Args:
        config: Settings.
        state: The run, before its first or next step.
        step: What trains on a batch.
        train: The training windows.
        validate: Judges the validation part; asks its argument whether to stop, and then gives
            None.
        telemetry: Reports the run; None on other ranks than 0.
        precision: `fp32` or `bf16`.

    Raises:
        CheckpointError: The run was resumed from one whose epochs do not fit its step.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        state: State,
        step: Step,
        train: TrainingBatches,
        validate: Validate,
        telemetry: Telemetry | None,
        precision: str,
    ) -> None:
        self.config = config
        self.state = state
        self.telemetry = telemetry
        self._step = step
        self._train = train
        self._task: Task = train.items.dataset.task
        self._validate = validate
        self._precision = precision
        self._guard = NonFiniteGuard(config.max_nonfinite, state.skipped, _SETTINGS)
        self._stop = StopRequest()
        self._signal: signal.Signals | None = None
        self._total = config.epochs * train.steps
        self._meter = Meter()
        self._lr: float | None = None  # of the last step
        begun, done = state.step // train.steps, len(state.epochs)
        if done not in (begun, (state.step - 1) // train.steps):
            raise CheckpointError(
                f"the checkpoint of step {state.step} has {done} epochs of {train.steps} steps; "
                f"take an earlier one, {OTHER}"
            )

    @property
    def finished(self) -> bool:
        """Whether all epochs are validated, or none has been better for too long."""
        epochs, best = self.state.epochs, self.state.best
        waited = 0 if best is None else len(epochs) - best["epoch"]
        patience = self.config.patience
        return len(epochs) >= self.config.epochs or (patience is not None and waited >= patience)

    def train(self) -> signal.Signals | None:
        """Returns the signal that stopped the run before its end, None if it is finished.

        Raises:
            SeaMoError: Too many steps in a row had no finite gradient, the data cannot be used, or
                the disk is full.
        """
        state = self.state
        with state.writer, self._stop, closing(self._train.batches(state.step)) as batches:
            while not self.finished and not self._signal:
                if state.step == (len(state.epochs) + 1) * self._train.steps:
                    self._end_epoch()
                else:
                    self._train_step(batches)
            if self._signal and state.saved != state.step:
                self._save()
            with ranks.raise_on_all():
                state.writer.wait()
        return None if self.finished else self._signal

    def _train_step(self, batches: Iterator[Batch]) -> None:
        state, config = self.state, self.config
        with self._meter.wait(), ranks.raise_on_all():
            state.writer.check()
            batch = next(batches)
        self._lr = schedule.learning_rate(
            state.step, self._total, config.schedule, config.batch_size
        )
        found = self._step(batch, state.step, self._lr)
        state.step += 1
        self._guard.add(state.step, found.norm, batch.numbers)
        state.sums += self._meter.add(found, len(batch))
        if self.telemetry is not None:
            self.telemetry.advance()
        if state.step % self._train.steps:  # the last step of an epoch is reported with its figures
            if state.step % config.log_every == 0:
                self._report(self._measured())
            if state.step % config.checkpoint_every == 0:
                self._save()
        self._signal = self._stop.agree()

    def say(self, message: str) -> None:
        """Shows a message, on rank 0."""
        if self.telemetry is not None:
            self.telemetry.say(message)

    def _end_epoch(self) -> None:
        measured = self._measured()  # before validation, which is not training
        judged = self._validate(self._stopped)
        if judged is None:
            return
        state, number = self.state, len(self.state.epochs) + 1
        total, weight = ranks.total(state.sums)
        figures = judged.figures.values
        epoch = {
            "epoch": number,
            "loss": mean_loss(total, weight).item(),
            "val_loss": finite(judged.loss),
            **{f"val_{name}": finite(value) for name, value in figures.items()},
        }
        state.add(epoch, figures[CHOSEN[self._task]], judged.loss)
        self._report({**measured, **epoch})
        if state.saved != state.step:  # else this was stopped before validation
            self._save()
        self._meter.restart()

    def _stopped(self) -> bool:
        self._signal = self._signal or self._stop.agree()
        return self._signal is not None

    def _measured(self) -> dict[str, Any]:
        self._guard.check()
        return {
            **self._meter.flush(self.state.sums.device),
            "lr": self._lr,
            "skipped": self._guard.skipped,
        }

    def _report(self, metrics: Mapping[str, Any]) -> None:
        if self.telemetry is None:
            return
        number = -(-self.state.step // self._train.steps)
        line = {"step": self.state.step, "epoch": number, **metrics, "time": time.time()}
        part = f"epoch {number}/{self.config.epochs}"
        self.telemetry.report(line, part, summary(line))

    def _save(self) -> None:
        with ranks.raise_on_all():
            if self.telemetry is not None:
                self.telemetry.sync()
        self._guard.check()
        self.state.skipped = self._guard.skipped
        self.state.save(self._precision)
