"""A step of finetuning: the gradient of the global batch, clipping, AdamW.

Sizes: L terms of a loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seamo_fast.randomness import generator
from seamo_fast.tasks.finetuning.batches import Batch
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.losses import Loss, mean_loss
from seamo_fast.tasks.finetuning.methods import drop_path, parameter_groups
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.training import optimizer
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.precision import autocast


class StepResult(NamedTuple):
    """What a step found, on the device.

    Attributes:
        total: float32 [L], this rank's sums of the loss.
        weight: float32 [L], what they are divided by, of this rank alone.
        norm: Of the gradient before clipping, a scalar; not finite if the step was skipped.
    """

    total: Tensor
    weight: Tensor
    norm: Tensor


class Step:
    """Trains a model on batches; the host does not wait for the device.

    Attributes:
        optimizer: AdamW over what trains.

    Args:
        model: On its device, after `choose_parameters`.
        loss: What is minimised.
        config: Settings.
        dtype: Of matrix products.
    """

    def __init__(
        self, model: TaskModel, loss: Loss, config: FinetuneConfig, dtype: torch.dtype
    ) -> None:
        groups = parameter_groups(
            model.backbone, model.head, config.layer_decay, config.weight_decay
        )
        self.optimizer = torch.optim.AdamW(groups, lr=config.blr, fused=True)
        self._model = model
        self._module = sharding.replicate(model, _leaves_out(model))
        self._loss = loss
        self._config = config
        self._device = next(model.parameters()).device
        self._autocast = autocast(self._device, dtype)

    def __call__(self, batch: Batch, number: int, lr: float) -> StepResult:
        """Trains on a batch.

        Args:
            batch: This rank's windows, maybe none.
            number: Of the step in the run, which with the seed and the items decides what is
                dropped.
            lr: Learning rate.
        """
        self._model.train()
        parts = [
            batch.split(part, self._config.accumulate) for part in range(self._config.accumulate)
        ]
        ready = [(inputs_of(part, self._device), self._scales(part, number)) for part in parts]
        weight = torch.stack([self._loss.weight(each.target) for each, _ in ready]).sum(0)
        everywhere = ranks.total(weight)
        totals = []
        for at, (each, scales) in enumerate(ready):
            with sharding.gradient_sync(self._module, at + 1 == len(parts)):
                with self._autocast:
                    logits = self._module(each.images, each.dates, each.valid, scales)
                total, _ = self._loss(logits, each.target)
                # ranks average their gradients, hence the number of ranks
                (ranks.world() * mean_loss(total, everywhere)).backward()
            totals.append(total.detach())
        norm = optimizer.apply(self.optimizer, self._model, lr, self._config.clip)
        return StepResult(torch.stack(totals).sum(0), weight, norm)

    def _scales(self, part: Batch, number: int) -> Tensor | None:
        seed, rate = self._config.seed, self._config.drop_path
        draws = (generator(seed, "finetune", "drop", number, n) for n in part.numbers.tolist())
        found = drop_path(self._model.backbone, rate, draws) if len(part) else None
        return None if found is None else found.to(self._device, non_blocking=True)


def _leaves_out(model: TaskModel) -> bool:
    """Returns whether parameters get no gradient: fusion carries nothing from season to season."""
    fusion, alone = model.backbone.fusion, model.seasons == 1 or model.task == "change"
    return fusion is not None and model.backbone.config.fusion == "cascade" and alone


class Ready(NamedTuple):
    """A batch on the device; `valid` is None where all groups exist, which takes less time."""

    images: dict[str, Tensor]
    dates: Tensor
    valid: Tensor | None
    target: Tensor


def inputs_of(batch: Batch, device: torch.device) -> Ready:
    """Moves a batch from the host to a device."""
    every = bool(batch.valid.all())
    there = batch.to(device, non_blocking=True)
    return Ready(there.images, there.dates, None if every else there.valid, there.target)
