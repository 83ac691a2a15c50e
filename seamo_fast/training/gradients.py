"""The gradient of the global batch, from its parts: micro-batches, and what other ranks see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from seamo_fast.tiles import TileBatch
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.views import Views

Part = tuple[TileBatch, Views]
Count = Callable[[TileBatch, Views], Tensor]
Phase = Callable[[str], AbstractContextManager[object]]


def backward(
    module: nn.Module,
    count: Count,
    parts: Sequence[Part],
    *,
    fusion: bool,
    autocast: torch.autocast,
    phase: Phase,
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of the global batch's loss to the parameters.

    A modality's loss is a mean over the measured hidden patches of the global batch, of which
    the parts have different numbers. So each part's mean is weighted with its share of them.

    Args:
        module: What is called, see `sharding.replicate`; returns what `SeaMo` does if `counted`.
        count: See `SeaMo.count`.
        parts: This rank's samples on the module's device, as micro-batches one after the other.
        fusion: Run the TM fusion.
        autocast: Context of the forward pass.
        phase: Opened with its name around each of "count" (where there are several parts or
            ranks), "forward" and "backward".

    Returns:
        What this rank adds to the loss of each modality, float32 [M]; the sum over ranks is the
        loss of the global batch. And over how many of its patches that is the mean, int64 [M].
    """
    shares, counts = _shares(count, parts, phase)
    losses = []
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        with sharding.gradient_sync(module, number + 1 == len(parts)):
            with phase("forward"):
                with autocast:
                    _, by_modality, *own = module(*part, fusion=fusion, counted=counts is None)
                weighted = torch.stack(list(by_modality.values())) * share
            with phase("backward"):
                weighted.sum().backward()
        losses.append(weighted.detach())
    # one part of one rank has counted while it computed its loss
    return torch.stack(losses).sum(0) / ranks.world(), own[0] if counts is None else counts


def _shares(count: Count, parts: Sequence[Part], phase: Phase) -> tuple[Tensor, Tensor | None]:
    """Returns the weight of each part's losses, float32 [parts, M]; 1 if it is the whole batch.

    And the patches of the global batch, int64 [M]; None if the one part is it.

    The counts must be known before the first backward pass, so the targets are gathered once more.
    That is the smaller cost: to keep them all would take as much memory as half the tiles.
    """
    if len(parts) == 1 and ranks.world() == 1:
        batch = parts[0][0]
        return torch.ones(1, len(batch.modalities), device=batch.valid.device), None
    with phase("count"):
        counts = torch.stack([count(*part) for part in parts])
        everywhere = ranks.total(counts.sum(0))
        # ranks average their gradients, hence the number of ranks
        return (ranks.world() * counts / everywhere.clamp(min=1)).float(), everywhere
