"""What covers the ground of a synthetic scene, and what its farmers grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Cover(IntEnum):
    """What a material is; those of `FIELDS` are crops and meadows."""

    CEREAL = 0
    RAPE = 1
    MAIZE = 2
    BEET = 3
    MEADOW = 4
    DECIDUOUS = 5
    EVERGREEN = 6
    RIVER = 7
    LAKE = 8
    ROAD = 9
    TILES = 10
    BRIGHT_ROOF = 11
    GREY_ROOF = 12
    GARDEN = 13
    ROCK = 14
    PASTURE = 15
    # only in scenes of `VARIED` farming
    BARLEY = 16
    OATS = 17
    POTATO = 18
    RYE_MAIZE = 19
    # only in the later year of a pair
    CLEARING = 20
    BURNED = 21


FIELDS: Final = (
    Cover.CEREAL,
    Cover.RAPE,
    Cover.MAIZE,
    Cover.BEET,
    Cover.MEADOW,
    Cover.BARLEY,
    Cover.OATS,
    Cover.POTATO,
    Cover.RYE_MAIZE,
)


@dataclass(frozen=True)
class Farming:
    """What is grown, and how much fields of one crop differ.

    Attributes:
        shares: Share of the fields that have each crop; they sum to 1.
        spread: Standard deviation in days by which one field is later than another.
        weather: Standard deviation in days by which all plants of a year are late together.
        density: Least and most of a full stand that a field has.
    """

    shares: Mapping[Cover, float]
    spread: float
    weather: float
    density: tuple[float, float]


PLAIN: Final = Farming(
    {
        Cover.CEREAL: 0.30,
        Cover.RAPE: 0.12,
        Cover.MAIZE: 0.22,
        Cover.BEET: 0.12,
        Cover.MEADOW: 0.24,
    },
    spread=6,
    weather=0,
    density=(1, 1),
)
# On no day of the year do these crops all look different; by their course over a year they do.
# No rape: its flowers give it away.
VARIED: Final = Farming(
    {
        Cover.CEREAL: 0.13,
        Cover.MAIZE: 0.13,
        Cover.BEET: 0.13,
        Cover.MEADOW: 0.13,
        Cover.BARLEY: 0.12,
        Cover.OATS: 0.12,
        Cover.POTATO: 0.12,
        Cover.RYE_MAIZE: 0.12,
    },
    spread=9,
    weather=9,
    density=(0.5, 1),
)
