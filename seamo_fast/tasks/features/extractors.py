"""What turns images into frozen features: a backbone, and what it must beat.

Sizes: B items, T seasons, M modalities, C bands, N patches, p side of a patch, D width of
tokens or features.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from seamo_fast.errors import DataError
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.inputs import mean_over_groups
from seamo_fast.tasks.datasets.reading.base import DENSE, Task
from seamo_fast.tasks.features.inputs import Inputs
from seamo_fast.training.precision import autocast

_TOKENS_AT_ONCE: Final = 2**14
Draw = Callable[[int], Iterator[Inputs]]
Pooling = Literal["seasons", "mean"]


class Extractor(ABC):
    """Turns items into features.

    Of classes and flags there is one vector an item, of masks one a patch. Of a change it is the
    absolute difference of the two dates' (Siamese features).

    Attributes:
        task: What is to be predicted.
        patch: p.
    """

    def __init__(self, task: Task, patch: int) -> None:
        self.task = task
        self.patch = patch

    @property
    def dense(self) -> bool:
        """Whether there is a vector for each patch."""
        return self.task in DENSE

    @property
    def keeps_seasons(self) -> bool:
        """Whether features of seasons lie side by side, so that items must agree in T."""
        return True

    @property
    @abstractmethod
    def key(self) -> dict[str, Any]:
        """All that the features depend on besides the dataset, JSON-able."""

    def prepare(self, draw: Draw) -> None:  # noqa: B027 (most learn nothing)
        """Learns what is learned without labels; called before the first image.

        Args:
            draw: Gives so many training items, drawn by a fixed rule.
        """

    def __call__(self, inputs: Inputs) -> Tensor:
        """Returns float32 features, [B, D], or [B, D, ceil(H / p), ceil(W / p)] of masks.

        Raises:
            DataError: A change has not two dates.
        """
        found = [self._features(each) for each in self.views(inputs.padded(self.patch))]
        return found[0] if len(found) == 1 else (found[1] - found[0]).abs()

    def views(self, inputs: Inputs) -> list[Inputs]:
        """Returns what features are taken of at once: the items, or each date of a change."""
        if self.task != "change":
            return [inputs]
        seasons = inputs.valid.shape[1]
        if seasons != 2:
            raise DataError(f"a change needs images of two dates, but there are {seasons}")
        return [inputs.season(0), inputs.season(1)]

    @abstractmethod
    def _features(self, inputs: Inputs) -> Tensor:
        """Returns what `__call__` does, of padded images."""


class BackboneFeatures(Extractor):
    """Pooled features or the feature map of a frozen backbone.

    Those of seasons lie side by side, [B, T * D] or [B, T * D, h, w], each the mean over the valid
    modalities of its season (zeros without any), and over patches where an item has one label.

    Images larger than those of pretraining are cut into windows of that size where a map is
    wanted, so that its positions are those that were trained.

    Args:
        backbone: On its device; its output must be "tokens".
        channels: For each modality of the dataset that the backbone takes, the name it has there
            and the channels, in the order in which the backbone takes them.
        task: See `Extractor`.
        dtype: Of matrix products.
        pooling: "mean" takes the mean over seasons too, as the backbone itself does.
    """

    def __init__(
        self,
        backbone: SeaMoBackbone,
        channels: Mapping[str, tuple[str, Sequence[int]]],
        task: Task,
        dtype: torch.dtype = torch.float32,
        pooling: Pooling = "seasons",
    ) -> None:
        super().__init__(task, backbone.patch_size)
        self.backbone = backbone.eval()
        self.channels = {name: (known, list(each)) for name, (known, each) in channels.items()}
        self.dtype = dtype
        self.pooling = pooling
        self._digest = digest(backbone)

    @property
    def keeps_seasons(self) -> bool:
        """See `Extractor`."""
        return self.pooling == "seasons"

    @property
    def key(self) -> dict[str, Any]:
        """See `Extractor`."""
        return {
            "weights": self._digest,
            "config": asdict(self.backbone.config),
            "modalities": [modality.to_dict() for modality in self.backbone.modalities],
            "channels": self.channels,
            "task": self.task,
            "pooling": self.pooling,
            "dtype": str(self.dtype),
            "device": self.backbone.table.device.type,
        }

    def _features(self, inputs: Inputs) -> Tensor:
        if not self.dense:
            return self._run(inputs)
        side = self.backbone.config.image_size
        p, (height, width) = self.patch, inputs.size
        seasons = inputs.valid.shape[1] if self.keeps_seasons else 1
        depth = seasons * self.backbone.embed_dim
        found = torch.empty(len(inputs), depth, height // p, width // p)
        for top in starts(height, side):
            for left in starts(width, side):
                rows, columns = min(side, height), min(side, width)
                part = self._run(inputs.window(top, left, rows, columns))
                found[:, :, top // p :, left // p :][..., : rows // p, : columns // p] = part
        return found

    @torch.no_grad()
    def _run(self, inputs: Inputs) -> Tensor:
        device = self.backbone.table.device
        groups = [list(inputs.images).index(name) for name in self.channels]
        grid = tuple(side // self.patch for side in inputs.size)
        an_item = inputs.valid.shape[1] * len(groups) * math.prod(grid)
        parts = []
        for rows in torch.arange(len(inputs)).split(max(1, _TOKENS_AT_ONCE // an_item)):
            images = {
                known: inputs.images[name][rows][:, :, channels].to(device)
                for name, (known, channels) in self.channels.items()
            }
            valid, dates = (each[rows][:, :, groups] for each in (inputs.valid, inputs.dates))
            with autocast(device, self.dtype):
                present = None if valid.all() else valid.to(device)
                tokens = self.backbone(images, dates.to(device), present)
                found = self._pooled(tokens, present, grid)
            parts.append(found.float().cpu())
        return torch.cat(parts)

    def _pooled(self, tokens: Tensor, valid: Tensor | None, grid: tuple[int, ...]) -> Tensor:
        """Returns what `_features` does, of tokens [B, T, M, N, D] and groups [B, T, M]."""
        items = len(tokens)
        if self.keeps_seasons:  # each season as if it was an item
            tokens = tokens.flatten(0, 1)[:, None]
            valid = None if valid is None else valid.flatten(0, 1)[:, None]
        features = mean_over_groups(tokens, valid).unflatten(0, (items, -1))  # [B, T or 1, N, D]
        if not self.dense:
            return features.mean(dim=2).flatten(1)
        return features.mT.flatten(1, 2).unflatten(2, grid)


def starts(length: int, side: int) -> list[int]:
    """Returns where windows of a side begin that cover a length; the last ends where it ends."""
    return sorted({min(start, max(length - side, 0)) for start in range(0, length, side)})


def digest(module: nn.Module) -> str:
    """Returns the SHA-256 of the names and values of a module's parameters."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
