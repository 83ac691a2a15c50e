"""Synthetic scenes of Sentinel-1 and Sentinel-2: one place, seen on several days of a year.

A scene has fields with crops, forest, water, towns, mountains and roads on a relief. Its optical
and its radar images are made from the same ground, and every number is a pure function of the seed
and the scene's index. See `make_scene`, and `make_pair` for two years of a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seamo_fast.data.demo.scene import radar, sky, surface
from seamo_fast.data.demo.scene.change import change_land
from seamo_fast.data.demo.scene.cover import FIELDS, PLAIN, VARIED, Cover, Farming
from seamo_fast.data.demo.scene.land import Land, make_land
from seamo_fast.data.demo.scene.noise import Floats, area_mean, blur, smooth_noise
from seamo_fast.data.demo.scene.sky import CLOUDY, USUAL
from seamo_fast.randomness import generator

__all__ = [
    "CLOUDY",
    "FIELDS",
    "OPTICAL_BANDS",
    "PLAIN",
    "RADAR_BANDS",
    "USUAL",
    "VARIED",
    "Cover",
    "Scene",
    "area_mean",
    "make_pair",
    "make_scene",
]

OPTICAL_BANDS: Final = (
    "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12",
)  # fmt: skip
RADAR_BANDS: Final = ("VV", "VH")
_FIRST_DAY: Final = 105
_SUMMER: Final = 1  # of four seasons
# Strength of the fine texture: canopies cast shadows, water has none, other covers have 0.03.
_TEXTURE: Final = {
    Cover.DECIDUOUS: 0.07,
    Cover.EVERGREEN: 0.07,
    Cover.ROCK: 0.08,
    Cover.RIVER: 0.015,
    Cover.LAKE: 0.015,
}

_Dates = tuple[tuple[date, ...], tuple[date, ...]]
# of what lasts, and of what is of one day
_Streams = tuple[np.random.Generator, np.random.Generator]


@dataclass(frozen=True)
class Scene:
    """One place in T seasons, on the 10 m grid.

    Attributes:
        cover: Cover of each pixel, see `Cover` [H, W].
        field: Number of the field that a pixel is part of, -1 where it is none of `FIELDS` [H, W].
        optical: Reflectance of `OPTICAL_BANDS` without sensor noise, float32 [T, 12, H, W].
        radar: Backscatter of `RADAR_BANDS` in dB with speckle, float32 [T, 2, H, W].
        snow: Share of each pixel that is snow [T, H, W].
        cloud: Optical depth of the clouds [T, H, W].
        shadow: Optical depth of the clouds between the ground and the sun [T, H, W].
        optical_dates: Day of each optical image, ascending [T].
        radar_dates: Day of each radar image, a few days from the optical one [T].
    """

    cover: NDArray[np.intp]
    field: NDArray[np.intp]
    optical: Floats
    radar: Floats
    snow: Floats
    cloud: Floats
    shadow: Floats
    optical_dates: tuple[date, ...]
    radar_dates: tuple[date, ...]


def make_scene(
    seed: int,
    index: int,
    *,
    size: int,
    seasons: int,
    farming: Farming = PLAIN,
    clouds: Sequence[float] = USUAL,
) -> Scene:
    """Returns scene number `index` of `size` x `size` pixels of 10 m.

    The seasons are spread evenly over one year from mid-April; with four of them they are spring,
    summer, autumn and winter. `clouds` says how often there are some, see `sky.cloud_cover`.
    """
    land = make_land(generator(seed, "demo", index, "land"), size, farming)
    dates = _dates(generator(seed, "demo", index, "dates"), seasons)
    optical, radar = (generator(seed, "demo", index, word) for word in ("optical", "radar"))
    return _look(land, dates, (optical, optical), (radar, radar), clouds)


def make_pair(seed: int, index: int, *, size: int) -> tuple[Scene, Scene]:
    """Returns a place in the summers of two years, at T = 1 each, with the crops of `VARIED`.

    In between crops have rotated, and in most places something was built, felled, flooded or
    burned.
    """
    land = make_land(generator(seed, "demo", index, "land"), size, VARIED)
    before = _look_in_summer(seed, index, land, 0)
    land = change_land(generator(seed, "demo", index, "change"), land, VARIED)
    years = int(generator(seed, "demo", index, "years").integers(1, 3))
    return before, _look_in_summer(seed, index, land, years)


def _look_in_summer(seed: int, index: int, land: Land, years: int) -> Scene:
    """Returns a place as it looks `years` after the first time; what lasts looks as it did."""
    first = _dates(generator(seed, "demo", index, "dates"), 4)
    shift = timedelta(int(generator(seed, "demo", index, "shift", years).integers(-9, 10)))
    optical, radar = (
        (days[_SUMMER].replace(year=days[_SUMMER].year + years) + shift,) for days in first
    )
    image, backscatter = (
        (generator(seed, "demo", index, word, "place"), generator(seed, "demo", index, word, years))
        for word in ("optical", "radar")
    )
    return _look(land, (optical, radar), image, backscatter, USUAL)


def _look(
    land: Land, dates: _Dates, optical: _Streams, radar: _Streams, clouds: Sequence[float]
) -> Scene:
    cover = land.cover[land.material]
    image, snow, cloud, shadow = _optical(optical, land, _days(dates[0]), clouds)
    return Scene(
        cover=cover,
        field=np.where(np.isin(cover, FIELDS), land.material, -1),
        optical=image,
        radar=_radar(radar, land, _days(dates[1])),
        snow=snow,
        cloud=cloud,
        shadow=shadow,
        optical_dates=dates[0],
        radar_dates=dates[1],
    )


def _dates(rng: np.random.Generator, seasons: int) -> _Dates:
    spacing = 365 / seasons
    spread = min(14.0, spacing / 6)
    new_year = date(int(rng.integers(2017, 2024)), 1, 1)
    days = _FIRST_DAY + spacing * np.arange(seasons) + rng.uniform(-spread, spread, seasons)
    later = rng.integers(1, 7, seasons) * rng.choice([-1, 1], seasons)
    optical = tuple(new_year + timedelta(int(day)) for day in days)
    return optical, tuple(
        day + timedelta(int(gap)) for day, gap in zip(optical, later, strict=True)
    )


def _days(dates: tuple[date, ...]) -> NDArray[np.float64]:
    return np.array([day.timetuple().tm_yday for day in dates], np.float64)


def _optical(
    streams: _Streams, land: Land, days: NDArray[np.float64], clouds: Sequence[float]
) -> tuple[Floats, Floats, Floats, Floats]:
    lasting, rng = streams
    size = land.height.shape[0]
    wet = sky.moisture(rng, days)
    ground = surface.reflectance(land, surface.mixtures(land, days, wet))
    strength = np.array([_TEXTURE.get(Cover(cover), 0.03) for cover in land.cover], np.float32)
    texture = 1 + strength[land.material] * smooth_noise(lasting, 1, size, (8, 4, 2), 0.9)[0]
    snow, cloud, shadow = np.zeros((3, len(days), size, size), np.float32)
    for t, day in enumerate(days):
        snow[t] = sky.snow_cover(rng, land, day)
        sky.cover_with_snow(ground[t], snow[t])
        ground[t] *= sky.shade(land, day) * texture
        ground[t] = blur(ground[t], centre=4.0)
        cloud[t], shadow[t] = sky.cloud_cover(rng, size, sky.sun(day), clouds)
        sky.see_through(ground[t], cloud[t], shadow[t], haze=rng.uniform(0.0, 0.012))
    return ground, snow, cloud, shadow


def _radar(streams: _Streams, land: Land, days: NDArray[np.float64]) -> Floats:
    lasting, rng = streams
    wet = sky.moisture(rng, days)
    power = surface.backscatter(land, surface.mixtures(land, days, wet))
    ascending = bool(lasting.random() < 0.5)
    power *= radar.corner_reflectors(lasting, land) * radar.slope_gain(land, looks_east=ascending)
    for season in power:
        season *= radar.wind_gain(rng, land)
    return radar.observe(rng, power)
