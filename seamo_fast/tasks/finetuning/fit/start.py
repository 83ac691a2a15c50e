"""What a finetuning starts from: the dataset, its statistics, and a model that takes its bands."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seamo_fast.checkpoint_files import sha256
from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Modality
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.config import PRESETS
from seamo_fast.model.weights import Weights, read_weights
from seamo_fast.tasks.datasets.open import Opened, check_labels, open_dataset
from seamo_fast.tasks.datasets.reading.base import DENSE
from seamo_fast.tasks.features.adapt import (
    Match,
    channels_of,
    match_modalities,
    own_matches,
    pretrained_backbone,
)
from seamo_fast.tasks.finetuning.config import FinetuneConfig, fixed_settings
from seamo_fast.tasks.finetuning.heads import HeadName, make_head
from seamo_fast.tasks.finetuning.methods import choose_parameters
from seamo_fast.tasks.finetuning.model import Channels, TaskModel
from seamo_fast.tasks.finetuning.survey import Survey
from seamo_fast.tasks.probes.subsets import few_of_each, share_of


@dataclass(frozen=True)
class Start:
    """A dataset and what is finetuned on it.

    Attributes:
        opened: The dataset and its split.
        weights: Pretrained ones; None for random ones.
    """

    opened: Opened
    weights: Weights | None

    @property
    def weights_name(self) -> str:
        """What messages and results call the weights."""
        return "random" if self.weights is None else str(self.weights.path)

    def identity(self, config: FinetuneConfig) -> dict[str, Any]:
        """Returns what a run must have in common with one that it resumes, JSON-able."""
        dataset, split = self.opened.dataset, self.opened.split
        described = [modality.to_dict() for modality in dataset.modalities]
        contents = ([entry.id for entry in dataset.entries], split, dataset.classes, described)
        found = {
            **fixed_settings(config),
            "items": len(dataset),
            "contents": zlib.crc32(repr(contents).encode()),
            "weights": None if self.weights is None else sha256(self.weights.path),
        }
        return json.loads(json.dumps(found))


def open_start(config: FinetuneConfig) -> Start:
    """Opens the dataset and reads the weights.

    Raises:
        ConfigError: The dataset is unknown, or an option of it.
        DataError: The folder is not what it should be.
        CheckpointError: The weights cannot be used, or are of another size than `model`.
    """
    weights = None if config.checkpoint == "none" else read_weights(Path(config.checkpoint))
    if weights is not None and config.model is not None:
        weights.check_size(config.model)
    opened = open_dataset(config.data, config.dataset, config)
    check_labels(opened)
    fraction, shots = config.train_fraction, config.shots
    return Start(label_subset(opened, fraction, shots, config.seed), weights)


def label_subset(
    opened: Opened, fraction: float = 1, shots: int | None = None, seed: int = 0
) -> Opened:
    """Returns a dataset with a part of its training and validation labels, as `evaluate` takes it.

    Args:
        opened: The dataset.
        fraction: Share of the labels within each class, at least one.
        shots: Items of each class instead; None for all.
        seed: Of the draw.

    Raises:
        ConfigError: Both are given, or `shots` where pixels have labels.
        DataError: A label cannot be read.
    """
    task = opened.dataset.task
    if shots is not None and (fraction != 1 or task in DENSE):
        why = "train_fraction is given too" if fraction != 1 else "pixels have labels here"
        raise ConfigError(f"shots are items of each class, but {why}; leave --shots out")
    if fraction == 1 and shots is None:
        return opened

    def subset(part: str) -> list[int]:
        numbers: Sequence[int] = getattr(opened.split, part)
        labels = torch.zeros(len(numbers), dtype=torch.int64)
        if task == "classes" or shots is not None:
            labels = torch.tensor(np.array([opened.dataset.label_of(n) for n in numbers]))
        if shots is None:
            chosen = share_of(labels, fraction, seed, part)
        else:
            chosen = few_of_each(labels, len(opened.dataset.classes), shots, seed, part, 0)
        return [numbers[at] for at in chosen.tolist()]

    return replace(opened, split=opened.split._replace(train=subset("train"), val=subset("val")))


def make_model(config: FinetuneConfig, start: Start, survey: Survey) -> TaskModel:
    """Returns a new model that takes the dataset's bands, initialised from the seed.

    Fusion is left out where there is one group: it has nothing to fuse.

    Args:
        config: Settings.
        start: The dataset and the weights.
        survey: Of the training part.

    Raises:
        ConfigError: The weights know no band of the dataset, or the head cannot answer its task.
    """
    dataset = start.opened.dataset
    torch.manual_seed(config.seed)
    seasons = 1 if dataset.task == "change" else survey.seasons
    backbone, channels = _backbone(config, start.weights, survey.modalities, seasons)
    groups = len(channels) * seasons
    head = make_head(
        _head(config, dataset.task in ("mask", "change")),
        dataset.task,
        groups,
        backbone.embed_dim,
        len(dataset.classes),
        backbone.config.depth,
    )
    choose_parameters(backbone, config.method, config.lora_rank, config.lora_alpha)
    return TaskModel(backbone, head, dataset.task, dataset.classes, channels, survey.seasons)


def _head(config: FinetuneConfig, dense: bool) -> HeadName:
    if config.head is not None:
        return config.head
    return "fpn" if dense and config.method != "linear" else "linear"


def _backbone(
    config: FinetuneConfig, weights: Weights | None, modalities: Sequence[Modality], seasons: int
) -> tuple[SeaMoBackbone, Channels]:
    matches = matched_bands(config, weights, modalities)
    model = PRESETS[config.model or "tiny"] if weights is None else weights.config
    if len(matches) * seasons == 1:
        model = replace(model, fusion="none")
    channels = channels_of(matches, modalities)
    if weights is None:
        return SeaMoBackbone(model, modalities, strict=config.strict), channels
    weights = replace(weights, config=model)
    return pretrained_backbone(weights, matches, modalities, "tokens", config.strict), channels


def matched_bands(
    config: FinetuneConfig, weights: Weights | None, modalities: Sequence[Modality]
) -> list[Match]:
    """Returns which bands of a dataset a model takes.

    Raises:
        ConfigError: The weights know none of them.
    """
    if weights is None:
        return own_matches(modalities)
    found = match_modalities(weights, modalities, config.unknown_bands)
    return found if config.method == "full" else [match.without_zeros() for match in found]
