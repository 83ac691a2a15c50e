"""Mean and standard deviation of each band, gathered in one pass and merged in any grouping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality


class BandStatistics:
    """Count, mean and sum of squared deviations of every band of one modality, in float64.

    Parts are merged by the pairwise update of Chan, Golub and LeVeque, "Algorithms for computing
    the sample variance" (1983), which keeps its accuracy where sums of squares would not.
    """

    def __init__(self, bands: int) -> None:
        self.count = np.zeros(bands, np.int64)
        self.mean = np.zeros(bands)
        self.squares = np.zeros(bands)

    def add(self, modality: Modality, grids: Sequence[np.ndarray], valid: np.ndarray) -> None:
        """Takes in the valid groups of one sample.

        Args:
            modality: Says which bands each grid holds, and what was not measured.
            grids: Each [T, Cg, Hg, Wg].
            valid: bool [T].
        """
        part = BandStatistics(len(self.count))
        tiles = [array[valid] for array in grids]
        for grid, values, known in zip(
            modality.grids, tiles, measured(modality, tiles), strict=True
        ):
            for position, channel in enumerate(grid.bands):
                found = values[:, position][known[:, position]]
                part._fill(channel, found.astype(np.float64))
        self.merge(part)

    def _fill(self, channel: int, values: np.ndarray) -> None:
        if values.size:
            self.count[channel] = values.size
            self.mean[channel] = values.mean()
            self.squares[channel] = np.square(values - self.mean[channel]).sum()

    def merge(self, other: BandStatistics) -> None:
        """Takes in what another part has gathered."""
        total = np.maximum(self.count + other.count, 1)
        delta = other.mean - self.mean
        self.squares += other.squares + np.square(delta) * self.count * other.count / total
        self.mean += delta * other.count / total
        self.count += other.count

    def apply(self, modality: Modality, release: str) -> Modality:
        """Returns the modality with these statistics (standard deviation of the population).

        Raises:
            DataError: A band has no valid pixel or only one value.
        """
        for name, count, squares in zip(modality.band_names, self.count, self.squares, strict=True):
            if count == 0 or squares == 0:
                state = "no valid pixel" if count == 0 else "the same value in every valid pixel"
                raise DataError(
                    f"band {name} of modality {modality.name!r} has {state}, so it cannot be "
                    "normalised; leave the band out or give its nodata value"
                )
        std = np.sqrt(self.squares / self.count)
        return modality.with_statistics(self.mean.tolist(), std.tolist(), release)

    def to_dict(self) -> dict[str, list[float]]:
        """Returns a JSON-able copy; `from_dict` reads it back to the bit."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BandStatistics:
        """Reads what `to_dict` returned."""
        statistics = cls(len(data["count"]))
        statistics.count = np.array(data["count"], np.int64)
        statistics.mean = np.array(data["mean"], np.float64)
        statistics.squares = np.array(data["squares"], np.float64)
        return statistics
