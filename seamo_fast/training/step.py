"""The one training step: what a run does, and so what profiles and benchmarks measure."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.model.flops import forward_flops
from seamo_fast.tiles import TileBatch
from seamo_fast.training import gradients, optimizer, precision
from seamo_fast.training.config import OptimConfig, PretrainConfig
from seamo_fast.training.gradients import Count, Phase
from seamo_fast.training.schedule import Stage
from seamo_fast.views import Views

_BACKWARD: Final = 2  # times the FLOPs of the forward pass


class StepResult(NamedTuple):
    """What a step found, on the device.

    Attributes:
        losses: float32 [M], what this rank adds to the loss of each modality.
        counts: int64 [M], over how many patches, of all ranks, each of these losses is a mean.
        norm: Of the gradient before clipping, a scalar; not finite if the step was skipped.
    """

    losses: Tensor
    counts: Tensor
    norm: Tensor


class TrainingStep:
    """Transfer, gradient of the batch, clipping, AdamW.

    Args:
        model: On its device, sharded and compiled; its parameters are trained.
        count: See `SeaMo.count`; a model that is not SeaMo itself has it from one.
        config: The settings `optim`.
        device: Where the model is.
        dtype: Of matrix products.

    Attributes:
        optimizer: Of the model's parameters, with their state.
    """

    def __init__(
        self,
        model: nn.Module,
        count: Count,
        config: OptimConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.optimizer = optimizer.build(model, config)
        self._model = model
        self._count = count
        self._config = config
        self._device = device
        self._autocast = precision.autocast(device, dtype)

    def __call__(
        self,
        module: nn.Module,
        batch: TileBatch,
        views: Views,
        *,
        fusion: bool,
        lr: float,
        phase: Phase = nullcontext,
    ) -> StepResult:
        """Trains on a batch; the host does not wait for the device.

        Args:
            module: What is called for the model, see `sharding.replicate`.
            batch: This rank's samples.
            views: Of these samples.
            fusion: Run the TM fusion.
            lr: Learning rate.
            phase: Opened around each phase with its name: "transfer", those of
                `gradients.backward`, "optimizer".
        """
        with phase("transfer"):
            batch = batch.to(self._device, non_blocking=True)
            views = views.to(self._device, non_blocking=True)
        parts = self._config.accumulate
        losses, counts = gradients.backward(
            module,
            self._count,
            list(zip(batch.split(parts), views.split(parts), strict=True)),
            fusion=fusion,
            autocast=self._autocast,
            phase=phase,
        )
        with phase("optimizer"):
            norm = optimizer.apply(self.optimizer, self._model, lr, self._config.clip)
        return StepResult(losses, counts, norm)


def step_flops(config: PretrainConfig, shards: ShardSet, stage: Stage) -> int:
    """Returns the model FLOPs of one sample's training step."""
    forward = forward_flops(
        config.model,
        shards.select(stage.modalities),
        stage.seasons,
        config.views,
        stage.fusion,
    )
    return (1 + _BACKWARD) * forward
