"""Bands, their names, and the grids they are stored on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple


@dataclass(frozen=True)
class Band:
    """One spectral or polarisation channel.

    Attributes:
        name: Name, such as "B8A" or "VV"; kept in its canonical spelling.
        gsd: Ground sampling distance of the stored grid, in metres.
        wavelength: Centre wavelength in nanometres, None for radar.
    """

    name: str
    gsd: float
    wavelength: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"a band's name must be text, but got {self.name!r}")
        object.__setattr__(self, "name", canonical_band(self.name))
        for field in ("gsd", "wavelength"):
            value = getattr(self, field)
            if (value is not None or field == "gsd") and not (is_number(value) and value > 0):
                raise ValueError(
                    f"{field} of band {self.name!r} must be a number above 0, but got {value!r}"
                )


def is_number(value: object) -> bool:
    """Whether a value is a finite number and no bool."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


class Grid(NamedTuple):
    """The bands of a modality that are stored at one ground sampling distance."""

    gsd: float
    bands: tuple[int, ...]


def canonical_band(name: str) -> str:
    """Returns the name that this package uses for a band spelled in a common other way.

    B02 is B2, b8a is B8A and vv is VV. B8 and B8A are different bands and never exchanged.
    """
    upper = name.strip().upper()
    if upper.startswith("B0") and len(upper) == 3:
        return "B" + upper[2:]
    return upper
