"""What the values of a modality look like, band by band."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np

from seamo_fast.data.packing.offsets import JudgedTiles
from seamo_fast.data.packing.radiometry import is_judged, judge
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.measured import count_absurd, measured
from seamo_fast.modalities import Modality


class BandProfile:
    """Count, mean and deviation, extremes, and for integers a histogram of every band.

    Parts gathered apart are merged; the result is exact and does not depend on the grouping.
    """

    def __init__(self, bands: int) -> None:
        self.moments = BandStatistics(bands)
        self.minimum = np.full(bands, np.inf)
        self.maximum = np.full(bands, -np.inf)
        self.unmeasured = np.zeros(bands, np.int64)
        self.absurd = 0  # of these, values that the unit cannot have
        self.histogram = np.zeros((bands, 0), np.int64)  # of the values from -32768 to 65535
        self.tiles = JudgedTiles()

    def add(
        self,
        modality: Modality,
        grids: Sequence[np.ndarray],
        valid: np.ndarray,
        id: str = "",
        dates: Sequence[date | None] = (),
        baselines: Sequence[float | None] = (),
    ) -> None:
        """Takes in the valid groups of one sample.

        Args:
            modality: What they are.
            grids: Each [T, Cg, Hg, Wg].
            valid: bool [T].
            id: Name of the sample.
            dates: T dates; none if unknown.
            baselines: T processing baselines; none if unknown.
        """
        self.moments.add(modality, grids, valid)
        if is_judged(modality):
            judged = judge(modality, grids, valid, dates, baselines)
            self.tiles.add(id, dates or [None] * len(valid), judged)
        tiles = [array[valid] for array in grids]
        self.absurd += count_absurd(modality, tiles)
        for grid, array, known in zip(
            modality.grids, tiles, measured(modality, tiles), strict=True
        ):
            for position, channel in enumerate(grid.bands):
                for tile, there in zip(array[:, position], known[:, position], strict=True):
                    self.unmeasured[channel] += tile.size - np.count_nonzero(there)
                    self._add_band(modality, channel, tile[there])

    def _add_band(self, modality: Modality, channel: int, values: np.ndarray) -> None:
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

    def merge(self, other: BandProfile) -> None:
        """Takes in what another part has gathered."""
        self.moments.merge(other.moments)
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.unmeasured += other.unmeasured
        self.absurd += other.absurd
        self.tiles.extend(other.tiles)
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
