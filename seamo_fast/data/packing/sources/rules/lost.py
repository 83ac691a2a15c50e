"""Bands in which nothing was measured: never filled, or one number everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.shards import Remark
from seamo_fast.data.shards.measured import count_absurd, known, possible
from seamo_fast.modalities import Modality

_STEP: Final = 16  # of the pixels that are looked at first


def check_bands(modality: Modality, grids: Sequence[np.ndarray]) -> list[Remark]:
    """Checks that every band of a tile was measured.

    With 8 bits a dark band can truly be flat (cirrus, or water in the infrared, is below one step),
    so there only a tile of which all bands are flat is lost.

    Args:
        modality: What the tile holds.
        grids: Its grids, each [Cg, Hg, Wg].

    Returns:
        A remark, the same for all tiles, for each flat band that is kept; none if no pixel of the
        tile is measured, which others report.

    Raises:
        TileError: A band was never filled (kind "empty"), or is constant (kind "constant").
    """
    limit = modality.limit
    flat = [found for number, each in enumerate(grids) for found in _flat(number, each, limit)]
    if not flat:
        return []
    names = modality.band_names
    numbers = {names[modality.grids[number].bands[c]]: value for number, c, value in flat}
    numbers = {name: numbers[name] for name in names if name in numbers}
    if len(numbers) == len(names) and all(_unmeasured(modality, v) for v in numbers.values()):
        return []
    if len(numbers) < len(names) and grids[0].dtype.itemsize == 1:
        why = "is flat in some tiles, which 8 bits can do to a dark band: they are kept"
        return [Remark(modality.name, f"band {name} {why}", "constant") for name in numbers]
    first = next(iter(numbers.values()))
    # as text, since NaN does not equal itself
    raise _error(modality, [n for n, value in numbers.items() if str(value) == str(first)], first)


def _error(modality: Modality, names: Sequence[str], value: float) -> TileError:
    several = len(names) > 1
    bands = f"band{'s' * several} {', '.join(names)} of {modality.name}"
    if value == 0 or _unmeasured(modality, value):
        found = "NaN or infinite" if math.isnan(value) else f"{value:.9g}"
        if abs(value) > modality.limit and value != modality.nodata:
            found = f"NaN or absurd, such as {found}"
        nodata = " (nodata)" if value == modality.nodata else ""
        why = f"{'were' if several else 'was'} never filled: every pixel is {found}{nodata}"
        return TileError(f"{bands} {why}", "empty")
    return TileError(f"{bands} {'are' if several else 'is'} {value:.9g} everywhere", "constant")


def _unmeasured(modality: Modality, value: float) -> bool:
    return not abs(value) <= modality.limit or value == modality.nodata  # NaN too


def _flat(number: int, values: np.ndarray, limit: float) -> list[tuple[int, int, float]]:
    """Returns grid, channel and value of each band [H, W] of one value, or of none below `limit`.

    Infinite values come as NaN.
    """
    height, width = values.shape[1:]
    if height * width < 2:
        return []
    # two pixels nearly always show that a band is not flat
    corner = values[:, 0, 0].tolist()
    middle = values[:, height // 2, width // 2].tolist()
    return [
        (number, c, first if math.isfinite(first) else math.nan)
        for c, (first, other) in enumerate(zip(corner, middle, strict=True))
        if not (first != other and abs(first) <= limit) and _is_flat(values[c], first, limit)
    ]


def _is_flat(band: np.ndarray, value: float, limit: float) -> bool:
    for part in (band[::_STEP, ::_STEP], band):
        if not (part == value).all() if abs(value) <= limit else possible(part, limit).any():
            return False
    return True


def any_measured(grids: Sequence[np.ndarray], nodata: float | None, limit: float) -> bool:
    """Whether any value of a tile is possible and not nodata."""
    looked_at = [values[..., ::_STEP, ::_STEP] for values in grids]
    return any(known(values, nodata, limit).any() for values in (*looked_at, *grids))


def count_measured(grids: Sequence[np.ndarray], nodata: float | None, limit: float) -> int:
    """Returns how many values of a tile are possible and not nodata."""
    return sum(int(np.count_nonzero(known(values, nodata, limit))) for values in grids)


def absurd(what: str, modality: Modality, grids: Sequence[np.ndarray]) -> list[Remark]:
    """Returns a remark if a tile has values that its unit cannot have: they are not measured."""
    count = count_absurd(modality, grids)
    if not count:
        return []
    why = f"{count} values are beyond {modality.limit:g}, which no value in {modality.unit} can be"
    return [Remark(what, why, "nonfinite")]


def fullest(
    what: str,
    found: Sequence[tuple[str, Sequence[np.ndarray]]],
    nodata: float | None,
    limit: float,
) -> tuple[int, list[Remark]]:
    """Chooses among the acquisitions of one day.

    Args:
        what: The tile, for the remark.
        found: Of each acquisition its name and its grids; at least one.
        nodata: Value of pixels that are not measured.
        limit: Magnitude beyond which they are not.

    Returns:
        The number of the one with most measured values, the first of equals, and what to note.
    """
    if len(found) == 1:
        return 0, []
    counts = [count_measured(grids, nodata, limit) for _, grids in found]
    best = counts.index(max(counts))
    left = ", ".join(name for number, (name, _) in enumerate(found) if number != best)
    why = f"{len(found)} acquisitions of one day: {found[best][0]} is taken, {left} left out"
    return best, [Remark(what, why, "same-day")]
