"""Synthetic scenes of Sentinel-1 and Sentinel-2: one place, seen on several days of a year.

A scene has fields with crops, forest, water, towns, mountains and roads on a relief. Its optical
and its radar images are made from the same ground, and every number is a pure function of the seed
and the scene's index. See `make_scene`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seamo_fast.data.demo.scene import radar, sky, surface
from seamo_fast.data.demo.scene.land import FIELDS, Cover, Land, make_land
from seamo_fast.data.demo.scene.noise import Floats, area_mean, blur, smooth_noise
from seamo_fast.randomness import generator

__all__ = ["FIELDS", "OPTICAL_BANDS", "RADAR_BANDS", "Cover", "Scene", "area_mean", "make_scene"]

OPTICAL_BANDS: Final = (
    "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12",
)  # fmt: skip
RADAR_BANDS: Final = ("VV", "VH")
_FIRST_DAY: Final = 105
# Strength of the fine texture: canopies cast shadows, water has none, other covers have 0.03.
_TEXTURE: Final = {
    Cover.DECIDUOUS: 0.07,
    Cover.EVERGREEN: 0.07,
    Cover.ROCK: 0.08,
    Cover.RIVER: 0.015,
    Cover.LAKE: 0.015,
}


@dataclass(frozen=True)
class Scene:
    """One place in T seasons, on the 10 m grid.

    Attributes:
        cover: Cover of each pixel, see `Cover` [H, W].
        optical: Reflectance of `OPTICAL_BANDS` without sensor noise, float32 [T, 12, H, W].
        radar: Backscatter of `RADAR_BANDS` in dB with speckle, float32 [T, 2, H, W].
        snow: Share of each pixel that is snow [T, H, W].
        cloud: Optical depth of the clouds [T, H, W].
        shadow: Optical depth of the clouds between the ground and the sun [T, H, W].
        optical_dates: Day of each optical image, ascending [T].
        radar_dates: Day of each radar image, a few days from the optical one [T].
    """

    cover: NDArray[np.intp]
    optical: Floats
    radar: Floats
    snow: Floats
    cloud: Floats
    shadow: Floats
    optical_dates: tuple[date, ...]
    radar_dates: tuple[date, ...]


def make_scene(seed: int, index: int, *, size: int, seasons: int) -> Scene:
    """Returns scene number `index` of `size` x `size` pixels of 10 m.

    The seasons are spread evenly over one year from mid-April; with four of them they are spring,
    summer, autumn and winter.
    """
    land = make_land(generator(seed, "demo", index, "land"), size)
    optical_dates, radar_dates = _dates(generator(seed, "demo", index, "dates"), seasons)
    rng = generator(seed, "demo", index, "optical")
    optical, snow, cloud, shadow = _optical(rng, land, _days(optical_dates))
    return Scene(
        cover=land.cover[land.material],
        optical=optical,
        radar=_radar(generator(seed, "demo", index, "radar"), land, _days(radar_dates)),
        snow=snow,
        cloud=cloud,
        shadow=shadow,
        optical_dates=optical_dates,
        radar_dates=radar_dates,
    )


def _dates(rng: np.random.Generator, seasons: int) -> tuple[tuple[date, ...], tuple[date, ...]]:
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
    rng: np.random.Generator, land: Land, days: NDArray[np.float64]
) -> tuple[Floats, Floats, Floats, Floats]:
    size = land.height.shape[0]
    wet = sky.moisture(rng, days)
    ground = surface.reflectance(land, surface.mixtures(land, days, wet))
    strength = np.array([_TEXTURE.get(Cover(cover), 0.03) for cover in land.cover], np.float32)
    texture = 1 + strength[land.material] * smooth_noise(rng, 1, size, (8, 4, 2), 0.9)[0]
    snow, cloud, shadow = np.zeros((3, len(days), size, size), np.float32)
    for t, day in enumerate(days):
        snow[t] = sky.snow_cover(rng, land, day)
        sky.cover_with_snow(ground[t], snow[t])
        ground[t] *= sky.shade(land, day) * texture
        ground[t] = blur(ground[t], centre=4.0)
        cloud[t], shadow[t] = sky.cloud_cover(rng, size, sky.sun(day))
        sky.see_through(ground[t], cloud[t], shadow[t], haze=rng.uniform(0.0, 0.012))
    return ground, snow, cloud, shadow


def _radar(rng: np.random.Generator, land: Land, days: NDArray[np.float64]) -> Floats:
    wet = sky.moisture(rng, days)
    power = surface.backscatter(land, surface.mixtures(land, days, wet))
    ascending = bool(rng.random() < 0.5)
    power *= radar.corner_reflectors(rng, land) * radar.slope_gain(land, looks_east=ascending)
    for season in power:
        season *= radar.wind_gain(rng, land)
    return radar.observe(rng, power)
