"""One run of a finetuning: survey, model, training, the best weights, the test part, results."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from seamo_fast.errors import ConfigError
from seamo_fast.files import write_text
from seamo_fast.tasks.features.items import Items
from seamo_fast.tasks.finetuning.augment import Mixing
from seamo_fast.tasks.finetuning.batches import EvaluationBatches, TrainingBatches
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit import state as states
from seamo_fast.tasks.finetuning.fit.judge import Judge, Judged
from seamo_fast.tasks.finetuning.fit.loop import Trainer
from seamo_fast.tasks.finetuning.fit.probe import fit_head
from seamo_fast.tasks.finetuning.fit.state import State
from seamo_fast.tasks.finetuning.fit.step import Step
from seamo_fast.tasks.finetuning.losses import Loss, balanced_weights, loss_function
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.prepare import Start, make_model
from seamo_fast.tasks.finetuning.results.write import describe, write_results
from seamo_fast.tasks.finetuning.survey import Survey, survey_training
from seamo_fast.training import model_setup, precision
from seamo_fast.training.distributed import ranks
from seamo_fast.training.recovery.checkpoint import Checkpoint
from seamo_fast.training.reporting.telemetry import Telemetry

_SMOOTHING: Final = 0.1  # that of MAE's recipe
_LOG = logging.getLogger(__name__)


def fit(config: FinetuneConfig, start: Start, folder: Path) -> dict[str, Any] | signal.Signals:
    """Trains a model, judges it on the test part once all is chosen, and writes the results.

    Args:
        config: Settings.
        start: The dataset and the weights.
        folder: The run's, locked on rank 0.

    Returns:
        What `results.json` holds, or the signal that stopped the run.

    Raises:
        SeaMoError: Settings, data, weights or the disk prevent the run.
    """
    began = time.perf_counter()
    run = Run(config, start, folder)
    chosen = run.train()
    if isinstance(chosen, signal.Signals):
        return chosen
    judged = run.judge("test")
    assert judged is not None
    results = run.describe(chosen, judged, time.perf_counter() - began)
    with ranks.raise_on_all():
        if ranks.is_main():
            write_results(folder, run.model, judged.scores, results)
    return results


class Run:
    """A run before its training, or restored from its newest checkpoint.

    Attributes:
        model: On its device.

    Args:
        config: Settings.
        start: The dataset and the weights.
        folder: The run's.
    """

    def __init__(self, config: FinetuneConfig, start: Start, folder: Path) -> None:
        self.config = config
        self.start = start
        self.folder = folder
        dataset = start.opened.dataset
        with ranks.raise_on_all():
            device = precision.choose_device(config.device)
            self.survey = survey_training(start.opened, config.on_bad, config.strict)
            self.items = Items(dataset, self.survey.seasons, config.on_bad)
            self.model = make_model(config, start, self.survey).to(device)
            self.window = self.survey.window(config.size, self.model.backbone.config)
            mixing = Mixing(dataset.task, self.survey.modalities, config.mixup, config.cutmix)
            self.loss = _loss(config, self.model, self.survey)
        described = [modality.to_dict() for modality in self.survey.modalities]
        self.identity = {**start.identity(config), "modalities": json.loads(json.dumps(described))}
        self.found = None if self.closed_form else states.find(folder, self.identity)
        self.precision = self.found.record["precision"] if self.found else config.precision
        self.dtype = precision.choose_dtype(self.precision, device)
        model_setup.compile_model(self.model, config.compile, device)

    @property
    def closed_form(self) -> bool:
        """Whether the head is fitted in closed form."""
        return self.config.method == "linear" and not self.model.dense

    def judge(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Judged | None:
        """Judges a part, see `Judge`."""
        most = self.config.batch_size
        judge = Judge(self.model, self.judging, self.window, most, self.dtype)
        return judge(self.part(part), stopped)
