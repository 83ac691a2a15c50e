"""What all heads share: what they take, the merge of groups, and where last layers start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from seamo_fast.model.layers import init_weights

HeadName = Literal["linear", "attention", "fpn"]


class Features(NamedTuple):
    """What a head takes.

    Attributes:
        levels: Tokens of all groups [B, T, M, N, D]: after each block of `Head.indices`, and last
            those after all blocks and fusion.
        valid: bool [B, T, M], groups that exist; None if all do.
        grid: h and w.
    """

    levels: Sequence[Tensor]
    valid: Tensor | None
    grid: tuple[int, int]


class Merge(nn.Module):
    """Makes one of all groups: their mean, and what a matrix of each group adds to it.

    The mean over valid groups of x + A x, where the matrix A of each group starts at 0. So it
    starts as the exact mean, weight decay draws it there, and with one group nothing is learned.

    Args:
        groups: T * M.
        width: D.
        out: Width of the result, reached by one linear layer on the mean; None for D without one.
    """

    def __init__(self, groups: int, width: int, out: int | None = None) -> None:
        super().__init__()
        self.mean = nn.Identity() if out is None else nn.Linear(width, out)
        self.groups = nn.Linear(groups * width, out or width, bias=False) if groups > 1 else None
        init_weights(self)
        if self.groups is not None:
            nn.init.zeros_(self.groups.weight)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Returns [B, ..., out] for x [B, T, M, ..., D]; 0 is the mean without any valid group.

        Args:
            x: Features of each group.
            valid: bool [B, T, M]; None if all groups exist.
        """
        count: int | Tensor = x.shape[1] * x.shape[2]
        if valid is not None:
            ones = [1] * (x.ndim - 3)
            x = torch.where(valid.view(*valid.shape, *ones), x, 0)
            count = valid.sum(dim=(1, 2)).clamp(min=1).view(-1, *ones)
        merged = self.mean(x.sum(dim=(1, 2)) / count)
        if self.groups is not None:
            merged = merged + self.groups(x.movedim((1, 2), (-3, -2)).flatten(-3)) / count
        return merged


class Head(nn.Module, ABC):
    """Turns features into logits.

    Attributes:
        name: Of the head.
        indices: Encoder blocks whose tokens it takes beside those at the end.
    """

    name: HeadName
    indices: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K], or a map of them [B, K, rows, columns] of any resolution."""


def output_layer(layer: nn.Linear) -> nn.Linear:
    """Starts a last layer at almost equal logits, as MAE does for finetuning."""
    nn.init.trunc_normal_(layer.weight, std=2e-5)
    nn.init.zeros_(layer.bias)
    return layer


def as_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns [B, D, h, w] of [B, N, D]."""
    return x.transpose(1, 2).unflatten(2, grid)
