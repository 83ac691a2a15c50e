"""Where on Earth a tile is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import tifffile

_RADIUS: Final = 6378137.0  # WGS 84, metres
_ECCENTRICITY: Final = 0.00669437999014  # WGS 84, squared
_SCALE: Final = 0.9996  # of UTM on its central meridian


def tiff_position(path: Path) -> tuple[float, float] | None:
    """Returns longitude and latitude of the centre of a GeoTIFF in degrees.

    None if the file has no georeference, or another one than WGS 84 degrees or UTM.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            tags: dict[str, Any] = page.geotiff_tags or {}
            origin, step = tags["ModelTiepoint"], tags["ModelPixelScale"]
            x = float(origin[3]) + (page.imagewidth / 2 - float(origin[0])) * float(step[0])
            y = float(origin[4]) - (page.imagelength / 2 - float(origin[1])) * float(step[1])
            code = tags.get("ProjectedCSTypeGeoKey") or tags.get("GeographicTypeGeoKey", 0)
            return to_degrees(x, y, int(code))
    except Exception:  # noqa: BLE001 (a damaged file raises anything; its pixels show why)
        return None


def to_degrees(x: float, y: float, epsg: int) -> tuple[float, float] | None:
    """Returns longitude and latitude of map coordinates; None unless WGS 84 degrees or UTM."""
    if epsg == 4326:
        found = (x, y)
    elif 32601 <= epsg <= 32660:
        found = _from_utm(x, y, epsg - 32600)
    elif 32701 <= epsg <= 32760:
        found = _from_utm(x, y - 1e7, epsg - 32700)
    else:
        return None
    return found if abs(found[0]) <= 360 and abs(found[1]) <= 90 else None


def _from_utm(x: float, y: float, zone: int) -> tuple[float, float]:
    """Inverse of the transverse Mercator projection: Snyder, "Map Projections" (1987), p. 63."""
    e2 = _ECCENTRICITY
    mu = y / _SCALE / (_RADIUS * (1 - e2 / 4 - 3 * e2**2 / 64 - 5 * e2**3 / 256))
    e1 = (1 - math.sqrt(1 - e2)) / (1 + math.sqrt(1 - e2))
    foot = (
        mu
        + (3 * e1 / 2 - 27 * e1**3 / 32) * math.sin(2 * mu)
        + (21 * e1**2 / 16 - 55 * e1**4 / 32) * math.sin(4 * mu)
        + 151 * e1**3 / 96 * math.sin(6 * mu)
    )
    prime = e2 / (1 - e2)
    c = prime * math.cos(foot) ** 2
    t = math.tan(foot) ** 2
    curve = 1 - e2 * math.sin(foot) ** 2
    n, r = _RADIUS / math.sqrt(curve), _RADIUS * (1 - e2) / curve**1.5
    d = (x - 500000) / (n * _SCALE)
    latitude = foot - n * math.tan(foot) / r * (
        d**2 / 2
        - (5 + 3 * t + 10 * c - 4 * c**2 - 9 * prime) * d**4 / 24
        + (61 + 90 * t + 298 * c + 45 * t**2 - 252 * prime - 3 * c**2) * d**6 / 720
    )
    longitude = (
        d
        - (1 + 2 * t + c) * d**3 / 6
        + (5 - 2 * c + 28 * t - 3 * c**2 + 8 * prime + 24 * t**2) * d**5 / 120
    ) / math.cos(foot)
    return zone * 6 - 183 + math.degrees(longitude), math.degrees(latitude)
