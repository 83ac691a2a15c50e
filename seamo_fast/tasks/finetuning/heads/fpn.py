"""A light feature pyramid."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from seamo_fast.tasks.finetuning.heads.base import Features, Head, Merge, as_map

_WIDTH: Final = 128
_NORM_GROUPS: Final = 8


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
        C = _WIDTH
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
            scale(as_map(lateral(level, features.valid), features.grid))
            for level, lateral, scale in zip(features.levels, self.lateral, self.scale, strict=True)
        ]
        for number in (2, 1, 0):
            maps[number] = maps[number] + _resized(maps[number + 1], maps[number])
        smoothed = [smooth(each) for smooth, each in zip(self.smooth, maps, strict=True)]
        total = smoothed[0]
        for each in smoothed[1:]:
            total = total + _resized(each, total)
        return self.output(total)


def _twice(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, 2, stride=2)


def _norm(width: int) -> nn.Module:
    """Of an image alone: neither micro-batches nor ranks nor windows change what it gives."""
    return nn.GroupNorm(_NORM_GROUPS, width)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
