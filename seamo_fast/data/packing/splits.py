"""Which split a sample belongs to: decided by its place, so that no place is in two."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from seamo_fast.errors import ConfigError, DataError

NAMES: Final = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """Shares of train, val and test; the draw is a hash of the place, the same on every run.

    Attributes:
        shares: Two or three numbers that sum to 1.
        cell: 0 draws each place by its name. Above 0 draws cells of so many degrees, so that
            neighbouring places stay together.

    Raises:
        ConfigError: The shares or the cell are impossible.
    """

    shares: tuple[float, ...]
    cell: float = 0.0

    def __post_init__(self) -> None:
        usual = 2 <= len(self.shares) <= len(NAMES) and all(0 < each < 1 for each in self.shares)
        if not usual or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ConfigError(
                f"splits must be two or three shares that sum to 1, such as 0.9,0.05,0.05, but "
                f"got {','.join(f'{each:g}' for each in self.shares)}"
            )
        if not 0 <= self.cell <= 90:
            raise ConfigError(f"split_cell must be in [0, 90] degrees, but got {self.cell:g}")

    @classmethod
    def parse(cls, text: str, cell: float = 0.0) -> Splits:
        """Reads shares like "0.9,0.05,0.05".

        Raises:
            ConfigError: They are no numbers, or impossible.
        """
        try:
            return cls(tuple(float(each) for each in text.split(",")), cell)
        except ValueError:
            raise ConfigError(f"splits must be like 0.9,0.05,0.05, but got {text!r}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """The splits, in the order of their shares."""
        return NAMES[: len(self.shares)]

    def choose(self, place: str, position: tuple[float, float] | None) -> str:
        """Returns the split of a place.

        Args:
            place: Its name.
            position: Longitude and latitude in degrees.

        Raises:
            DataError: Cells are asked for, but the position is unknown.
        """
        key = place
        if self.cell:
            if position is None:
                raise DataError(
                    f"the position of {place} is unknown, so it has no cell; leave split_cell out "
                    "to split by the names of the places"
                )
            longitude, latitude = position
            key = f"{math.floor(longitude / self.cell)},{math.floor(latitude / self.cell)}"
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        drawn = int.from_bytes(digest, "big") / 2**64
        return next((name for name, end in self._ends() if drawn < end), self.names[-1])

    def _ends(self) -> Iterator[tuple[str, float]]:
        total = 0.0
        for name, share in zip(self.names, self.shares, strict=True):
            total += share
            yield name, total
