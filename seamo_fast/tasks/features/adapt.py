"""Which of a model's modalities and bands a dataset has, and the backbone that takes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Modality
from seamo_fast.model.backbone import Output, SeaMoBackbone
from seamo_fast.model.inputs import shared_bands
from seamo_fast.model.weights import Weights

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """A modality of a dataset and the one of a model that takes it.

    Attributes:
        name: Name in the dataset.
        known: The model's modality.
        bands: Bands of the dataset that the model knows, in the dataset's order.
    """

    name: str
    known: Modality
    bands: tuple[str, ...]


def match_modalities(weights: Weights, modalities: Sequence[Modality]) -> list[Match]:
    """Finds the model's modality for each of a dataset: that with the most bands in common.

    Bands are the same by name and wavelength, see `shared_bands`; others are left out.

    Raises:
        ConfigError: The model knows no band of the dataset.
    """
    found: list[Match] = []
    for modality in modalities:
        taken = {match.known.name for match in found}
        free = [known for known in weights.modalities if known.name not in taken]
        shared = {known: shared_bands(known, modality) for known in free}
        best = max(free, key=lambda known: len(shared[known]), default=None)
        bands = shared[best] if best else []
        if best and bands:
            found.append(Match(modality.name, best, tuple(bands)))
    if not found:
        names = "; ".join(f"{', '.join(each.band_names)} of {each.name}" for each in modalities)
        raise ConfigError(
            f"{weights.path} knows none of the bands {names}; its modalities are "
            f"{', '.join(modality.name for modality in weights.modalities)}"
        )
    return found


def pretrained_backbone(
    weights: Weights,
    matches: Sequence[Match],
    measured: Sequence[Modality],
    output: Output,
    strict: bool = False,
) -> SeaMoBackbone:
    """Returns the pretrained backbone for a dataset's bands; inputs keep the model's names.

    Bands that are left out are logged.

    Args:
        weights: Pretrained.
        matches: What `match_modalities` found.
        measured: The dataset's modalities with its statistics, all bands.
        output: See `SeaMoBackbone`.
        strict: See `SeaMoBackbone`.
    """
    taken = {match.name: match.bands for match in matches}
    for modality in measured:
        unknown = [each for each in modality.band_names if each not in taken.get(modality.name, ())]
        if unknown:
            _LOG.info(f"{weights.path} leaves out {', '.join(unknown)} of {modality.name}")
    names = [match.known.name for match in matches]
    backbone = SeaMoBackbone.from_checkpoint(weights, names, output, strict)
    for modality in taken_bands(matches, measured):
        backbone.adapt(modality.name, modality)
    return backbone


def taken_bands(matches: Sequence[Match], measured: Sequence[Modality]) -> list[Modality]:
    """Returns the bands of a dataset that a model takes, under the model's names."""
    known = {modality.name: modality for modality in measured}
    return [
        replace(known[match.name].subset(match.bands), name=match.known.name) for match in matches
    ]


def channels_of(
    matches: Sequence[Match], modalities: Sequence[Modality]
) -> dict[str, tuple[str, list[int]]]:
    """Returns what a model takes of each modality of a dataset: its name there, and channels.

    Channels count in the dataset's bands, and come in the order in which the model takes them.
    """
    known = {modality.name: modality for modality in modalities}
    return {
        match.name: (
            match.known.name,
            [known[match.name].band_names.index(band) for band in match.bands],
        )
        for match in matches
    }
