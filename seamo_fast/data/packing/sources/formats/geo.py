"""Where on Earth a tile is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from seamo_fast.data.shards.tiff import open_tiff

# longitude and latitude in degrees, and those of four corners, one after the other
Position = tuple[float, float]
Footprint = tuple[Position, Position, Position, Position]
_RADIUS: Final = 6378137.0  # WGS 84, metres
_ECCENTRICITY: Final = 0.00669437999014  # WGS 84, squared
_SCALE: Final = 0.9996  # of UTM on its central meridian


def tiff_position(path: Path) -> Position | None:
    """Returns longitude and latitude of the centre of a GeoTIFF in degrees.

    None if the file has no georeference, or another one than WGS 84 degrees or UTM.
    """
    return _located(path, ((0.5, 0.5),))[0]


def tiff_footprint(path: Path) -> Footprint | None:
    """Returns longitude and latitude of the corners of a GeoTIFF in degrees.

    None where `tiff_position` is None.
    """
    a, b, c, d = _located(path, ((0, 0), (1, 0), (1, 1), (0, 1)))
    return None if a is None or b is None or c is None or d is None else (a, b, c, d)


def _located(path: Path, points: Sequence[tuple[float, float]]) -> list[Position | None]:
    """Returns where points are; they are given in widths and heights from the first pixel."""
    try:
        with open_tiff(path) as file:
            page = file.pages.first
            tags: dict[str, Any] = page.geotiff_tags or {}
            origin, step = tags["ModelTiepoint"], tags["ModelPixelScale"]
            code = tags.get("ProjectedCSTypeGeoKey") or tags.get("GeographicTypeGeoKey", 0)
            return [
                to_degrees(
                    float(origin[3]) + (page.imagewidth * x - float(origin[0])) * float(step[0]),
                    float(origin[4]) - (page.imagelength * y - float(origin[1])) * float(step[1]),
                    int(code),
                )
                for x, y in points
            ]
    except Exception:  # noqa: BLE001 (a damaged file raises anything; its pixels show why)
        return [None] * len(points)


def square(centre: Position, side: float) -> Footprint:
    """Returns the corners of a square on the UTM grid.

    Args:
        centre: Its longitude and latitude in degrees.
        side: Metres.
    """
    longitude, latitude = math.radians(centre[0]), math.radians(centre[1])
    curve = 1 - _ECCENTRICITY * math.sin(latitude) ** 2
    north = side / 2 / (_RADIUS * (1 - _ECCENTRICITY) / curve**1.5)
    east = side / 2 / (_RADIUS / math.sqrt(curve) * max(math.cos(latitude), 1e-6))
    # the grid is turned against true north, more so away from the middle of its zone
    middle = math.radians(centre[0] // 6 * 6 + 3)
    turn = math.atan(math.tan(longitude - middle) * math.sin(latitude))
    a, b, c, d = (
        (
            centre[0] + math.degrees(east * (x * math.cos(turn) + y * math.sin(turn))),
            centre[1] + math.degrees(north * (y * math.cos(turn) - x * math.sin(turn))),
        )
        for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))
    )
    return a, b, c, d


def to_degrees(x: float, y: float, epsg: int) -> Position | None:
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


def _from_utm(x: float, y: float, zone: int) -> Position:
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
