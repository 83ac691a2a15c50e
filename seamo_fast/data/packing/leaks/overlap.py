"""Which footprints overlap: a search on grids of cells, then the area that two of them share.

Areas are compared in degrees: two footprints that overlap are so near to each other that the same
degree is as long in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

LEAST: Final = 0.01  # of the smaller footprint; less is a common edge, or how corners are rounded
_WIDEST: Final = 180.0  # degrees
_ROUNDED: Final = 1e9  # parts of a degree: 0.1 mm
_FINEST: Final = 30  # level of cells of 4 cm
_AT_ONCE: Final = 2**20  # pairs, for memory


def overlapping(corners: np.ndarray, owners: np.ndarray) -> Iterator[np.ndarray]:
    """Yields pairs of owners whose footprints share ground, [k, 2] a time.

    Some come twice. Of equal footprints only one is compared with others: whatever shares ground is
    connected by pairs, but need not be a pair itself.

    Args:
        corners: Longitudes and latitudes [n, 4, 2] of convex footprints, around either way; sides
            go the short way around the Earth. One that is not finite, has no area or is half the
            Earth wide overlaps nothing.
        owners: Whose each is, integers [n]; those of one owner are not compared.
    """
    corners, kept = _straightened(corners)
    owners = owners[kept]
    if not len(owners):
        return
    rounded = np.round(corners.reshape(-1, 8) * _ROUNDED).astype(np.int64)
    _, first, same = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    first_owners = owners[first]
    yield _different(np.stack([first_owners[same.reshape(-1)], owners], 1))
    # of equal footprints one stands for all
    corners, owners = corners[first], first_owners
    for a, b in _near(corners.min(1), corners.max(1)):
        apart = owners[a] != owners[b]
        a, b = a[apart], b[apart]
        yield np.stack([owners[a], owners[b]], 1)[_share(corners, a, b) > LEAST]


def _different(pairs: np.ndarray) -> np.ndarray:
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _straightened(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns footprints counter-clockwise and in one piece, and which of the given ones they are.

    One across the antimeridian has longitudes above 180.
    """
    kept = np.flatnonzero(np.isfinite(corners).all((1, 2)))
    corners = corners[kept].astype(np.float64)
    x = corners[..., 0]
    x = x[:, :1] + (x - x[:, :1] + 180) % 360 - 180
    west = x.min(1, keepdims=True)
    x += (west + 180) % 360 - 180 - west
    corners[..., 0] = x
    area = _area(corners)
    usual = (area != 0) & (np.ptp(x, 1) < _WIDEST)
    corners[area < 0] = corners[area < 0, ::-1]
    return corners[usual], kept[usual]


def _near(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of boxes [n, 2] that have a cell in common; each pair once a chunk.

    The cells of level k are 360 / 2^k degrees wide. A box is kept at the level whose cells are just
    larger than it is, so that it lies in four of them at most, and looked for at all coarser ones.
    """
    levels = np.floor(np.log2(360 / np.maximum((high - low).max(1), 1e-9)))
    levels = levels.clip(0, _FINEST).astype(np.int64)
    for level in np.unique(levels):
        here = np.flatnonzero(levels == level)
        keys, boxes = _cells(low, high, here, level)
        order = keys.argsort(kind="stable")
        keys, boxes = keys[order], boxes[order]
        wanted, seekers = _cells(low, high, np.flatnonzero(levels >= level), level)
        start, end = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, "right")
        for part in _parts(end - start):
            counts = (end - start)[part]
            before = np.repeat(counts.cumsum() - counts, counts)
            found = boxes[np.arange(counts.sum()) - before + np.repeat(start[part], counts)]
            seeker = np.repeat(seekers[part], counts)
            # two of one level find each other
            once = (levels[seeker] > level) | (seeker < found)
            codes = np.unique(seeker[once] * len(low) + found[once])
            yield codes // len(low), codes % len(low)


def _cells(
    low: np.ndarray, high: np.ndarray, boxes: np.ndarray, level: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of each cell that a box lies in, and the box."""
    size = 360 / 2.0**level
    first, last = np.floor(low[boxes] / size), np.floor(high[boxes] / size)
    keys, found = [], []
    for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell = (first + np.array((x, y))).astype(np.int64)
        inside = (cell <= last).all(1)
        keys.append(cell[inside, 0] % 2**level << 32 | cell[inside, 1] + 2**31)
        found.append(boxes[inside])
    return np.concatenate(keys), np.concatenate(found)


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Cuts counts into pieces whose sums are about `_AT_ONCE`, or that are a single count."""
    ends = counts.cumsum()
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + _AT_ONCE, "right")), start + 1)
        yield slice(start, end)
        start = end


def _share(corners: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the common area of pairs, as a share of the smaller of the two."""
    one, other = corners[a], corners[b].copy()
    # side by side on the same turn around the Earth, and near 0, where numbers are finest
    other[..., 0] += 360 * np.round((one[:, :1, 0] - other[:, :1, 0]) / 360)
    other, one = other - one[:, :1], one - one[:, :1]
    smaller = np.minimum(_area(one), _area(other))
    sides = np.minimum(one.max(1), other.max(1)) - np.maximum(one.min(1), other.min(1))
    shares = np.where((sides > 0).all(1), sides.prod(1), 0) / smaller
    close = np.flatnonzero(shares > LEAST)  # by their boxes, which are never smaller
    shares[close] = common_area(one[close], other[close]) / smaller[close]
    return shares


def common_area(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the areas [n] that convex polygons [n, corners, 2], counter-clockwise, share."""
    for start, end in zip(range(-1, other.shape[1]), range(other.shape[1]), strict=False):
        one = _cut(one, other[:, start, None], other[:, end, None])
    return _area(one)


def _cut(polygons: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns what is left of lines [n, 1, 2]; corners may come several times."""
    side = _cross(end - start, polygons - start)
    following, beyond = np.roll(polygons, -1, 1), np.roll(side, -1, 1)
    inside = side >= 0
    crossing = inside != (beyond >= 0)
    along = side / np.where(crossing, side - beyond, 1)
    cuts = polygons + along[..., None] * (following - polygons)
    count, most = inside.shape
    points = np.stack([polygons, cuts], 2).reshape(count, 2 * most, 2)
    kept = np.stack([inside, crossing], 2).reshape(count, 2 * most)
    # a cut adds one corner; those that are gone become the first that is left
    order = np.argsort(~kept, 1, kind="stable")[:, : most + 1]
    points = np.take_along_axis(points, order[..., None], 1)
    kept = np.take_along_axis(kept, order, 1)
    return np.where(kept[..., None], points, points[:, :1])


def _area(polygons: np.ndarray) -> np.ndarray:
    """Returns areas [n] of polygons [n, corners, 2]; below 0 if their corners go clockwise."""
    away = polygons - polygons[:, :1]
    return _cross(away, np.roll(away, -1, 1)).sum(1) / 2


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
