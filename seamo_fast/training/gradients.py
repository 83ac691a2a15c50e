"""The gradient of the global batch, from its parts: micro-batches, and what other ranks see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seamo_fast.model.seamo import SeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.views import Views

Part = tuple[TileBatch, Views]


def backward(
    model: SeaMo,
    module: nn.Module,
    batch: TileBatch,
    views: Views,
    *,
    fusion: bool,
    accumulate: int,
    autocast: torch.autocast,
) -> Tensor:
    """Adds the gradient of the global batch's loss to the parameters.

    A modality's loss is a mean over the measured hidden patches of the global batch, of which
    the parts have different numbers. So each part's mean is weighted with its share of them.

    Args:
        model: The model.
        module: What is called, see `parallel.replicate`.
        batch: This rank's samples, on the model's device.
        views: Of these samples.
        fusion: Run the TM fusion.
        accumulate: Micro-batches, one after the other.
        autocast: Context of the forward pass.

    Returns:
        What this rank adds to the loss of each modality, float32 [M]; the sum over ranks is the
        loss of the global batch.
    """
    parts = list(zip(batch.split(accumulate), views.split(accumulate), strict=True))
    losses = []
    for number, (part, share) in enumerate(zip(parts, _shares(model, parts), strict=True)):
        with sharding.gradient_sync(module, number + 1 == len(parts)):
            with autocast:
                found = module(*part, fusion=fusion)
            weighted = torch.stack(list(found.by_modality.values())) * share
            weighted.sum().backward()
        losses.append(weighted.detach())
    return torch.stack(losses).sum(0) / ranks.world()


def _shares(model: SeaMo, parts: Sequence[Part]) -> Tensor:
    """Returns the weight of each part's losses, float32 [parts, M]; 1 if it is the whole batch.

    The counts must be known before the first backward pass, so the targets are gathered once more.
    That is the smaller cost: to keep them all would take as much memory as half the tiles.
    """
    if len(parts) == 1 and ranks.world() == 1:
        return torch.ones(1, len(parts[0][0].modalities), device=parts[0][0].valid.device)
    counts = torch.stack([model.count(*part) for part in parts])
    everywhere = ranks.total(counts.sum(0))
    # ranks average their gradients, hence the number of ranks
    return (ranks.world() * counts / everywhere.clamp(min=1)).float()
