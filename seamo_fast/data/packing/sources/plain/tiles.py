"""Cuts images of any size into tiles of one size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.base import Reading
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality


class Window(NamedTuple):
    """Where a tile begins, in pixels of the finest grid."""

    top: int
    left: int


def check_size(size: int | None, modalities: Sequence[Modality]) -> None:
    """Raises ConfigError unless tiles of so many pixels of the finest grid can be cut.

    Their edges must be edges of pixels in each grid: with bands of 10 and 60 m, a multiple of 6.
    """
    if size is None:
        return
    steps = _steps(modalities)
    if any(step != round(step) for step in steps):
        names = ", ".join(modality.name for modality in modalities)
        raise ConfigError(f"grids of {names} do not nest, so no tile fits; leave size out")
    least = math.lcm(*(round(step) for step in steps))
    if size < 1 or size % least:
        several = f"a multiple of {least} pixels of the finest grid" if least > 1 else "1 or more"
        raise ConfigError(f"size must be {several}, but got {size}")


def windows(
    modalities: Sequence[Modality], shapes: Mapping[str, Sequence[tuple[int, ...]]], size: int
) -> list[Window]:
    """Returns where the tiles of an image begin: a grid, whose last row and column end at the edge.

    Args:
        modalities: Of the image.
        shapes: For each modality those of its grids, which end in rows and columns.
        size: Edge of a tile, see `check_size`.

    Raises:
        DataError: The image is smaller than a tile.
    """
    steps = dict(zip(_grids(modalities), _steps(modalities), strict=True))
    sides = [
        min(math.floor(shapes[name][number][axis] * step) for (name, number), step in steps.items())
        for axis in (-2, -1)
    ]
    if min(sides) < size:
        raise DataError(
            f"{sides[0]} x {sides[1]} pixels are less than a tile of {size} x {size}", "mismatch"
        )
    least = math.lcm(*(round(step) for step in steps.values()))
    rows, columns = (
        dict.fromkeys([*range(0, side - size + 1, size), (side - size) // least * least])
        for side in sides
    )
    return [Window(top, left) for top, left in product(rows, columns)]


def cut(modalities: Sequence[Modality], reading: Reading, size: int) -> Iterator[Reading]:
    """Yields the tiles of an image as samples of one place.

    Raises:
        DataError: The image is smaller than a tile.
    """
    shapes = {name: [grid.shape for grid in grids] for name, grids in reading.arrays.items()}
    found = windows(modalities, shapes, size)
    steps = dict(zip(_grids(modalities), _steps(modalities), strict=True))
    for window in found:
        arrays = {
            name: [
                _part(grid, window, size, round(steps[name, number]))
                for number, grid in enumerate(grids)
            ]
            for name, grids in reading.arrays.items()
        }
        name = reading.id if len(found) == 1 else f"{reading.id}/y{window.top}x{window.left}"
        yield replace(
            reading,
            id=name,
            arrays=arrays,
            valid={key: [*flags] for key, flags in reading.valid.items()},
            dates={key: [*days] for key, days in reading.dates.items()},
            skipped=[*reading.skipped],
            noted=[*reading.noted],
            place=reading.place or reading.id,
        )


def _part(grid: np.ndarray, window: Window, size: int, step: int) -> np.ndarray:
    rows, columns = (slice(start // step, (start + size) // step) for start in window)
    return np.ascontiguousarray(grid[..., rows, columns])


def _grids(modalities: Sequence[Modality]) -> list[tuple[str, int]]:
    return [(each.name, number) for each in modalities for number in range(len(each.grids))]


def _steps(modalities: Sequence[Modality]) -> list[float]:
    """Returns how many pixels of the finest grid a pixel of each grid takes."""
    spacings = [grid.gsd for modality in modalities for grid in modality.grids]
    return [gsd / min(spacings) for gsd in spacings]
