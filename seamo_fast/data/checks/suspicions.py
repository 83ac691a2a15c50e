"""What in the values of a modality contradicts what the modality says."""

from __future__ import annotations

from typing import Final

import numpy as np

from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.modalities import Modality

_SPREAD: Final = 1.0  # standard deviations by which a mean may differ from the published one


def suspicions(modality: Modality, profile: BandProfile | None) -> list[str]:
    """Returns what in the values contradicts the modality: another unit, offset or statistics.

    Args:
        modality: What the values should be.
        profile: What they look like; None where there is no valid group.
    """
    if profile is None:
        return ["no valid group"]
    if not profile.moments.count.any():
        return ["no pixel is measured"]
    measured = profile.moments.count > 0
    empty = [name for name, seen in zip(modality.band_names, measured, strict=True) if not seen]
    found = [f"no pixel of {', '.join(empty)} is measured"] if empty else []
    wrong = _unit(modality, profile, measured)
    if wrong:
        return [*found, wrong]
    found += [remark.why for remark in profile.tiles.remarks(modality)[:1]]
    return found + _drift(modality, profile, measured)


def _unit(modality: Modality, profile: BandProfile, measured: np.ndarray) -> str | None:
    low = float(profile.minimum[measured].min())
    high = float(profile.maximum[measured].max())
    mean = float(profile.moments.mean[measured].mean())
    span = f"values {low:g} to {high:g}, mean {mean:g}"
    if modality.unit == "db":
        return _decibels(low, high, span)
    if modality.unit == "dn":
        if low < -1 and mean < 0:
            return f"unit is dn, but {span} look like decibels"
        if high <= 4:
            return f"unit is dn, but {span} look like reflectance: give unit reflectance"
    if modality.unit == "reflectance" and mean > 4:
        return f"unit is reflectance, but {span} look like digital numbers: give unit dn"
    if modality.unit == "uint8" and (low < 0 or high > 255):
        return f"unit is uint8, but {span} do not fit"
    return None


def _decibels(low: float, high: float, span: str) -> str | None:
    if low >= 0 and high > 100:
        return f"unit is db, but {span} look like digital numbers or amplitudes"
    if low >= 0:
        return f"unit is db, but {span} look like linear backscatter: take 10 * log10 of it"
    if low < -200 or high > 100:
        return f"unit is db, but {span} are no decibels: is a nodata value missing?"
    return None


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
