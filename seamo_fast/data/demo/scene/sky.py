"""Light, snow, haze and clouds over a synthetic scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seamo_fast.data.demo.scene.cover import Cover
from seamo_fast.data.demo.scene.land import Land
from seamo_fast.data.demo.scene.noise import Floats, smooth_noise, smoothstep

LATITUDE: Final = 47.0
_WAVELENGTH: Final = np.array(
    [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190], np.float32
)
_SNOW: Final = np.array(
    [88, 90, 90, 88, 87, 85, 83, 80, 77, 66, 12, 10], np.float32
)[:, None, None] / 100  # fmt: skip
_CLOUD: Final = np.array(
    [66, 66, 65, 65, 66, 67, 67, 68, 68, 55, 46, 36], np.float32
)[:, None, None] / 100  # fmt: skip
# shares of dates that are clear, have thin veils, have scattered clouds, are overcast
USUAL: Final = (0.79, 0.07, 0.12, 0.02)
CLOUDY: Final = (0.25, 0.15, 0.3, 0.3)
# How much of the snow on the ground is seen from above; 0.95 where nothing stands on it.
_SNOW_SEEN: Final = {
    Cover.EVERGREEN: 0.1,
    Cover.DECIDUOUS: 0.22,
    Cover.RIVER: 0.0,
    Cover.LAKE: 0.0,
    Cover.ROAD: 0.25,
    Cover.GARDEN: 0.4,
    Cover.TILES: 0.45,
    Cover.GREY_ROOF: 0.5,
    Cover.BRIGHT_ROOF: 0.5,
}


class Sun(NamedTuple):
    """Direction of the sun in radians; the azimuth counts clockwise from north."""

    zenith: float
    azimuth: float


def sun(day: float) -> Sun:
    """Returns the sun at half past ten, the local time at which Sentinel-2 passes.

    Cooper, "The absorption of radiation in solar stills", 1969, for the declination.
    """
    declination = np.deg2rad(23.45) * np.sin(2 * np.pi * (284 + day) / 365)
    latitude, hour = np.deg2rad(LATITUDE), np.deg2rad(-22.5)
    height = np.sin(latitude) * np.sin(declination)
    height += np.cos(latitude) * np.cos(declination) * np.cos(hour)
    zenith = float(np.arccos(height))
    azimuth = np.arcsin(np.cos(declination) * np.sin(hour) / np.sin(zenith))
    return Sun(zenith, float(np.pi + azimuth))


def shade(land: Land, day: float) -> Floats:
    """Returns the light on each pixel relative to flat ground [H, W]."""
    zenith, azimuth = sun(day)
    facing = land.south * np.cos(azimuth) - land.east * np.sin(azimuth)
    light = (1 + np.tan(zenith) * facing) / np.sqrt(1 + land.south**2 + land.east**2)
    # Sky light reaches every slope.
    result: Floats = (0.2 + 0.8 * np.clip(light, 0, 1.7)).astype(np.float32)
    return result


def snow_cover(rng: np.random.Generator, land: Land, day: float) -> Floats:
    """Returns the share of snow seen in each pixel [H, W]."""
    winter = (1 + np.cos(2 * np.pi * (day - 35) / 365)) / 2
    line = 3000 - 2300 * winter + rng.normal(0, 180)
    if rng.random() < 0.22 * winter**8:
        line = land.height.min() - rng.uniform(0, 150)
    depth = (land.height - np.float32(line)) / 70
    depth = depth + 0.7 * smooth_noise(rng, 1, land.height.shape[0], (16, 7))[0]
    seen = np.array([_SNOW_SEEN.get(Cover(cover), 0.95) for cover in land.cover], np.float32)
    return smoothstep(depth, 0, 2) * seen[land.material]


def cover_with_snow(ground: Floats, snow: Floats) -> None:
    """Replaces the share `snow` [H, W] of the reflectance [12, H, W], in place."""
    if snow.any():
        ground += snow * (_SNOW - ground)


def cloud_cover(
    rng: np.random.Generator, size: int, direction: Sun, kinds: Sequence[float] = USUAL
) -> tuple[Floats, Floats]:
    """Returns the optical depth of the clouds, and of the clouds before the sun [H, W] each.

    `kinds` are their shares, see `USUAL`.
    """
    kind = rng.choice(4, p=kinds)
    if kind == 0:
        clear = np.zeros((size, size), np.float32)
        return clear, clear
    altitude = rng.uniform(8, 20)
    reach = altitude * min(np.tan(direction.zenith), 1.5)
    north = round(reach * np.cos(direction.azimuth))
    east = round(reach * np.sin(direction.azimuth))
    margin = 30
    field = smooth_noise(rng, 1, size + 2 * margin, (44, 20, 9, 4), 0.5)[0]
    base, thickest = ((-0.6, 0.4), (0.6, 5.0), (-0.9, 5.0))[kind - 1]
    depth = smoothstep(field, base, base + 2.2) * np.float32(thickest)
    # A shadow lies where the cloud stands between ground and sun.
    rows, columns = margin - north, margin + east
    shadow = depth[rows : rows + size, columns : columns + size]
    return depth[margin : margin + size, margin : margin + size], shadow


def see_through(ground: Floats, cloud: Floats, shadow: Floats, haze: float) -> None:
    """Lays haze, shadows and clouds over the ground [12, H, W], in place."""
    ground += (haze * (_WAVELENGTH / 490) ** -2.5)[:, None, None].astype(np.float32)
    if not (cloud.any() or shadow.any()):
        return
    ground *= 0.36 + 0.64 * np.exp(-shadow)
    brightness = _CLOUD * (0.6 + 0.085 * cloud)
    ground += (1 - np.exp(-1.2 * cloud)) * (brightness - ground)


def moisture(rng: np.random.Generator, days: NDArray[np.float64]) -> Floats:
    """Returns how wet the soil is on each day, 0 to 1: wetter in winter, with weather."""
    season = 0.45 + 0.38 * np.cos(2 * np.pi * (days - 15) / 365)
    return np.clip(season + rng.normal(0, 0.12, len(days)), 0.05, 0.95).astype(np.float32)
