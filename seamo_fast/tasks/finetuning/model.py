"""TaskModel: a backbone with a head that answers a task, and its file.

Sizes: B items, T seasons, M modalities, C bands, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from seamo_fast.errors import CheckpointError, DataError
from seamo_fast.files import replacing
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads import Features, Head
from seamo_fast.tasks.finetuning.methods import plain_state
from seamo_fast.tasks.finetuning.saved import read_head, read_task

Channels = Mapping[str, tuple[str, Sequence[int]]]


class TaskModel(nn.Module):
    """Logits from stored values of a dataset's modalities.

    Of a change, the head takes the absolute difference of the two dates' features; the backbone
    sees each date alone, both in one pass (Siamese). A backbone of which no parameter trains stays
    in evaluation mode.

    Attributes:
        backbone: Makes the features.
        head: Makes logits of them.
        task: What is predicted.
        classes: Their names.
        channels: See below.
        seasons: T.

    Args:
        backbone: Any; its `output` is not used.
        head: From `make_head`.
        task: What is to be predicted.
        classes: Names of the classes.
        channels: For each modality of the dataset that the backbone takes, the name it has there
            and the channels, in the order in which the backbone takes them.
        seasons: T of the dataset's items; 2 of a change.

    Raises:
        ValueError: The backbone does not take such channels, or a change has not two seasons.
    """

    def __init__(
        self,
        backbone: SeaMoBackbone,
        head: Head,
        task: Task,
        classes: Sequence[str],
        channels: Channels,
        seasons: int,
    ) -> None:
        super().__init__()
        bands = {modality.name: len(modality.bands) for modality in backbone.modalities}
        asked = [(known, len(numbers)) for known, numbers in channels.values()]
        if not asked or len(dict(asked)) < len(asked) or not set(asked) <= set(bands.items()):
            raise ValueError(f"channels give {asked}, but the backbone takes {bands}")
        if task == "change" and seasons != 2:
            raise ValueError(f"a change needs images of two dates, but there are {seasons}")
        self.backbone = backbone
        self.head = head
        self.task = task
        self.classes = tuple(classes)
        self.channels = {name: (known, list(each)) for name, (known, each) in channels.items()}
        self.seasons = seasons

    @property
    def dense(self) -> bool:
        """Whether there is an answer for each pixel."""
        return self.task in ("mask", "change")

    def train(self, mode: bool = True) -> TaskModel:
        """Sets training mode, but of the backbone only where a parameter of it trains."""
        super().train(mode)
        trains = any(parameter.requires_grad for parameter in self.backbone.parameters())
        self.backbone.train(mode and trains)
        return self

    def forward(
        self,
        images: Mapping[str, Tensor],
        dates: Tensor,
        valid: Tensor | None,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Returns logits: [B, K], or [B, K, H, W] of masks and changes; float32 or wider.

        Args:
            images: Stored values [B, T, C, H, W] by the dataset's names; H and W multiples of the
                patch size.
            dates: int32 [B, T, modalities in `images`].
            valid: bool [B, T, modalities in `images`], groups that exist. None if all do, which
                takes less time.
            scales: Of stochastic depth, from `methods.drop_path`; None for none.

        Raises:
            DataError: The number of seasons is not the model's.
        """
        logits = self.head(self.features(images, dates, valid, scales))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.dense:
            size = next(iter(images.values())).shape[-2:]
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def features(
        self,
        images: Mapping[str, Tensor],
        dates: Tensor,
        valid: Tensor | None,
        scales: Tensor | None = None,
    ) -> Features:
        """Returns what the head takes; arguments and errors as in `forward`."""
        seasons = next(iter(images.values())).shape[1]
        if seasons != self.seasons:
            raise DataError(
                f"the model takes items of {self.seasons} seasons, but got {seasons}; it was made "
                "for another dataset, or the items differ"
            )
        groups = [list(images).index(name) for name in self.channels]
        taken = {
            known: _picked(images[name], numbers)
            for name, (known, numbers) in self.channels.items()
        }
        dates = _picked(dates, groups)
        valid = None if valid is None else _picked(valid, groups)
        if self.task == "change":
            return self._difference(taken, dates, valid, scales)
        indices = self.head.indices
        levels, grid = self.backbone.forward_groups(taken, indices, dates, valid, scales)
        return Features(levels, valid, grid)

    def _difference(
        self,
        images: Mapping[str, Tensor],
        dates: Tensor,
        valid: Tensor | None,
        scales: Tensor | None,
    ) -> Features:
        """Returns the absolute difference of both dates' features; a group needs both."""
        alone = {name: _one_season(image) for name, image in images.items()}
        levels, grid = self.backbone.forward_groups(
            alone,
            self.head.indices,
            _one_season(dates),
            None if valid is None else _one_season(valid),
            None if scales is None else scales.repeat_interleave(2, dim=0),
        )
        pairs = [level.unflatten(0, (-1, 2)) for level in levels]
        both = None if valid is None else valid.all(dim=1, keepdim=True)
        return Features([(pair[:, 1] - pair[:, 0]).abs() for pair in pairs], both, grid)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the weights, whole or not at all; adapters are merged into what they adapt.

        `load` reads them back, and `SeaMoBackbone.from_checkpoint` their backbone.

        Raises:
            CheckpointError: The disk is full or not writable.
        """
        head = {f"head.{name}": each for name, each in self.head.state_dict().items()}
        state = {**plain_state(self.backbone), **head}
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        described = {
            "task": self.task,
            "classes": self.classes,
            "head": self.head.name,
            "channels": self.channels,
            "seasons": self.seasons,
        }
        metadata = model_metadata(self.backbone.config, self.backbone.modalities)
        try:
            with replacing(Path(path)) as temporary:
                save_file(state, temporary, {**metadata, "task": json.dumps(described)})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} could not be written: {error}") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TaskModel:
        """Reads what `save` wrote, and classifiers that versions before it wrote.

        Raises:
            CheckpointError: The file is damaged, or holds no model of a task.
        """
        weights, found = read_task(path)
        head = read_head(weights, found)
        del found["head"]
        backbone = SeaMoBackbone.from_checkpoint(weights)
        try:
            return cls(backbone, head, **found)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


def _picked(x: Tensor, numbers: list[int]) -> Tensor:
    """Returns entries of the third dimension; x itself where that is all of them."""
    return x if numbers == list(range(x.shape[2])) else x[:, :, numbers]


def _one_season(x: Tensor) -> Tensor:
    """Returns [B * T, 1, ...] of [B, T, ...]."""
    return x.flatten(0, 1)[:, None]
