"""Which items of the test part are shown."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seamo_fast.tasks.datasets.reading.base import DENSE, Task


def choose_examples(task: Task, predictions: Mapping[str, Tensor], most: int = 8) -> list[int]:
    """Returns the numbers of items to show: first others, then the worst, worst last.

    The worst are wrong with the highest probability (classes, flags), or have the largest share of
    wrong pixels; they are half of all, or less if there are not so many. The others are right, or
    masks from good to bad.

    Args:
        task: What is predicted.
        predictions: See `Figures`.
        most: How many.
    """
    if task in DENSE:
        confusion = predictions["confusion"].double()
        pixels = confusion.sum(dim=(1, 2))
        badness = 1 - confusion.diagonal(dim1=1, dim2=2).sum(dim=1) / pixels
        badness = badness.nan_to_num(-1)  # without labels
    else:
        logits, target = predictions["logits"].double(), predictions["target"]
        if task == "classes":
            sure, predicted = logits.softmax(dim=1).max(dim=1)
            badness = torch.where(predicted == target, 0, sure)
        else:
            wrong = (logits > 0) != target.bool()
            badness = (logits.abs().sigmoid() * wrong).amax(dim=1)
    order = badness.argsort(stable=True)
    order = order[badness[order] >= 0]
    worst = order[badness[order] > 0][-(most // 2) :]
    others = order[: len(order) - len(worst)]
    if task in ("classes", "multilabel") and (badness == 0).any():
        others = order[badness[order] == 0]
    count = min(most - len(worst), len(others))
    picked = torch.arange(count) * (len(others) - 1) // max(count - 1, 1)
    return predictions["numbers"][torch.cat([others[picked], worst])].tolist()
