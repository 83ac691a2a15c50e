"""Which of a model's modalities and bands a dataset has, and the backbone that takes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Modality
from seamo_fast.model.backbone import Output, SeaMoBackbone
from seamo_fast.model.inputs import BandStart, UnknownBands, band_starts, shared_bands
from seamo_fast.model.weights import Weights

_LOG = logging.getLogger(__name__)
_ZERO: Final = "zero"
_LEFT_OUT: Final = "left out"


@dataclass(frozen=True)
class Match:
    """A modality of a dataset and the one of a model that takes it.

    Attributes:
        name: Name in the dataset.
        known: The model's modality.
        starts: Where the weights of the bands that are taken start, in the dataset's order.
        unknown: The rule for bands that the model does not know.
    """

    name: str
    known: Modality
    starts: tuple[BandStart, ...]
    unknown: UnknownBands = "leave_out"

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the dataset that are taken, in its order."""
        return tuple(start.band for start in self.starts)

    def without_zeros(self) -> Match:
        """Returns it without bands that start from zero: where nothing learns, they stay so."""
        return replace(self, starts=tuple(start for start in self.starts if start.source))


def match_modalities(
    weights: Weights, modalities: Sequence[Modality], unknown: UnknownBands = "leave_out"
) -> list[Match]:
    """Finds the model's modality for each of a dataset: that from which most bands start.

    `band_starts` says which do. Of equals it is the one that shares more bands by name and
    wavelength. A modality of which no band starts from a pretrained one is left out.

    Args:
        weights: The model's.
        modalities: The dataset's.
        unknown: What becomes of bands that the model does not know, see `band_starts`.

    Returns:
        A match for each modality that is taken, in the order of the dataset.

    Raises:
        ConfigError: No band of the dataset starts from one of the model.
    """
    found = _best_pairs(weights.modalities, modalities, unknown)
    if not found:
        names = "; ".join(f"{', '.join(each.band_names)} of {each.name}" for each in modalities)
        near = unknown != "nearest" and _best_pairs(weights.modalities, modalities, "nearest")
        raise ConfigError(
            f"{weights.path} knows none of the bands {names}; its modalities are "
            f"{', '.join(modality.name for modality in weights.modalities)}"
            + ("; unknown_bands nearest takes those of the nearest wavelength" if near else "")
        )
    return found


def own_matches(modalities: Sequence[Modality]) -> list[Match]:
    """Returns the matches of a model that is built for the dataset, all bands."""
    return [Match(each.name, each, band_starts(each, each, "leave_out")) for each in modalities]


def _best_pairs(
    known: Sequence[Modality], modalities: Sequence[Modality], unknown: UnknownBands
) -> list[Match]:
    """Pairs modalities, those first of which most bands start; none is taken twice."""
    pairs = []
    for a, modality in enumerate(modalities):
        for b, each in enumerate(known):
            starts = band_starts(each, modality, unknown)
            taken = sum(start.source is not None for start in starts)
            score = (taken, len(shared_bands(each, modality)))
            if taken:
                pairs.append((score, a, b, Match(modality.name, each, starts, unknown)))
    chosen: dict[int, Match] = {}
    gone: set[int] = set()
    for _, a, b, match in sorted(pairs, key=lambda pair: pair[0], reverse=True):
        if a not in chosen and b not in gone:
            chosen[a] = match
            gone.add(b)
    return [chosen[a] for a in sorted(chosen)]


def pretrained_backbone(
    weights: Weights,
    matches: Sequence[Match],
    measured: Sequence[Modality],
    output: Output,
    strict: bool = False,
) -> SeaMoBackbone:
    """Returns the pretrained backbone for a dataset's bands; inputs keep the model's names.

    A log line for each modality says where its bands start.

    Args:
        weights: Pretrained.
        matches: What `match_modalities` found.
        measured: The dataset's modalities with its statistics, all bands.
        output: See `SeaMoBackbone`.
        strict: See `SeaMoBackbone`.
    """
    for name, record in band_record(matches, measured).items():
        _LOG.info(f"{weights.path}: {_in_words(name, record)}")
    names = [match.known.name for match in matches]
    backbone = SeaMoBackbone.from_checkpoint(weights, names, output, strict)
    for match, modality in zip(matches, taken_bands(matches, measured), strict=True):
        backbone.adapt(modality.name, modality, match.unknown)
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


def band_record(
    matches: Sequence[Match], modalities: Sequence[Modality]
) -> dict[str, dict[str, Any]]:
    """Returns where the bands of a dataset start, JSON-able.

    Args:
        matches: What `match_modalities` found.
        modalities: The dataset's, all bands.

    Returns:
        For each modality of the dataset, `modality`, the model's that takes it (None if none
        does), and `bands`: for each band the pretrained one that it starts from (`B3`, or `B3 / 2`
        if two share its weights), `zero`, or `left out`.
    """
    found = {match.name: match for match in matches}
    return {
        modality.name: {
            "modality": found[modality.name].known.name if modality.name in found else None,
            "bands": _sources(found.get(modality.name), modality),
        }
        for modality in modalities
    }


def _sources(match: Match | None, modality: Modality) -> dict[str, str]:
    sources = dict.fromkeys(modality.band_names, _LEFT_OUT)
    for band, source, share in match.starts if match else ():
        parts = f" / {round(1 / share)}" if share < 1 else ""
        sources[band] = f"{source}{parts}" if source else _ZERO
    return sources


def _in_words(name: str, record: Mapping[str, Any]) -> str:
    """Returns what `band_record` says of a modality in a line."""
    if record["modality"] is None:
        return f"{name} is left out, no free modality of the weights has a band of it"
    sources = record["bands"].items()
    taken = [
        band if source == band else f"{band} from {source}"
        for band, source in sources
        if source != _LEFT_OUT
    ]
    left = [band for band, source in sources if source == _LEFT_OUT]
    words = f"{name} is taken as {record['modality']}: "
    return words + ", ".join(taken) + (f"; left out: {', '.join(left)}" if left else "")
