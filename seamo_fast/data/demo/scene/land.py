"""The ground of a synthetic scene: relief, and what covers each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seamo_fast.data.demo.scene.cover import FIELDS, PLAIN, Cover, Farming
from seamo_fast.data.demo.scene.noise import Floats, smooth_noise

Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]

PIXEL = 10.0  # metres
_TOWN = (Cover.TILES, Cover.GREY_ROOF, Cover.BRIGHT_ROOF, Cover.GARDEN)


@dataclass(frozen=True)
class Land:
    """What does not change with the season.

    Attributes:
        height: Metres above the sea [H, W].
        south: Metres by which the ground rises per metre to the south (down) [H, W].
        east: Metres by which the ground rises per metre to the east (right) [H, W].
        vigour: How well plants grow at each pixel, 0 to 1 [H, W].
        material: Which material covers each pixel [H, W].
        cover: Cover of each material [materials].
        delay: Days by which a material is later than the typical one of its cover [materials].
        soil: Brightness of a material's soil or surface, about 1 [materials].
        roughness: Decibels by which its backscatter differs from the typical one [materials].
        density: Share of the plants of a full stand that a material has [materials].
    """

    height: Floats
    south: Floats
    east: Floats
    vigour: Floats
    material: Ints
    cover: Ints
    delay: Floats
    soil: Floats
    roughness: Floats
    density: Floats


def make_land(rng: np.random.Generator, size: int, farming: Farming = PLAIN) -> Land:
    """Returns the land of a tile of `size` pixels of 10 m."""
    mountain = rng.random() < 0.16
    base = rng.uniform(900, 2100) if mountain else rng.uniform(0, 500)
    relief = smooth_noise(rng, 1, size, (56, 28, 14, 7), 0.42)[0]
    height = base + relief * (rng.uniform(90, 170) if mountain else rng.uniform(4, 28))

    plan = Plan(rng, size)
    plan.fields(farming.shares, hedged=0.0 if mountain else 0.25)
    plan.forest(rng.beta(1.4, 3.2) if not mountain else rng.uniform(0.3, 0.7), mountain)
    if mountain:
        plan.rock(height, rng.uniform(0.03, 0.35))
    if rng.random() < (0.12 if mountain else 0.28):
        height = plan.lake(height, rng.uniform(0.06, 0.35))
    if not mountain and rng.random() < 0.5:
        plan.river(rng.uniform(1.2, 4.5))
    centre = rng.uniform(0.15, 0.85, 2) * size
    if not mountain and rng.random() < 0.5:
        plan.town(centre, rng.uniform(10, 28))
    if rng.random() < (0.3 if mountain else 0.75):
        plan.road(centre)

    south, east = np.gradient(height.astype(np.float32), PIXEL) * ~plan.water
    number = len(plan.cover)
    land = Land(
        height=height.astype(np.float32),
        south=south,
        east=east,
        vigour=np.clip(0.55 + 0.2 * smooth_noise(rng, 1, size, (20, 10, 5))[0], 0, 1),
        material=plan.material,
        cover=np.array(plan.cover),
        delay=rng.normal(0, farming.spread, number).astype(np.float32),
        soil=rng.uniform(0.78, 1.25, number).astype(np.float32),
        roughness=rng.normal(0, 0.9, number).astype(np.float32),
        density=np.ones(number, np.float32),
    )
    return grow(rng, land, farming)


def grow(rng: np.random.Generator, land: Land, farming: Farming) -> Land:
    """Returns the land with the weather and the stands of another year."""
    number = len(land.cover)
    density = rng.uniform(*farming.density, number)
    return replace(
        land,
        delay=(land.delay + rng.normal(0, farming.weather)).astype(np.float32),
        density=np.where(np.isin(land.cover, FIELDS), density, 1).astype(np.float32),
    )


def draw_crops(rng: np.random.Generator, shares: Mapping[Cover, float], count: int) -> list[Cover]:
    """Returns what grows on each of `count` fields."""
    crops = list(shares)
    return [crops[crop] for crop in rng.choice(len(crops), count, p=list(shares.values()))]


class Plan:
    """A map of materials onto which one feature after the other is drawn."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.cover: list[Cover] = []
        self.material: Ints = np.zeros((size, size), np.intp)
        self.water = np.zeros((size, size), np.bool_)
        self.y, self.x = np.mgrid[:size, :size].astype(np.float32)
        self.bends = smooth_noise(rng, 2, size, (40, 20))

    def _new(self, cover: Cover) -> int:
        self.cover.append(cover)
        return len(self.cover) - 1

    def paint(self, where: Mask, cover: Cover) -> None:
        """Covers some pixels by a new material."""
        self.material[where] = self._new(cover)

    def _axes(self, bend: float) -> tuple[Floats, Floats]:
        """Coordinates along a random direction and across it, in pixels from the middle."""
        angle = self.rng.uniform(0, np.pi)
        y, x = self.y - self.size / 2, self.x - self.size / 2
        along = np.cos(angle) * x + np.sin(angle) * y + bend * self.bends[0]
        across = np.cos(angle) * y - np.sin(angle) * x + bend * self.bends[1]
        return along.astype(np.float32), across.astype(np.float32)

    def fields(self, shares: Mapping[Cover, float], hedged: float) -> None:
        """Fills the tile with parcels, the share `hedged` of them with trees along the border."""
        parcel = self._strips() if self.rng.random() < 0.7 else self._cells()
        numbers = np.unique(parcel, return_inverse=True)[1]
        self.material = numbers.reshape(parcel.shape)
        count = int(self.material.max()) + 1
        self.cover = draw_crops(self.rng, shares, count)
        hedge = self.rng.random(count) < hedged
        border = np.zeros_like(self.water)
        border[:, 1:] |= self.material[:, 1:] != self.material[:, :-1]
        border[1:] |= self.material[1:] != self.material[:-1]
        self.paint(border & hedge[self.material], Cover.DECIDUOUS)

    def _strips(self) -> Ints:
        """Parcels one after the other in parallel strips."""
        along, across = self._axes(bend=1.5)
        reach = self.size * 1.5
        edges = np.cumsum(self.rng.uniform(14, 34, int(reach * 2 / 14))) - reach
        strip = np.searchsorted(edges, across.ravel()).reshape(across.shape)
        length = self.rng.uniform(22, 60, len(edges) + 1)[strip]
        start = self.rng.uniform(0, 1, len(edges) + 1)[strip]
        piece = np.floor(along / length + start).astype(np.intp)
        parcels: Ints = strip * 1000 + piece
        return parcels

    def _cells(self) -> Ints:
        """Parcels around scattered points: each pixel belongs to the nearest (Voronoi)."""
        count = max(2, int(self.size**2 / self.rng.uniform(550, 1100)))
        points = self.rng.uniform(-4, self.size + 4, (2, count)).astype(np.float32)
        y, x = self.y + 1.5 * self.bends[0], self.x + 1.5 * self.bends[1]
        # |p - q|^2 without its |p|^2, which is the same for every q.
        half = (points**2).sum(axis=0) / 2
        distance = half - y[..., None] * points[0] - x[..., None] * points[1]
        return distance.argmin(axis=-1)

    def forest(self, share: float, mountain: bool) -> None:
        """Covers `share` of the tile by stands of broad-leaved and needle trees."""
        stand, kind = smooth_noise(self.rng, 2, self.size, (40, 18, 8), 0.4)
        wood = stand > np.quantile(stand, 1 - share)
        needles = kind > (-0.5 if mountain else 0.3)
        self.paint(wood & ~needles, Cover.DECIDUOUS)
        self.paint(wood & needles, Cover.EVERGREEN)
        if mountain:
            open_land = np.isin(self.material, np.flatnonzero(np.isin(self.cover, FIELDS)))
            self.paint(open_land & ~wood, Cover.PASTURE)

    def rock(self, height: Floats, share: float) -> None:
        """Bares the highest and roughest ground."""
        bareness = height / height.std() + smooth_noise(self.rng, 1, self.size, (20, 10, 5), 0.5)[0]
        self.paint(bareness > np.quantile(bareness, 1 - share), Cover.ROCK)

    def lake(self, height: Floats, share: float) -> Floats:
        """Floods the lowest `share` of the tile; returns the height of ground and water."""
        level = np.quantile(height, share)
        lake = height < level
        self.paint(lake, Cover.LAKE)
        self.water |= lake
        return np.maximum(height, level)

    def river(self, width: float) -> None:
        """Draws a meandering river of half `width` pixels with trees on its banks."""
        along, across = self._axes(bend=0)
        bed = self.rng.uniform(-0.25, 0.25) * self.size
        slope = np.zeros_like(along)
        course = np.full_like(along, bed)
        for length, swing in ((70, 9.0), (31, 3.5)):
            rate = 2 * np.pi / (length * self.rng.uniform(0.8, 1.25))
            swing *= self.rng.uniform(0.5, 1.2)
            phase = rate * along + self.rng.uniform(0, 2 * np.pi)
            course += swing * np.sin(phase)
            slope += swing * rate * np.cos(phase)
        distance = np.abs(across - course) / np.sqrt(1 + slope**2)
        bank = (distance < width + 2.2) & (self.bends[1] > -0.3) & ~self.water
        self.paint(bank, Cover.DECIDUOUS)
        river = (distance < width) & ~self.water
        self.paint(river, Cover.RIVER)
        self.water |= river

    def town(self, centre: NDArray[np.float64], radius: float) -> None:
        """Builds houses with gardens, streets, and an estate of large roofs on one side."""
        along, across = self._axes(bend=0.5)
        away = np.hypot(self.y - centre[0], self.x - centre[1])
        built = (away * (1 + 0.3 * self.bends[0]) < radius) & ~self.water
        side = self.rng.uniform(0, 2 * np.pi)
        row, column = centre + radius * 0.6 * np.array([np.sin(side), np.cos(side)])
        estate = built & (np.hypot(self.y - row, self.x - column) < radius * 0.5)
        ground = [self._new(cover) for cover in _TOWN]
        for where, house, share in (
            (built & ~estate, 2.2, (0.40, 0.16, 0.05, 0.39)),
            (estate, 5.5, (0.04, 0.36, 0.42, 0.18)),
        ):
            lot = self.rng.choice(ground, (64, 64), p=share)
            rows = np.floor(across[where] / house).astype(np.intp) % 64
            self.material[where] = lot[rows, np.floor(along[where] / house).astype(np.intp) % 64]
        block = self.rng.uniform(8, 13)
        street = (np.mod(along, block * 1.5) < 1.2) | (np.mod(across, block) < 1.2)
        self.paint(built & street, Cover.ROAD)

    def road(self, through: NDArray[np.float64]) -> None:
        """Draws a gently curved road through a point."""
        along, across = self._axes(bend=0)
        row, column = (int(value) for value in through)
        line = across - across[row, column]
        line = line + 5 * (np.sin(along / 25) - np.sin(along[row, column] / 25))
        self.paint(np.abs(line) < 0.8, Cover.ROAD)
