"""The rows of an evaluation: each checkpoint and baseline as what makes features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from seamo_fast.modalities import Modality
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.config import PRESETS, ModelConfig
from seamo_fast.model.weights import Weights
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.evaluation.config import EvaluateConfig, FrozenBands
from seamo_fast.tasks.features.adapt import (
    Match,
    match_modalities,
    own_matches,
    pretrained_backbone,
    taken_bands,
)
from seamo_fast.tasks.features.baselines import BandStatisticsFeatures, PixelPca
from seamo_fast.tasks.features.extractors import BackboneFeatures, Extractor, Pooling


@dataclass(frozen=True)
class Target:
    """What features are for.

    Attributes:
        modalities: The dataset's, with the statistics of its training part.
        task: What is to be predicted.
        device: Where backbones run.
        dtype: Of their matrix products.
        strict: See `EvaluateConfig`.
        unknown_bands: See `EvaluateConfig`.
        pooling: See `BackboneFeatures`.
    """

    modalities: Sequence[Modality]
    task: Task
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    strict: bool = False
    unknown_bands: FrozenBands = "nearest"
    pooling: Pooling = "seasons"

    def matches(self, weights: Weights) -> list[Match]:
        """Returns what a frozen backbone takes of the dataset.

        Raises:
            ConfigError: It knows no band of it.
        """
        found = match_modalities(weights, self.modalities, self.unknown_bands)
        return [match.without_zeros() for match in found]


def pretrained_row(weights: Weights, target: Target) -> BackboneFeatures:
    """Returns what makes features of pretrained weights, on the disk or in memory.

    Raises:
        ConfigError: They know no band of the dataset.
    """
    matches = target.matches(weights)
    backbone = pretrained_backbone(weights, matches, target.modalities, "tokens", target.strict)
    return _row(backbone, matches, target)


def make_rows(
    config: EvaluateConfig, weights: Sequence[Weights], target: Target
) -> dict[str, Extractor]:
    """Returns what makes the features of each row, checkpoints first.

    Args:
        config: Names the rows.
        weights: Those of its checkpoints.
        target: What features are for.

    Raises:
        ConfigError: A checkpoint knows no band of the dataset.
    """
    rows: dict[str, Extractor] = {}
    for name, each in zip(config.checkpoints, weights, strict=True):
        rows[name] = pretrained_row(each, target)
    model = weights[0].config if weights else PRESETS[config.model]
    for name in config.baselines:
        if name == "random":
            rows[name] = _random_row(model, weights, target, config.seed)
        elif name == "statistics":
            rows[name] = BandStatisticsFeatures(target.modalities, target.task, model.patch_size)
        else:
            rows[name] = PixelPca(target.modalities, target.task, model.patch_size, model.width)
    return rows


def _random_row(
    model: ModelConfig, weights: Sequence[Weights], target: Target, seed: int
) -> BackboneFeatures:
    """Returns what makes features of random weights, of the bands of the first checkpoint."""
    if weights:
        matches = target.matches(weights[0])
    else:
        matches = own_matches(target.modalities)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        backbone = SeaMoBackbone(
            replace(model), taken_bands(matches, target.modalities), strict=target.strict
        )
    return _row(backbone, matches, target)


def _row(backbone: SeaMoBackbone, matches: Sequence[Match], target: Target) -> BackboneFeatures:
    known = {modality.name: modality for modality in target.modalities}
    channels = {
        match.name: (
            match.known.name,
            [known[match.name].band_names.index(band) for band in match.bands],
        )
        for match in matches
    }
    return BackboneFeatures(
        backbone.to(target.device), channels, target.task, target.dtype, target.pooling
    )
