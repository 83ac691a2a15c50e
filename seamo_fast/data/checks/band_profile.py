"""What the values of a modality look like, and whether that fits what the modality says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.modalities import Modality

_FLOOR: Final = 1.0  # percent of the values that count as a band's darkest
_DARK: Final = 900  # DN: with +1000 added, hardly any value lies below
_CIRRUS: Final = "B10"  # sees no ground: almost 0 anywhere, whatever the scene
_SPREAD: Final = 1.0  # standard deviations by which a mean may differ from the published one


class BandProfile:
    """Count, mean and deviation, extremes, and for integers a histogram of every band.

    Parts gathered apart are merged; the result is exact and does not depend on the grouping.
    """

    def __init__(self, bands: int) -> None:
        self.moments = BandStatistics(bands)
        self.minimum = np.full(bands, np.inf)
        self.maximum = np.full(bands, -np.inf)
        self.unmeasured = np.zeros(bands, np.int64)
        self.histogram = np.zeros((bands, 0), np.int64)  # of the values from -32768 to 65535
        # tiles whose darkest values lie below and above what an offset of 1000 leaves
        self.tiles = np.zeros(2, np.int64)

    def add(self, modality: Modality, grids: Sequence[np.ndarray], valid: np.ndarray) -> None:
        """Takes in the valid groups of one sample; grids [T, Cg, Hg, Wg], valid bool [T]."""
        self.moments.add(modality, grids, valid)
        for grid, array in zip(modality.grids, grids, strict=True):
            for position, channel in enumerate(grid.bands):
                for tile in array[valid, position]:
                    self._add_band(modality, channel, tile)

    def _add_band(self, modality: Modality, channel: int, tile: np.ndarray) -> None:
        measured = np.isfinite(tile)
        if modality.nodata is not None:
            measured &= tile != modality.nodata
        values = tile[measured]
        self.unmeasured[channel] += tile.size - values.size
        if not values.size:
            return
        self.minimum[channel] = min(self.minimum[channel], float(values.min()))
        self.maximum[channel] = max(self.maximum[channel], float(values.max()))
        if values.dtype.kind not in "iu":
            return
        if not self.histogram.size:
            self.histogram = np.zeros((len(self.minimum), 2**15 + 2**16), np.int64)
        shifted = values.astype(np.int64) + 2**15
        self.histogram[channel] += np.bincount(shifted, minlength=2**15 + 2**16)
        if modality.band_names[channel] == _CIRRUS:
            dark = int(np.percentile(values, _FLOOR)) >= _DARK
            self.tiles[int(dark)] += 1

    def merge(self, other: BandProfile) -> None:
        """Takes in what another part has gathered."""
        self.moments.merge(other.moments)
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.unmeasured += other.unmeasured
        self.tiles += other.tiles
        if not self.histogram.size:
            self.histogram = other.histogram
        elif other.histogram.size:
            self.histogram += other.histogram

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the population; 0 where nothing was measured."""
        return np.sqrt(self.moments.squares / np.maximum(self.moments.count, 1))

    def percentile(self, percent: float) -> np.ndarray | None:
        """Returns a percentile of each band; None for floats, NaN for bands without values."""
        if not self.histogram.size:
            return None
        totals = self.histogram.sum(axis=1)
        reached = np.cumsum(self.histogram, axis=1) >= np.ceil(totals * percent / 100)[:, None]
        found = reached.argmax(axis=1).astype(float) - 2**15
        return np.where(totals > 0, found, np.nan)

    def to_dict(self, modality: Modality) -> dict[str, Any]:
        """Returns what is known of each band, JSON-able."""
        low, high = self.percentile(1), self.percentile(99)
        share = self.unmeasured / np.maximum(self.moments.count + self.unmeasured, 1)
        found: dict[str, dict[str, float]] = {}
        for channel, name in enumerate(modality.band_names):
            if not self.moments.count[channel]:
                found[name] = {"count": 0}
                continue
            found[name] = {
                "count": int(self.moments.count[channel]),
                "mean": float(self.moments.mean[channel]),
                "std": float(self.std[channel]),
                "minimum": float(self.minimum[channel]),
                "maximum": float(self.maximum[channel]),
                "unmeasured": float(share[channel]),
            }
            if low is not None and high is not None:
                found[name].update(p1=float(low[channel]), p99=float(high[channel]))
        return found


def suspicions(modality: Modality, profile: BandProfile) -> list[str]:
    """Returns what in the values contradicts the modality: another unit, offset or statistics."""
    if not profile.moments.count.any():
        return ["no pixel is measured"]
    measured = profile.moments.count > 0
    empty = [name for name, seen in zip(modality.band_names, measured, strict=True) if not seen]
    found = [f"no pixel of {', '.join(empty)} is measured"] if empty else []
    wrong = _unit(modality, profile, measured)
    if wrong:
        return [*found, wrong]
    if modality.unit == "dn" and modality.scale == 10000:
        found += _offset(modality, profile)
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


def _offset(modality: Modality, profile: BandProfile) -> list[str]:
    """Compares the darkest values with the offset; B10 tells it for every single tile."""
    below, above = (int(n) for n in profile.tiles)
    shifted = modality.offset >= 1000
    if below and above:
        return [
            f"{above} tiles have +1000 added and {below} have not (by band {_CIRRUS}), but the "
            f"offset is {modality.offset:g} for all: pack them apart"
        ]
    floor = profile.percentile(_FLOOR)
    if floor is None:
        return []
    darkest = float(np.nanmin(floor))
    if not shifted and (above or (not below and darkest >= _DARK)):
        return [
            f"the darkest percent of the values reaches up to {darkest:g}: 1000 seems to have been "
            "added (Sentinel-2 since 2022, SSL4EO-S12 v1.1), but the offset is 0"
        ]
    if shifted and (below or darkest < _DARK / 2):
        return [
            f"the darkest percent of the values reaches up to {darkest:g}: 1000 seems not to have "
            f"been added everywhere, but the offset is {modality.offset:g}"
        ]
    return []


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
