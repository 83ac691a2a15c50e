"""What happens to a synthetic place from one year to a later one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from seamo_fast.data.demo.scene.cover import Cover, Farming
from seamo_fast.data.demo.scene.land import Land, Mask, Plan, draw_crops, grow
from seamo_fast.data.demo.scene.noise import smooth_noise

_UNCHANGED: Final = 0.15  # of the places
_WATER: Final = (Cover.RIVER, Cover.LAKE)
_FOREST: Final = (Cover.DECIDUOUS, Cover.EVERGREEN)
_BURNS: Final = (*_FOREST, Cover.MEADOW, Cover.PASTURE)


def change_land(rng: np.random.Generator, land: Land, farming: Farming) -> Land:
    """Returns the land some years later: other crops, and in most places one or two events."""
    plan = Plan(rng, len(land.height))
    plan.material = land.material.copy()
    plan.cover = _rotate(rng, land, farming)
    plan.water = np.isin(land.cover, _WATER)[land.material]
    if rng.random() >= _UNCHANGED:
        for event in rng.choice(len(_EVENTS), int(rng.integers(1, 3)), replace=False):
            _EVENTS[event](plan, land)
    new = len(plan.cover) - len(land.cover)
    later = replace(
        land,
        south=land.south * ~plan.water,
        east=land.east * ~plan.water,
        material=plan.material,
        cover=np.array(plan.cover),
        delay=rng.normal(0, farming.spread, len(plan.cover)).astype(np.float32),
        soil=np.append(land.soil, rng.uniform(0.78, 1.25, new)).astype(np.float32),
        roughness=np.append(land.roughness, rng.normal(0, 0.9, new)).astype(np.float32),
    )
    return grow(rng, later, farming)


def _rotate(rng: np.random.Generator, land: Land, farming: Farming) -> list[Cover]:
    """Returns the cover of each material when the fields have other crops; meadows stay."""
    crops = {crop: share for crop, share in farming.shares.items() if crop != Cover.MEADOW}
    total = sum(crops.values())
    sown = draw_crops(rng, {crop: share / total for crop, share in crops.items()}, len(land.cover))
    return [
        crop if cover in crops else Cover(cover)
        for crop, cover in zip(sown, land.cover, strict=True)
    ]


def _build(plan: Plan, _: Land) -> None:
    plan.town(plan.rng.uniform(0.2, 0.8, 2) * plan.size, plan.rng.uniform(8, 20))


def _pave(plan: Plan, _: Land) -> None:
    plan.road(plan.rng.uniform(0.2, 0.8, 2) * plan.size)


def _fell(plan: Plan, _: Land) -> None:
    plan.paint(_patch(plan, _FOREST, plan.rng.uniform(0.15, 0.5)), Cover.CLEARING)


def _burn(plan: Plan, _: Land) -> None:
    plan.paint(_patch(plan, _BURNS, plan.rng.uniform(0.2, 0.6)), Cover.BURNED)


def _flood(plan: Plan, land: Land) -> None:
    """Puts the lowest part of what is dry under muddy water."""
    dry = ~plan.water
    if dry.any():
        flood = dry & (land.height < np.quantile(land.height[dry], plan.rng.uniform(0.05, 0.25)))
        plan.paint(flood, Cover.RIVER)
        plan.water |= flood


def _patch(plan: Plan, covers: tuple[Cover, ...], share: float) -> Mask:
    """Returns a coherent `share` of what has one of the covers."""
    there: Mask = np.isin(plan.cover, covers)[plan.material]
    noise = smooth_noise(plan.rng, 1, plan.size, (30, 12))[0]
    return there & (noise > np.quantile(noise[there], 1 - share)) if there.any() else there


_EVENTS: Final[tuple[Callable[[Plan, Land], None], ...]] = (_build, _pave, _fell, _burn, _flood)
