"""What in the values of a modality contradicts what the modality says."""

from __future__ import annotations

from typing import Final

import numpy as np

from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.modalities import Modality
from seamo_fast.units import Look, doubt_unit

_SPREAD: Final = 1.0  # standard deviations by which a mean may differ from the published one


def suspicions(modality: Modality, profile: BandProfile | None) -> list[str]:
    """Returns what in the values contradicts the modality: another unit, offset or statistics.

    Args:
        modality: What the values should be.
        profile: What they look like; None where there is no valid group.
    """
    if profile is None:
        return ["no valid group"]
    found = _absurd(modality, profile)
    if not profile.moments.count.any():
        return ["no pixel is measured", *found]
    measured = profile.moments.count > 0
    empty = [name for name, seen in zip(modality.band_names, measured, strict=True) if not seen]
    found += [f"no pixel of {', '.join(empty)} is measured"] if empty else []
    wrong = _unit(modality, profile)
    if wrong:
        return [*found, wrong]
    found += [remark.why for remark in profile.tiles.remarks(modality)[:1]]
    return found + _drift(modality, profile, measured)


def _absurd(modality: Modality, profile: BandProfile) -> list[str]:
    if not profile.absurd:
        return []
    total = profile.moments.count.sum() + profile.unmeasured.sum()
    return [
        f"{profile.absurd} values ({profile.absurd / total:.2%}) are beyond {modality.limit:g}, "
        f"which no value in {modality.unit} can be, and count as not measured: is a nodata value "
        "missing?"
    ]


def _unit(modality: Modality, profile: BandProfile) -> str | None:
    look = Look(
        count=profile.moments.count,
        low=profile.minimum,
        high=profile.maximum,
        mean=profile.moments.mean,
        std=profile.std,
        whole=profile.histogram.size > 0,
    )
    doubt = doubt_unit(modality, look)
    if doubt is None:
        return None
    found = f"unit is {modality.unit}, but {look} {doubt.looks}"
    return f"{found}: {doubt.advice}" if doubt.advice else found


def _drift(modality: Modality, profile: BandProfile, measured: np.ndarray) -> list[str]:
    if modality.mean is None or modality.std is None:
        return []
    away = (profile.moments.mean - np.array(modality.mean)) / np.array(modality.std)
    far = [
        f"{name} by {shift:+.1f}"
        for name, shift, seen in zip(modality.band_names, away, measured, strict=True)
        if seen and abs(shift) > _SPREAD
    ]
    if not far:
        return []
    return [
        f"means differ from those of release {modality.release!r}, in standard deviations: "
        f"{', '.join(far)}"
    ]
