"""Demo data: synthetic Sentinel-1/2 scenes, written once as ordinary shards into a cache.

The default pretraining job runs on them, so it takes the path of real data from the first step.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.demo.scene import OPTICAL_BANDS, RADAR_BANDS, Scene, area_mean, make_scene
from seamo_fast.data.shards import ShardSet, ShardWriter
from seamo_fast.errors import DataError
from seamo_fast.files import cache_folder, writing
from seamo_fast.modalities import get_modality
from seamo_fast.randomness import generator

# Part of the folder name: raise it whenever the same arguments give other bytes.
VERSION: Final = 1
# by band, as the first of this version were described; its stripes are empty in all bands
OPTICAL: Final = replace(get_modality("s2l2a"), nodata_rule="band")
RADAR: Final = get_modality("s1grd")
_PIXEL: Final = 10.0
# Pixels of 10 m along one of the coarsest grid, 60 m; a tile must divide into whole ones.
COARSEST: Final = 6
_MISSING: Final = {OPTICAL.name: 0.03, RADAR.name: 0.02}
_STRIPED: Final = 0.04
_SHARD: Final = 512


class DemoSample(NamedTuple):
    """What `ShardWriter.add` takes: for each modality its grids, dates and validity."""

    arrays: dict[str, list[np.ndarray]]
    dates: dict[str, list[date | None]]
    valid: dict[str, list[bool]]


def demo_shards(
    root: Path | None = None, *, samples: int = 512, size: int = 96, seasons: int = 4, seed: int = 0
) -> Path:
    """Returns a folder of shards with synthetic scenes, which it writes if they are not there yet.

    The scenes hold s2l2a (uint16 digital numbers on grids of 10, 20 and 60 m) and s1grd (float32
    dB at 10 m). Some groups are missing, some tiles have a stripe of nodata and some clouds. Any
    number of processes may call this at the same time; one writes, the others wait.

    Args:
        root: Folder that holds the shard folders; by default SEAMO_FAST_CACHE, or
            ~/.cache/seamo_fast where that is not set.
        samples: Number of places.
        size: Edge of a tile in pixels of 10 m, a multiple of 6.
        seasons: Dates of a place, spread over one year.
        seed: Another seed gives other scenes.

    Raises:
        ValueError: A number is too small, or `size` is not a multiple of 6.
        DataError: The cache cannot be written.
        ConfigError: See `seamo_fast.files.cache_folder`.
    """
    if samples < 1 or seasons < 1:
        raise ValueError(f"samples and seasons must be at least 1, but are {samples} and {seasons}")
    check_size(size)
    folder = (root or cache_folder()) / f"demo-v{VERSION}-{samples}x{seasons}x{size}px-seed{seed}"

    def write(partial: Path) -> None:
        made = (demo_sample(seed, index, size=size, seasons=seasons) for index in range(samples))
        write_samples(partial, made, seasons, f"demo scenes of seed {seed}")

    write_once(folder, write, lambda: is_intact(folder, samples))
    return folder


def demo_sample(seed: int, index: int, *, size: int, seasons: int) -> DemoSample:
    """Returns sample number `index` of the demo data; a pure function of its arguments."""
    return observe(seed, index, make_scene(seed, index, size=size, seasons=seasons))


def observe(seed: int, index: int, scene: Scene) -> DemoSample:
    """Returns what the sensors record of scene number `index`."""
    seasons = len(scene.optical)
    optical = _digital_numbers(generator(seed, "demo", index, "sensor"), scene)
    _add_stripe(generator(seed, "demo", index, "stripe"), optical)
    radar = scene.radar[:, [RADAR_BANDS.index(name) for name in RADAR.band_names]]
    missing = generator(seed, "demo", index, "missing")
    valid = {name: (missing.random(seasons) >= share).tolist() for name, share in _MISSING.items()}
    return DemoSample(
        arrays={OPTICAL.name: optical, RADAR.name: [np.ascontiguousarray(radar)]},
        dates={OPTICAL.name: [*scene.optical_dates], RADAR.name: [*scene.radar_dates]},
        valid=valid,
    )


def _digital_numbers(rng: np.random.Generator, scene: Scene) -> list[np.ndarray]:
    """Returns what Sentinel-2 records of a scene: for each grid uint16 [T, Cg, Hg, Wg]."""
    arrays = []
    for grid in OPTICAL.grids:
        channels = [OPTICAL_BANDS.index(OPTICAL.bands[band].name) for band in grid.bands]
        exact = area_mean(scene.optical[:, channels], _step(grid.gsd))
        stored = rng.standard_normal(exact.shape, np.float32)
        stored *= 0.0015 + 0.004 * exact
        stored += exact
        stored *= OPTICAL.scale
        stored += OPTICAL.offset
        # 0 is nodata.
        arrays.append(np.clip(np.rint(stored, out=stored), 1, 65535).astype(np.uint16))
    return arrays


def _add_stripe(rng: np.random.Generator, arrays: list[np.ndarray]) -> None:
    """Blanks one side of one season of a few tiles, as where the swath ends, in place."""
    if rng.random() >= _STRIPED:
        return
    seasons, _, coarse, _ = arrays[-1].shape
    season, turns = rng.integers(seasons), int(rng.integers(4))
    width = int(rng.integers(1, max(2, coarse // 2)))
    for values, grid in zip(arrays, OPTICAL.grids, strict=True):
        pixels = width * COARSEST // _step(grid.gsd)
        np.rot90(values[season], turns, axes=(1, 2))[:, :, :pixels] = 0


def _step(gsd: float) -> int:
    return round(gsd / _PIXEL)


def is_intact(folder: Path, samples: int) -> bool:
    """Returns whether a folder of shards with so many samples is complete."""
    try:
        shards = ShardSet(folder)
        for index in range(0, samples, _SHARD):
            shards.read(index)
        return len(shards) == samples
    except (DataError, IndexError):
        return False


def check_size(size: int) -> None:
    """Raises ValueError if a tile of `size` pixels of 10 m has no whole pixels of 60 m."""
    if size < COARSEST or size % COARSEST:
        raise ValueError(
            f"size must be a multiple of {COARSEST}, so that its {size} pixels of 10 m divide "
            "into pixels of 60 m"
        )


def write_once(folder: Path, write: Callable[[Path], None], intact: Callable[[], bool]) -> None:
    """Makes a folder of generated data, unless it is there and intact.

    Any number of processes may call this at the same time; one writes, the others wait.

    Args:
        folder: Where the data is to be.
        write: Writes a folder of another name, which takes this one's place when it is complete.
        intact: Whether the data is there.

    Raises:
        DataError: The cache cannot be written.
    """
    if intact():
        return
    try:
        with writing(folder), _alone(folder):
            if not intact():
                _write(folder, write)
    except DataError as error:
        raise DataError(f"{error}; SEAMO_FAST_CACHE names the folder of demo data") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time make `folder`; a process that dies lets go of the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    for leftover in (partial, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        write(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_samples(folder: Path, samples: Iterable[DemoSample], seasons: int, source: str) -> None:
    """Writes samples as shards, named by their number."""
    writer = ShardWriter(
        folder, (OPTICAL, RADAR), seasons, source=source, release="demo", shard_size=_SHARD
    )
    for index, sample in enumerate(samples):
        writer.add(f"demo-{index:06d}", *sample)
    writer.finish()
