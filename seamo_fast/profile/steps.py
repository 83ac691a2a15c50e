"""Training steps of a run's last stage, without checkpoints, metrics and figures around them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor, nn

from seamo_fast.model.seamo import SeaMo
from seamo_fast.training import batches, model_setup, precision, schedule
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.gradients import Phase
from seamo_fast.training.reporting import targets
from seamo_fast.training.step import TrainingStep


def _itself(model: SeaMo) -> nn.Module:
    return model


class ProfiledSteps:
    """The steps of a run's last stage, from its first.

    Args:
        config: The run's settings.
        total: Steps over which the learning rate falls.
        replace: Returns the model to train, given ours with its initial weights.
        phase: Opened with its name around each phase: "data", and those of `TrainingStep`.

    Attributes:
        shards: Where the samples come from.
        stage: The last stage.
        device: Where the model runs.
        dtype: Of matrix products.
        model: What is trained, compiled if the settings say so.

    Raises:
        DataError: No sample has anything to predict.
    """

    def __init__(
        self,
        config: PretrainConfig,
        total: int,
        replace: Callable[[SeaMo], nn.Module] = _itself,
        phase: Phase = nullcontext,
    ) -> None:
        self._config = config
        self._total = total
        self._phase = phase
        self._number = 0
        self.shards = batches.open_shards(config.data.path)
        plan = batches.make_plan(config, self.shards)
        targets.without_targets(config, self.shards, plan)  # raises where there are none at all
        self.stage = plan.stages[-1]
        self.device = precision.choose_device(config.run.device)
        self.dtype = precision.choose_dtype(config.run.precision, self.device)
        ours = model_setup.make_model(config, self.shards, plan).to(self.device)
        model_setup.prepare_model(ours, config.run, self.device)
        self.model = replace(ours).to(self.device)
        self._train = TrainingStep(self.model, ours.count, config.optim, self.device, self.dtype)
        loader = batches.make_loader(config, self.shards, self.stage)
        self._batches = batches.with_views(config, loader, self.stage.number)

    def step(self) -> Tensor:
        """Trains one step; returns its loss, a scalar on the device."""
        optim, size = self._config.optim, self._config.data.batch_size
        lr = schedule.learning_rate(self._number, self._total, optim, size)
        self._number += 1
        with self._phase("data"):
            batch, views = next(self._batches)
        found = self._train(
            self.model, batch, views, fusion=self.stage.fusion, lr=lr, phase=self._phase
        )
        return found.losses.sum()
