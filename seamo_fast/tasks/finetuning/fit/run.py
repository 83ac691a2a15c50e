"""One run of a finetuning: its model, data, training up to the best weights, and judging."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from seamo_fast.modalities import Modality
from seamo_fast.tasks.features.items import Items
from seamo_fast.tasks.finetuning.augment import Mixing
from seamo_fast.tasks.finetuning.batches import EvaluationBatches
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit import state as states
from seamo_fast.tasks.finetuning.fit.judge import Judge, Judged
from seamo_fast.tasks.finetuning.fit.loop import Trainer
from seamo_fast.tasks.finetuning.fit.probe import fit_head
from seamo_fast.tasks.finetuning.fit.start import Start, make_model
from seamo_fast.tasks.finetuning.fit.state import State
from seamo_fast.tasks.finetuning.fit.step import Step
from seamo_fast.tasks.finetuning.losses import Loss, balanced_weights, loss_function
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.pictures.examples import Example
from seamo_fast.tasks.finetuning.results.write import finite
from seamo_fast.tasks.finetuning.survey import Survey
from seamo_fast.tasks.finetuning.windows import TrainingBatches
from seamo_fast.training import model_setup, precision
from seamo_fast.training.config import to_dict
from seamo_fast.training.distributed import ranks
from seamo_fast.training.reporting.telemetry import Telemetry

_SMOOTHING: Final = 0.1  # that of MAE's recipe


class Run:
    """A run before its training, or restored from its newest checkpoint.

    Attributes:
        items: What is read.
        model: On its device.

    Args:
        config: Settings.
        start: The dataset and the weights.
        survey: Of the training part.
        folder: The run's.

    Raises:
        SeaMoError: Settings, data, weights or checkpoints cannot be used.
    """

    def __init__(self, config: FinetuneConfig, start: Start, survey: Survey, folder: Path) -> None:
        self._config = config
        self._opened = start.opened
        self._survey = survey
        self._folder = folder
        with ranks.raise_on_all():
            device = precision.choose_device(config.device)
            self.items = Items(self._opened.dataset, survey.seasons, config.on_bad)
            self.model = make_model(config, start, survey).to(device)
            backbone = self.model.backbone
            self._window = survey.window(
                self._opened, config.size, backbone.config.image_size, backbone.patch_size
            )
            self._loss = _loss(config, self.model, survey, _smoothing(config, self.model))
        self._identity = start.identity(config)
        self._found = states.find(folder, self._identity)
        named = config.precision if self._found is None else self._found.record["precision"]
        self._dtype = precision.choose_dtype(named, device)
        model_setup.compile_model(self.model, config.compile, device)
        plain = _loss(config, self.model, survey, 0)
        self._judge = Judge(self.model, plain, self._window, config.batch_size, self._dtype)

    @property
    def _closed_form(self) -> bool:
        return self._config.method == "linear" and not self.model.dense

    def judge(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Judged | None:
        """Judges a part, see `Judge`."""
        return self._judge(self._part(part, ranks.rank(), ranks.world()), stopped)

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """Returns items that were judged with what the model makes of them."""
        return [
            self._example(number, logits.cpu())
            for batch in self._batches(numbers, modalities=())  # their units were compared
            for number, logits in zip(
                batch.numbers.tolist(), self._judge.predict(batch), strict=True
            )
        ]

    def _example(self, number: int, logits: Tensor) -> Example:
        item = self.items.read(number)
        assert item is not None
        height, width = item.inputs.size
        return Example(
            self._opened.dataset.entries[number].id,
            {name: image[0] for name, image in item.inputs.images.items()},
            item.inputs.valid[0],
            item.inputs.dates[0],
            item.target.long(),
            logits[..., :height, :width] if self.model.dense else logits,
        )

    def _part(self, part: str, rank: int = 0, world: int = 1) -> EvaluationBatches:
        numbers = getattr(self._opened.split, part)
        return self._batches(numbers, self._survey.modalities, rank, world)

    def _batches(
        self,
        numbers: Sequence[int],
        modalities: Sequence[Modality],
        rank: int = 0,
        world: int = 1,
    ) -> EvaluationBatches:
        cropped = self._config.size is not None and not self.model.dense
        return EvaluationBatches(
            self.items,
            numbers,
            modalities,
            self.model.backbone.patch_size,
            batch_size=self._config.batch_size,
            crop=self._window if cropped else None,
            strict=self._config.strict,
            rank=rank,
            world=world,
            threads=self._config.workers,
        )

    def train(self) -> dict[str, Any] | signal.Signals:
        """Trains up to the best weights, which the model has then.

        Returns:
            What validation chose, JSON-able; or the signal that stopped the training.
        """
        if self._closed_form:
            found = fit_head(self.model, self._part("train"), self._part("val"), self._dtype)
            judged = self.judge("val")
            assert judged is not None
            figures = {f"val_{name}": finite(each) for name, each in judged.figures.values.items()}
            return {"chosen_by_validation": {**found, **figures}, "epochs": []}
        return self._train()

    def _train(self) -> dict[str, Any] | signal.Signals:
        config = self._config
        step = Step(self.model, self._loss, config, self._dtype)
        terms = len(self._loss.terms)
        state = State(self._folder, self.model, step.optimizer, terms, self._identity, self._found)
        batches = TrainingBatches(
            self.items,
            self._survey.sizes,
            self._window,
            self._mixing(),
            batch_size=config.batch_size,
            seed=config.seed,
            augment=config.augment,
            rank=ranks.rank(),
            world=ranks.world(),
            threads=config.workers,
        )
        named = "bf16" if self._dtype == torch.bfloat16 else "fp32"
        with self._telemetry(state, batches.steps) as telemetry:
            trainer = Trainer(config, state, step, batches, self._validate, telemetry, named)
            stopped = trainer.train()
            if stopped is not None:
                trainer.say(f"stopped by {stopped.name}; the same command resumes there")
                return stopped
        state.take_best()
        return {
            "chosen_by_validation": state.best,
            "epochs": state.epochs,
            "skipped_steps": state.skipped,
        }

    def _mixing(self) -> Mixing:
        config = self._config
        return Mixing(
            self._opened.dataset.task, self._survey.modalities, config.mixup, config.cutmix
        )

    def _validate(self, stopped: Callable[[], bool]) -> Judged | None:
        return self.judge("val", stopped)

    @contextmanager
    def _telemetry(self, state: State, steps: int) -> Iterator[Telemetry | None]:
        """Opens what reports the run, on rank 0; an epoch has so many steps."""
        telemetry, config = None, self._config
        unreported = state.step and state.step == (len(state.epochs) + 1) * steps
        with ranks.raise_on_all():
            if ranks.is_main():
                telemetry = Telemetry(
                    self._folder,
                    state.step - bool(unreported),
                    config.epochs * steps,
                    to_dict(config),
                    tensorboard=config.tensorboard,
                    wandb=config.wandb,
                )
        try:
            yield telemetry
        finally:
            if telemetry is not None:
                telemetry.close()


def _smoothing(config: FinetuneConfig, model: TaskModel) -> float:
    if config.label_smoothing is not None:
        return config.label_smoothing
    return _SMOOTHING if model.task == "classes" else 0.0


def _loss(config: FinetuneConfig, model: TaskModel, survey: Survey, smoothing: float) -> Loss:
    weights = None
    if config.class_weights == "balanced":
        counts = torch.tensor(survey.counts)
        if model.task == "multilabel":
            counts = torch.stack([len(survey.sizes) - counts, counts])
        weights = balanced_weights(counts).to(next(model.parameters()).device)
    return loss_function(config.loss, model.task, weights, smoothing, config.focal_gamma)
