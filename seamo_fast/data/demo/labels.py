"""Generated places with labels: ordinary shards, and beside them `labels.npy`.

Their places are numbered from 2**32, which `demo_shards` never reaches: whatever the seed, no
pretraining on those has seen them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from seamo_fast.data.demo.dataset import (
    DemoSample,
    check_size,
    is_intact,
    observe,
    write_once,
    write_samples,
)
from seamo_fast.data.demo.scene import CLOUDY, USUAL, VARIED, Scene, make_pair, make_scene
from seamo_fast.data.shards.manifest import ArraySpec
from seamo_fast.data.shards.mapped_arrays import check_npy
from seamo_fast.errors import DataError
from seamo_fast.files import cache_folder, sync

Clouds = Literal["usual", "many"]
SEASONS: Final = 4
NO_FIELD: Final = 65535
# Part of the folder names: raise it whenever the same arguments give other bytes.
_VERSION: Final = 1
_CLOUDS: Final = {"usual": USUAL, "many": CLOUDY}
_FIRST_PLACE: Final = 2**32
_FIRST_PAIR: Final = 2**33
_MAPS: Final = "labels.npy"


class LabelledSample(NamedTuple):
    """What the sensors record, and two maps uint16 [2, H, W] of what is there."""

    sample: DemoSample
    maps: np.ndarray


def place_sample(seed: int, number: int, *, size: int, clouds: Clouds) -> LabelledSample:
    """Returns a place in four seasons, with the crops of `VARIED`; a pure function.

    The maps are the `Cover` of each pixel, and the field that it is part of or `NO_FIELD`.
    """
    index = _FIRST_PLACE + number
    scene = make_scene(
        seed, index, size=size, seasons=SEASONS, farming=VARIED, clouds=_CLOUDS[clouds]
    )
    field = np.where(scene.field < 0, NO_FIELD, scene.field)
    maps = np.stack([scene.cover, field]).astype(np.uint16)
    return LabelledSample(observe(seed, index, scene), maps)


def pair_sample(seed: int, number: int, *, size: int) -> LabelledSample:
    """Returns a place in the summers of two years, see `make_pair`; a pure function.

    The maps are the `Cover` of each pixel in the first and in the second year.
    """
    index = _FIRST_PAIR + number
    pair = make_pair(seed, index, size=size)
    maps = np.stack([scene.cover for scene in pair]).astype(np.uint16)
    return LabelledSample(observe(seed, index, _join(*pair)), maps)


def _join(before: Scene, after: Scene) -> Scene:
    names = ("optical", "radar", "snow", "cloud", "shadow")
    arrays = {name: np.concatenate([getattr(before, name), getattr(after, name)]) for name in names}
    return replace(
        after,
        **arrays,
        optical_dates=before.optical_dates + after.optical_dates,
        radar_dates=before.radar_dates + after.radar_dates,
    )


def place_shards(
    root: Path | None = None, *, places: int, size: int, seed: int, clouds: Clouds = "usual"
) -> Path:
    """Returns a folder of the first `places` of `place_sample`, see `demo_shards`.

    Raises:
        ValueError: There is no such number, size or `clouds`.
        DataError: The cache cannot be written.
    """
    if clouds not in _CLOUDS:
        raise ValueError(f"clouds must be {' or '.join(_CLOUDS)}, but got {clouds!r}")
    name = f"places-v{_VERSION}-{places}x{size}px-{clouds}-clouds-seed{seed}"
    make = partial(place_sample, seed, size=size, clouds=clouds)
    return _shards((root or cache_folder()) / name, make, places, size, SEASONS)


def pair_shards(root: Path | None = None, *, places: int, size: int, seed: int) -> Path:
    """Returns a folder of the first `places` of `pair_sample`, see `place_shards`."""
    name = f"pairs-v{_VERSION}-{places}x{size}px-seed{seed}"
    make = partial(pair_sample, seed, size=size)
    return _shards((root or cache_folder()) / name, make, places, size, 2)


def read_maps(folder: Path) -> np.ndarray:
    """Returns the maps of all places of a folder of shards, memory-mapped uint16 [S, 2, H, W]."""
    maps: np.ndarray = np.load(folder / _MAPS, mmap_mode="r")
    return maps


def _shards(
    folder: Path, make: Callable[[int], LabelledSample], places: int, size: int, seasons: int
) -> Path:
    if places < 1:
        raise ValueError(f"places must be at least 1, but got {places}")
    check_size(size)
    shape = (places, 2, size, size)

    def write(partial: Path) -> None:
        maps = np.empty(shape, np.uint16)

        def samples() -> Iterator[DemoSample]:
            for number in range(places):
                sample, maps[number] = make(number)
                yield sample

        write_samples(partial, samples(), seasons, folder.name)
        np.save(partial / _MAPS, maps)
        sync(partial / _MAPS)

    def intact() -> bool:
        try:
            check_npy(folder / _MAPS, ArraySpec("uint16", shape[1:]), places)
        except DataError:
            return False
        return is_intact(folder, places)

    write_once(folder, write, intact)
    return folder
