"""What the ground of a synthetic scene reflects and scatters back on a day of the year.

Every material is a mixture of a few pure surfaces (endmembers) whose shares follow the season:
crops green up, ripen, are harvested and ploughed, leaves unfold, turn and fall, soil gets wet.
The same shares mix the optical spectra and the radar backscatter, so that both tell one story.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from seamo_fast.data.demo.scene.cover import Cover
from seamo_fast.data.demo.scene.land import Land
from seamo_fast.data.demo.scene.noise import Floats

# Reflectance in percent in the bands B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12, then backscatter of
# VV and VH in dB: round numbers of the shape and size that spectral libraries and C-band
# surveys report for these surfaces.
_ENDMEMBERS: Final[dict[str, tuple[float, ...]]] = {
    "crop": (2.2, 3.2, 6.5, 3.5, 10.5, 33, 43, 46, 48, 48, 21, 10, -10.5, -16.0),
    "grass": (2.5, 3.8, 7.0, 4.8, 11.5, 27, 33, 36, 38, 38, 24, 13, -12.5, -19.0),
    "flower": (4.0, 6.0, 15.5, 14.5, 20, 37, 43, 46, 48, 48, 23, 13, -10.0, -14.5),
    "leaves": (1.8, 2.4, 4.6, 2.3, 8.0, 27, 35, 38, 40, 40, 17, 7.5, -9.0, -14.5),
    "autumn": (2.4, 3.3, 6.2, 8.6, 14, 22, 26, 28, 30, 30, 22, 13, -9.0, -14.8),
    "branches": (3.0, 3.8, 5.2, 6.2, 8.2, 11, 13, 14.5, 16, 17, 19, 13, -9.2, -15.8),
    "needles": (1.4, 1.9, 3.1, 2.0, 4.5, 13, 16.5, 18, 19, 19.5, 8.5, 4.0, -8.6, -14.2),
    "straw": (6.5, 9.0, 13, 17, 20, 23, 25.5, 27.5, 29.5, 30, 36, 27, -12.5, -20.0),
    "dry": (6.5, 9.0, 12.5, 16.5, 19, 20.5, 22, 23.5, 25, 25.5, 32, 28, -14.0, -22.5),
    "wet": (3.6, 4.6, 6.8, 8.8, 10.2, 11.4, 12.4, 13.4, 14.4, 15, 18, 14.5, -10.0, -18.5),
    "silt": (4.5, 5.8, 7.8, 6.2, 5.2, 3.3, 3.0, 2.6, 2.0, 1.9, 0.8, 0.5, -20.0, -28.0),
    "lake": (3.4, 3.6, 3.2, 1.8, 1.4, 1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3, -19.0, -27.5),
    "asphalt": (7.0, 8.2, 9.4, 10.4, 11, 11.6, 12.1, 12.6, 13, 13.2, 14.8, 13.6, -13.5, -21.0),
    "tiles": (6.5, 7.8, 10, 17, 20, 22, 24, 25.5, 27, 27, 32, 30, -4.0, -11.5),
    "metal": (30, 36, 39, 40, 41, 42, 42.5, 43, 43.5, 43, 42, 38, 0.5, -8.5),
    "concrete": (11, 13, 14.5, 15.8, 16.5, 17.2, 17.8, 18.4, 18.8, 19, 20.5, 19, -2.5, -11.0),
    "rock": (12, 14, 16.5, 18.5, 19.5, 20.5, 21.5, 22, 22.5, 22.5, 25, 22, -9.0, -17.0),
}  # fmt: skip
_INDEX: Final = {name: number for number, name in enumerate(_ENDMEMBERS)}
_TABLE: Final = np.array(list(_ENDMEMBERS.values()))
_REFLECTANCE: Final = (_TABLE[:, :12] / 100).astype(np.float32)
_POWER: Final = (10 ** (_TABLE[:, 12:] / 10)).astype(np.float32)

# Days of the year: greening starts, full, ripening starts, dead, harvest, plough. Then the green
# cover of winter and of summer.
_CROPS: Final[dict[Cover, tuple[float, ...]]] = {
    Cover.CEREAL: (60, 112, 172, 196, 204, 262, 0.32, 0.95),
    Cover.RAPE: (55, 98, 168, 190, 200, 240, 0.50, 0.95),
    Cover.MAIZE: (135, 182, 245, 272, 282, 330, 0.0, 0.95),
    Cover.BEET: (112, 160, 285, 300, 302, 310, 0.0, 0.97),
    Cover.BARLEY: (60, 112, 160, 184, 190, 205, 0.0, 0.95),
    Cover.OATS: (100, 145, 175, 200, 206, 258, 0.0, 0.95),
    Cover.POTATO: (125, 170, 225, 245, 250, 255, 0.0, 0.95),
    Cover.RYE_MAIZE: (140, 185, 245, 272, 282, 330, 0.0, 0.95),
}
# What else grows on a field: mustard after barley, winter wheat after potatoes, rye before maize.
# The first four days as above, and the green cover.
_SECOND: Final[dict[Cover, tuple[float, ...]]] = {
    Cover.BARLEY: (212, 250, 325, 358, 0.85),
    Cover.POTATO: (280, 355, 435, 460, 0.32),
    Cover.RYE_MAIZE: (340, 450, 493, 501, 0.9),
}
# The same without harvest and plough.
_GRASS: Final[dict[Cover, tuple[float, ...]]] = {
    Cover.MEADOW: (70, 110, 285, 330, 0.55, 0.90),
    Cover.PASTURE: (105, 150, 260, 300, 0.15, 0.85),
    Cover.GARDEN: (75, 120, 280, 320, 0.45, 0.85),
}
_STILL: Final[dict[Cover, dict[str, float]]] = {
    Cover.EVERGREEN: {"needles": 1.0},
    Cover.RIVER: {"silt": 1.0},
    Cover.LAKE: {"lake": 1.0},
    Cover.ROAD: {"asphalt": 1.0},
    Cover.TILES: {"tiles": 0.8, "branches": 0.2},
    Cover.BRIGHT_ROOF: {"metal": 1.0},
    Cover.GREY_ROOF: {"concrete": 1.0},
    Cover.ROCK: {"rock": 1.0},
    Cover.CLEARING: {"branches": 0.25, "grass": 0.15},
    Cover.BURNED: {"asphalt": 0.4, "branches": 0.15},
}


def _window(day: Floats, start: float, full: float, fade: float, end: float) -> Floats:
    """Returns a trapezium over the year: 0 before start, 1 from full to fade, 0 after end."""
    rise = np.clip((day - start) / (full - start), 0, 1)
    fall = np.clip((end - day) / (end - fade), 0, 1)
    result: Floats = np.minimum(rise, fall)
    return result


def _crop(day: Floats, cover: Cover) -> dict[str, Floats]:
    start, full, fade, end, harvest, plough, winter, summer = _CROPS[cover]
    # The next crop is sown in autumn and rests over the winter.
    resting = winter * (1 - _window(day, start, full, harvest + 60, harvest + 110))
    green = np.maximum(summer * _window(day, start, full, fade, end), resting)
    if cover in _SECOND:
        *days, share = _SECOND[cover]
        for each in (day, day + 365):  # it may outlast the year
            green = np.maximum(green, share * _window(each, *days))
    ripe = 0.9 * _window(day, fade, end, harvest, harvest + 4)
    stubble = 0.5 * _window(day, harvest, harvest + 4, plough, plough + 15)
    straw = (1 - green) * np.maximum(ripe, stubble)
    bloom = _window(day, 92, 102, 128, 140) * (cover is Cover.RAPE)
    return {"crop": green * (1 - bloom), "flower": green * bloom, "straw": straw}


def _grass(day: Floats, cover: Cover) -> dict[str, Floats]:
    start, full, fade, end, winter, summer = _GRASS[cover]
    green = winter + (summer - winter) * _window(day, start, full, fade, end)
    return {"grass": green, "straw": (1 - green) * 0.6}


def _trees(day: Floats) -> dict[str, Floats]:
    leaf = _window(day, 98, 124, 272, 314)
    turning = _window(day, 262, 290, 304, 316)
    return {"leaves": leaf * (1 - turning), "autumn": leaf * turning, "branches": 1 - leaf}


def _shares(day: Floats, cover: Cover) -> dict[str, Floats]:
    """Returns the shares of the surfaces of a cover on each `day`; the rest is bare soil."""
    if cover in _CROPS:
        return _crop(day, cover)
    if cover is Cover.DECIDUOUS:
        return _trees(day)
    if cover is Cover.GARDEN:
        lawn = {name: 0.65 * share for name, share in _grass(day, cover).items()}
        return lawn | {name: 0.25 * share for name, share in _trees(day).items()}
    if cover in _GRASS:
        return _grass(day, cover)
    return {name: np.full_like(day, share) for name, share in _STILL[cover].items()}


def mixtures(land: Land, days: NDArray[np.float64], moisture: Floats) -> Floats:
    """Returns the share of every surface [days, materials, endmembers]; each row sums to 1.

    Args:
        land: The materials.
        days: Days of the year [days].
        moisture: Share of the bare soil that is wet [days].
    """
    number = len(land.cover)
    result = np.zeros((len(days), number, len(_ENDMEMBERS)), np.float32)
    for cover in Cover:
        chosen = np.flatnonzero(land.cover == cover)
        local = days[:, None].astype(np.float32) - land.delay[chosen]
        for name, share in _shares(local, cover).items():
            result[:, chosen, _INDEX[name]] = share
    result[..., _PLANTS] *= land.density[:, None]
    bare = 1 - result.sum(axis=-1)
    result[..., _INDEX["wet"]] += bare * moisture[:, None]
    result[..., _INDEX["dry"]] += bare * (1 - moisture[:, None])
    return result


# Density of the plants where they grow worst and best.
_VIGOUR: Final = (0.82, 1.0)
_PLANTS: Final = [_INDEX[name] for name in ("crop", "grass", "flower", "leaves", "autumn")]
_MINERAL: Final = [
    _INDEX[name] for name in ("dry", "wet", "straw", "tiles", "metal", "concrete", "rock")
]


def _with_vigour(shares: Floats, vigour: float) -> Floats:
    """Scales the plants' shares; soil shows where plants are missing."""
    plants = shares[..., _PLANTS]
    missing = plants.sum(axis=-1) * (1 - vigour)
    result = shares.copy()
    result[..., _PLANTS] = plants * vigour
    result[..., _INDEX["dry"]] += missing
    return result


def _spread(land: Land, shares: Floats, table: Floats) -> Floats:
    """Mixes a table of surfaces [endmembers, C] and lays it on the map [days, C, H, W]."""
    low, high = (np.moveaxis(_with_vigour(shares, each) @ table, -1, 1) for each in _VIGOUR)
    image: Floats = np.take(high - low, land.material, axis=-1)
    image *= land.vigour
    image += np.take(low, land.material, axis=-1)
    return image


def reflectance(land: Land, shares: Floats) -> Floats:
    """Returns the reflectance of the ground in full, even light [days, 12, H, W]."""
    albedo = np.ones((len(land.cover), len(_INDEX)), np.float32)
    albedo[:, _MINERAL] = land.soil[:, None]
    return _spread(land, shares * albedo, _REFLECTANCE)


def backscatter(land: Land, shares: Floats) -> Floats:
    """Returns the mean backscatter of flat ground, linear power [days, VV VH, H, W]."""
    gain: Floats = 10 ** (land.roughness / np.float32(10))
    return _spread(land, shares * gain[:, None], _POWER)
