"""A learned query that pools patches."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamo_fast.model.layers import init_weights
from seamo_fast.tasks.finetuning.heads.base import Features, Head, Merge, output_layer

_HEAD_WIDTH: Final = 64


class AttentionHead(Head):
    """One learned query that attends to all patches, then one linear layer.

    The pooling by attention of Lee et al., Set Transformer, 2019, and of Zhai et al., Scaling
    Vision Transformers, 2022, without its MLP.

    Args:
        groups: T * M.
        width: D.
        classes: K.
    """

    name = "attention"

    def __init__(self, groups: int, width: int, classes: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD_WIDTH)
        while width % self.heads:
            self.heads -= 1
        self.query = nn.Parameter(torch.empty(width))
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        init_weights(self)
        nn.init.trunc_normal_(self.query, std=0.02)
        self.merge = Merge(groups, width)
        self.linear = output_layer(nn.Linear(width, classes))

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K]."""
        x = self.merge(features.levels[-1], features.valid)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        q = self.query.to(k.dtype).view(1, self.heads, 1, -1).expand(len(x), -1, -1, -1)
        pooled = F.scaled_dot_product_attention(q, k, v)  # [B, heads, 1, D / heads]
        return self.linear(self.proj(pooled.flatten(1)))
