"""What Sentinel-1 receives from a synthetic scene: points, slopes, wind and speckle."""

from __future__ import annotations

from typing import Final

import numpy as np

from seamo_fast.data.demo.scene.cover import Cover
from seamo_fast.data.demo.scene.land import Land
from seamo_fast.data.demo.scene.noise import Floats, blur

# Noise-equivalent backscatter of the sensor, linear power of VV and VH.
_FLOOR: Final = (10 ** (np.array([-26.0, -28.0], np.float32) / 10))[:, None, None]
_INCIDENCE: Final = np.deg2rad(38.0)
_BUILT: Final = (Cover.TILES, Cover.GREY_ROOF, Cover.BRIGHT_ROOF)
_WATER: Final = (Cover.RIVER, Cover.LAKE)


def corner_reflectors(rng: np.random.Generator, land: Land) -> Floats:
    """Returns the gain [H, W] of walls that send the wave straight back: 1 where there are none."""
    built = np.isin(land.cover, _BUILT)[land.material]
    decibel = rng.gamma(1.2, 4.5, built.shape)
    struck = built & (rng.random(built.shape, np.float32) < 0.22)
    result: Floats = np.where(struck, 10 ** (np.minimum(decibel, 16) / 10), 1).astype(np.float32)
    return result


def slope_gain(land: Land, looks_east: bool) -> Floats:
    """Returns the gain [H, W] of slopes towards or away from the sensor, as sin / sin local angle.

    Small, "Flattening gamma: radiometric terrain correction for SAR imagery", 2011, describes the
    effect in full; here only the slope in the direction of view counts.
    """
    rise = land.east if looks_east else -land.east
    local = _INCIDENCE - np.arctan(rise)
    result: Floats = (np.sin(_INCIDENCE) / np.sin(np.clip(local, 0.15, 1.4))).astype(np.float32)
    return result


def wind_gain(rng: np.random.Generator, land: Land) -> Floats:
    """Returns the gain [H, W] of waves on water: a calm day is darker than a windy one."""
    gain = np.ones(len(land.cover), np.float32)
    gain[np.isin(land.cover, _WATER)] = 10 ** (rng.normal(0, 1.6) / 10)
    image: Floats = gain[land.material]
    return image


def observe(rng: np.random.Generator, power: Floats) -> Floats:
    """Returns what is measured of mean backscatter [..., 2, H, W], in dB.

    Speckle multiplies the power. It is shared between neighbours, because pixels are spaced more
    closely than the sensor resolves, and has about 25 equivalent looks, as after a speckle filter.
    """
    speckle: Floats = rng.standard_gamma(5.0, power.shape, np.float32)
    result: Floats = 10 * np.log10((power + _FLOOR) / 5 * blur(speckle, centre=3.0))
    return result
