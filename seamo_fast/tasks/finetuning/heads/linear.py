"""One linear layer, for images and for patches."""

from __future__ import annotations

from torch import Tensor, nn

from seamo_fast.tasks.finetuning.heads.base import Features, Head, Merge, as_map, output_layer


class LinearHead(Head):
    """One linear layer, on pooled features or on those of each patch.

    Args:
        groups: T * M.
        width: D.
        classes: K.
        dense: Whether there is an answer for each patch.
    """

    name = "linear"

    def __init__(self, groups: int, width: int, classes: int, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.merge = Merge(groups, width)
        self.linear = output_layer(nn.Linear(width, classes))

    def pool(self, features: Features) -> Tensor:
        """Returns what the linear layer takes: [B, D], of each patch [B, N, D]."""
        last = features.levels[-1]
        return self.merge(last if self.dense else last.mean(dim=3), features.valid)

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K] or [B, K, h, w]."""
        logits = self.linear(self.pool(features))
        return as_map(logits, features.grid) if self.dense else logits
