"""A linear head in closed form: logistic regression on frozen pooled features."""

from __future__ import annotations

import torch
from torch import Tensor

from seamo_fast.cli import progress_bar
from seamo_fast.errors import DataError
from seamo_fast.tasks.finetuning.batches import EvaluationBatches
from seamo_fast.tasks.finetuning.fit.step import inputs_of
from seamo_fast.tasks.finetuning.heads import LinearHead
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.probes.linear import fit_probe
from seamo_fast.training.precision import autocast


def fit_head(
    model: TaskModel, train: EvaluationBatches, val: EvaluationBatches, dtype: torch.dtype
) -> dict[str, float]:
    """Fits the head's last layer, see `fit_probe`; everything else stays as it is.

    Args:
        model: On its device, with a linear head on pooled features.
        train: All training items.
        val: All validation items.
        dtype: Of matrix products.

    Returns:
        What validation chose.

    Raises:
        DataError: The items cannot be read.
    """
    head = model.head
    assert isinstance(head, LinearHead)
    parts = [_features(model, head, batches, dtype) for batches in (train, val)]
    probe = fit_probe(parts[0], parts[1], len(model.classes))
    with torch.no_grad():
        head.linear.weight.copy_(probe.weight)
        head.linear.bias.copy_(probe.bias)
    return probe.chosen


@torch.no_grad()
def _features(
    model: TaskModel, head: LinearHead, batches: EvaluationBatches, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the features [n, D] and targets of a part, on the host."""
    device = head.linear.weight.device
    model.eval()
    features, targets = [], []
    with progress_bar(0) as bar:
        bar.set_description("features")
        for batch in batches:
            ready = inputs_of(batch, device)
            with autocast(device, dtype):
                found = head.pool(model.features(ready.images, ready.dates, ready.valid))
            features.append(found.float().cpu())
            targets.append(batch.target)
            bar.update(len(batch))
    if not features:
        raise DataError("no item of the training or validation part can be read")
    return torch.cat(features), torch.cat(targets)
