"""Training steps of a run's settings, without checkpoints, metrics and figures around them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from seamo_fast.errors import ConfigError
from seamo_fast.model.seamo import SeaMo
from seamo_fast.training import build, optimizer, precision, schedule
from seamo_fast.training.config import PretrainConfig


def _ours(model: SeaMo) -> nn.Module:
    return model


def _nobody(phase: str) -> None:
    pass


class TrainingSteps:
    """The steps of a run's last stage, from its first.

    Args:
        config: The run's settings.
        total: Steps over which the learning rate falls.
        replace: Returns the model to train, given ours with its initial weights.
        enter: Is told the name of each phase of a step as it begins.

    Attributes:
        shards: Where the samples come from.
        stage: The last stage.
        device: Where the model runs.
        dtype: Of matrix products.
        model: What is trained, compiled if the settings say so.

    Raises:
        ConfigError: The settings cut batches into micro-batches.
    """

    def __init__(
        self,
        config: PretrainConfig,
        total: int,
        replace: Callable[[SeaMo], nn.Module] = _ours,
        enter: Callable[[str], None] = _nobody,
    ) -> None:
        if config.optim.accumulate > 1:
            raise ConfigError(
                "a step that is profiled has one micro-batch, but got optim.accumulate "
                f"{config.optim.accumulate}; set it to 1, and data.batch_size to the samples of a "
                "micro-batch"
            )
        self._config = config
        self._total = total
        self._enter = enter
        self._number = 0
        self.shards = build.open_shards(config.data.path)
        plan = build.make_plan(config, self.shards)
        self.stage = plan.stages[-1]
        self.device = precision.choose_device(config.run.device)
        self.dtype = precision.choose_dtype(config.run.precision, self.device)
        model = build.make_model(config, self.shards, plan)
        build.compile_model(model, config.run.compile, self.device)
        self.model = replace(model).to(self.device)
        self._optimizer = optimizer.build(self.model, config.optim)
        loader = build.make_loader(config, self.shards, self.stage)
        self._batches = build.with_views(config, loader, self.stage.number)

    def step(self) -> Tensor:
        """Trains one step; returns its loss, a scalar on the device."""
        optim, size = self._config.optim, self._config.data.batch_size
        lr = schedule.learning_rate(self._number, self._total, optim, size)
        self._number += 1
        self._enter("data")
        batch, views = next(self._batches)
        batch = batch.to(self.device, non_blocking=True)
        views = views.to(self.device, non_blocking=True)
        self._enter("forward")
        with precision.autocast(self.device, self.dtype):
            loss = self.model(batch, views, fusion=self.stage.fusion)[0]
        self._enter("backward")
        loss.backward()
        self._enter("optimizer")
        optimizer.apply(self._optimizer, self.model, lr, optim.clip)
        return loss.detach()
