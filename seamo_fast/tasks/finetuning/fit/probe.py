"""A linear head without a loop: logistic regression on frozen pooled features of all seasons.

Sizes: B items, T seasons, M modalities, D width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamo_fast.errors import DataError
from seamo_fast.tasks.finetuning.batches import EvaluationBatches
from seamo_fast.tasks.finetuning.fit.step import inputs_of
from seamo_fast.tasks.finetuning.heads import Features, LinearHead
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.probes.linear import Probe, fit_probe
from seamo_fast.training.precision import autocast


def fit_head(
    model: TaskModel, train: EvaluationBatches, val: EvaluationBatches, dtype: torch.dtype
) -> dict[str, float]:
    """Fits the head, see `fit_probe`; the backbone stays as it is.

    The features of the seasons lie side by side, as in `evaluate`, each the sum over modalities of
    the tokens' means, over the number of an item's groups. With more classes than D, they are
    summed over seasons.

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
    apart = model.seasons > 1 and len(model.classes) <= model.backbone.embed_dim
    parts = [_features(model, batches, apart, dtype) for batches in (train, val)]
    probe = fit_probe(parts[0], parts[1], len(model.classes))
    (_write_seasons if apart else _write)(head, probe)
    return probe.chosen


@torch.no_grad()
def _write(head: LinearHead, probe: Probe) -> None:
    head.linear.weight.copy_(probe.weight)
    head.linear.bias.copy_(probe.bias)


@torch.no_grad()
def _write_seasons(head: LinearHead, probe: Probe) -> None:
    """Lets the merging of groups make the logits, which the last layer only adds a bias to."""
    assert head.merge.groups is not None
    classes, width = head.linear.weight.shape
    nn.init.eye_(head.linear.weight)
    head.linear.bias.copy_(probe.bias)
    # [D, T, M, D]; the merging adds what it multiplies
    groups = head.merge.groups.weight.view(width, probe.weight.shape[1] // width, -1, width)
    groups.copy_(-torch.eye(width)[:, None, None])
    groups[:classes] += probe.weight.view(classes, -1, 1, width).to(groups)


@torch.no_grad()
def _features(
    model: TaskModel, batches: EvaluationBatches, apart: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the features [n, T * D] or [n, D] and targets of a part, on the host."""
    device = next(model.parameters()).device
    model.eval()
    features, targets = [], []
    for batch in batches:
        ready = inputs_of(batch, device)
        with autocast(device, dtype):
            found = _pooled(model.features(ready.images, ready.dates, ready.valid))
        features.append((found if apart else found.sum(dim=1)).flatten(1).float().cpu())
        targets.append(batch.target)
    if not features:
        raise DataError("no item of the training or validation part can be read")
    return torch.cat(features), torch.cat(targets)


def _pooled(features: Features) -> Tensor:
    """Returns [B, T, D], see `fit_head`."""
    x = features.levels[-1].mean(dim=3)
    if features.valid is None:
        return x.sum(dim=2) / (x.shape[1] * x.shape[2])
    count = features.valid.sum(dim=(1, 2)).clamp(min=1)
    return torch.where(features.valid[..., None], x, 0).sum(dim=2) / count[:, None, None]
