"""What turns the tokens of groups into logits: linear, attention and FPN heads.

Sizes: B items, T seasons, M modalities, N patches in h rows and w columns, D width, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamo_fast.errors import ConfigError
from seamo_fast.model.layers import init_weights
from seamo_fast.tasks.datasets.reading.base import Task

HeadName = Literal["linear", "attention", "fpn"]
TASKS: Final[dict[HeadName, tuple[Task, ...]]] = {
    "linear": get_args(Task),
    "attention": ("classes", "multilabel"),
    "fpn": ("mask", "change"),
}
_HEAD_WIDTH: Final = 64  # of an attention head
_FPN_WIDTH: Final = 128
_NORM_GROUPS: Final = 8


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
        self.linear = _output(nn.Linear(width, classes))

    def pool(self, features: Features) -> Tensor:
        """Returns what the linear layer takes: [B, D], of each patch [B, N, D]."""
        last = features.levels[-1]
        return self.merge(last if self.dense else last.mean(dim=3), features.valid)

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K] or [B, K, h, w]."""
        logits = self.linear(self.pool(features))
        return _as_map(logits, features.grid) if self.dense else logits


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
        self.linear = _output(nn.Linear(width, classes))

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K]."""
        x = self.merge(features.levels[-1], features.valid)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        q = self.query.to(k.dtype).view(1, self.heads, 1, -1).expand(len(x), -1, -1, -1)
        pooled = F.scaled_dot_product_attention(q, k, v)  # [B, heads, 1, D / heads]
        return self.linear(self.proj(pooled.flatten(1)))


class FpnHead(Head):
    """A light feature pyramid over four depths of the backbone.

    Lin et al., Feature Pyramid Networks, 2017, on a plain backbone: tokens of a quarter, a half
    and three quarters of the encoder's depth and of the end become maps of 4, 2, 1 and 1/2 times
    the patch grid (as in SETR and BEiT), which are summed from coarse to fine, smoothed, and
    summed again at the finest.

    Args:
        groups: T * M.
        width: D.
        classes: K.
        depth: Blocks of the encoder.
    """

    name = "fpn"

    def __init__(self, groups: int, width: int, classes: int, depth: int) -> None:
        super().__init__()
        self.indices = tuple(-(-depth * quarter // 4) - 1 for quarter in (1, 2, 3))
        C = _FPN_WIDTH
        self.lateral = nn.ModuleList(Merge(groups, width, C) for _ in range(4))
        self.scale = nn.ModuleList(
            (
                nn.Sequential(_twice(C), _norm(C), nn.GELU(), _twice(C)),
                _twice(C),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            )
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(C, C, 3, padding=1, bias=False), _norm(C), nn.GELU())
            for _ in range(4)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        self.output = nn.Conv2d(C, classes, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Features) -> Tensor:
        """Returns logits [B, K, 4 h, 4 w]."""
        maps = [
            scale(_as_map(lateral(level, features.valid), features.grid))
            for level, lateral, scale in zip(features.levels, self.lateral, self.scale, strict=True)
        ]
        for number in (2, 1, 0):
            maps[number] = maps[number] + _resized(maps[number + 1], maps[number])
        smoothed = [smooth(each) for smooth, each in zip(self.smooth, maps, strict=True)]
        total = smoothed[0]
        for each in smoothed[1:]:
            total = total + _resized(each, total)
        return self.output(total)


def make_head(
    name: HeadName, task: Task, groups: int, width: int, classes: int, depth: int
) -> Head:
    """Returns a new head.

    Args:
        name: `linear`, `attention` or `fpn`.
        task: What is to be predicted.
        groups: T * M; of a change M, as each date is one season.
        width: D.
        classes: K.
        depth: Blocks of the encoder.

    Raises:
        ConfigError: The head cannot answer such a task.
    """
    if task not in TASKS[name]:
        fitting = " or ".join(each for each in TASKS if task in TASKS[each])
        raise ConfigError(f"head {name} gives no {task}; expected {fitting}")
    if name == "fpn":
        return FpnHead(groups, width, classes, depth)
    if name == "attention":
        return AttentionHead(groups, width, classes)
    return LinearHead(groups, width, classes, dense=task in TASKS["fpn"])


def _output(layer: nn.Linear) -> nn.Linear:
    """Starts a last layer at almost equal logits, as MAE does for finetuning."""
    nn.init.trunc_normal_(layer.weight, std=2e-5)
    nn.init.zeros_(layer.bias)
    return layer


def _as_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns [B, D, h, w] of [B, N, D]."""
    return x.transpose(1, 2).unflatten(2, grid)


def _twice(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, 2, stride=2)


def _norm(width: int) -> nn.Module:
    """Of an image alone: neither micro-batches nor ranks nor windows change what it gives."""
    return nn.GroupNorm(_NORM_GROUPS, width)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
