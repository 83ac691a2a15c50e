"""Which labels a probe may see: a share of them, or a few of each class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seamo_fast.randomness import generator


def share_of(labels: Tensor, share: float, seed: int, part: str) -> Tensor:
    """Returns the numbers, ascending, of a share of the items: within each class, at least one.

    Args:
        labels: int64 [n]; of flags [n, classes] the share is of all items alike.
        share: In (0, 1].
        seed: Of the draw.
        part: Name of the part, so that parts draw independently.
    """
    if share == 1:
        return torch.arange(len(labels))
    strata = labels if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.int64)
    found = []
    for label in strata.unique().tolist():
        members = (strata == label).nonzero()[:, 0]
        count = max(1, round(share * len(members)))
        found.append(_draw(members, count, generator(seed, "share", part, label)))
    return torch.cat(found).sort().values


def few_of_each(labels: Tensor, classes: int, k: int, seed: int, part: str, draw: int) -> Tensor:
    """Returns the numbers, ascending, of k items of each class, or of all that it has.

    Args:
        labels: int64 [n], or flags [n, classes], of which an item counts for each of its classes.
        classes: Number of classes.
        k: Items a class.
        seed: Of the draws.
        part: Name of the part.
        draw: Number of the draw.
    """
    found = []
    for label in range(classes):
        flags = labels == label if labels.ndim == 1 else labels[:, label] > 0
        members = flags.nonzero()[:, 0]
        found.append(_draw(members, k, generator(seed, "few", part, draw, label)))
    return torch.cat(found).unique()


def _draw(members: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    # one order for all counts, so that five of a class include the one
    return members[torch.from_numpy(rng.random(len(members)).argsort(kind="stable")[:count])]
