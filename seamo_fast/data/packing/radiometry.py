"""Whether 1000 was added to the numbers of a Sentinel-2 tile, judged by its darkest values.

Products of processing baseline 04.00 and later (all since 25 January 2022, and what was processed
again) hold reflectance * 10000 + 1000, so that hardly any value is below 1000. Without, something
in a tile nearly always is: shadow, water, B10, which sees no ground. A bright scene (cloud, sand)
shows nothing either way, and thin cloud over a dark one looks like the constant. So a tile is
judged by itself, by the baseline in its product's name, and by the other dates of its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.modalities import Modality, get_modality

ADDED: Final = 1000  # DN
WITH: Final = "+"
LIKELY: Final = "~"
WITHOUT: Final = "-"
UNCLEAR: Final = "?"
ABSENT: Final = "."
CIRRUS: Final = "B10"  # sees no ground: almost 0 anywhere, whatever the scene

_SENTINEL2: Final = frozenset(get_modality("s2l1c").band_names)
_SINCE: Final = date(2022, 1, 25)  # of the first products of baseline 04.00
_BASELINE: Final = 4.0
_SIDE: Final = 16  # rows and columns of a band that are looked at, about
_PERCENT: Final = 1  # of these are darker than the floor, but two at least
_FEW: Final = 8  # a band is judged if one in so many of them is measured
# What a floor can be. With 1000 added, negative reflectance may reach somewhat below 1000.
_DEEP: Final = 400  # below this in any band nothing was added
_DARK: Final = 600  # nor below this in two bands, or in B10
_LEAST: Final = 900  # at least this in all bands if 1000 was added
_DIM: Final = 1250  # at most this in three bands, if it was added to a scene that has dark places
_BRIGHT: Final = 3000  # more than this in all bands but B10: cloud, which B10 sees too
_SAME: Final = 300  # DN by which the shift of a dark band between two dates may miss 1000


class Judged(NamedTuple):
    """The tiles of one modality of a sample.

    Attributes:
        verdicts: A letter a season: 1000 was added (`WITH`), perhaps was (`LIKELY`: nothing but
            the values of this tile says so), was not (`WITHOUT`), may be either (`UNCLEAR`); there
            is no tile (`ABSENT`).
        floors: The darkest value of each season that is no outlier, 0 where nothing is measured.
    """

    verdicts: str
    floors: list[int]


def is_judged(modality: Modality) -> bool:
    """Whether a modality holds digital numbers of Sentinel-2, to which 1000 may be added."""
    return (
        modality.unit == "dn"
        and modality.scale == 10000
        and modality.offset in (0, ADDED)
        and _SENTINEL2.issuperset(modality.band_names)
    )


def judge(
    modality: Modality,
    grids: Sequence[np.ndarray],
    valid: Sequence[bool] | np.ndarray,
    dates: Sequence[date | None] = (),
    baselines: Sequence[float | None] = (),
) -> Judged:
    """Judges the tiles of a sample, which show one place.

    Args:
        modality: What they are; `is_judged`.
        grids: Each [T, Cg, Hg, Wg].
        valid: T flags.
        dates: Of each season; none if unknown.
        baselines: Processing baseline of each season, such as 4.0; none if unknown.
    """
    floors: list[list[float]] = _floors(modality, grids).tolist()
    letters = [
        _alone(modality, season) if ok else ABSENT for season, ok in zip(floors, valid, strict=True)
    ]
    _by_baseline(letters, baselines)
    if LIKELY in letters:
        _by_place(letters, floors, dates, CIRRUS in modality.band_names)
    darkest = [min(season) if ok else np.inf for season, ok in zip(floors, valid, strict=True)]
    return Judged("".join(letters), [int(each) if each < np.inf else 0 for each in darkest])


def subtract(tile: np.ndarray, nodata: float | None) -> None:
    """Takes the 1000 from the measured values of a tile, in place.

    What would be 0 or less becomes 1: the smallest number that never means "not measured".
    """
    measured = tile > 0
    if nodata is not None:
        measured &= tile != nodata
    tile[measured] = np.maximum(tile[measured], ADDED + 1) - ADDED


def _floors(modality: Modality, grids: Sequence[np.ndarray]) -> np.ndarray:
    """Returns for each season and band the darkest value that is no outlier, inf if unmeasured.

    A grid of `_SIDE` * `_SIDE` pixels is looked at. 0 and less are no numbers of a product: fill,
    and int16 that wrapped around.
    """
    found = np.full((len(grids[0]), len(modality.bands)), np.inf, np.float32)
    for grid, array in zip(modality.grids, grids, strict=True):
        rows, columns = (max(1, size // _SIDE) for size in array.shape[2:])
        values = array[:, :, ::rows, ::columns].astype(np.float32)
        values = values.reshape(*values.shape[:2], -1)
        unmeasured = ~((values > 0) & (values <= modality.limit))  # NaN too
        if modality.nodata:
            unmeasured |= values == modality.nodata
        values[unmeasured] = np.inf
        values.sort(axis=-1)
        last = values.shape[-1] - 1
        floors = values[..., min(max(2, last * _PERCENT // 100), last)]
        # of a few pixels the darkest say nothing
        floors[values[..., last // _FEW] == np.inf] = np.inf
        found[:, list(grid.bands)] = floors
    return found


def _alone(modality: Modality, floors: Sequence[float]) -> str:
    """Judges a tile by its floors, one a band."""
    seen = [floor for floor in floors if floor < np.inf]
    if not seen:
        return UNCLEAR
    darkest = min(seen)
    cirrus = np.inf
    if CIRRUS in modality.band_names:
        cirrus = floors[modality.band_names.index(CIRRUS)]
    if darkest < _DEEP or cirrus < _DARK or sum(floor < _DARK for floor in seen) > 1:
        return WITHOUT
    if darkest < _LEAST:
        return UNCLEAR
    if cirrus < np.inf:
        clear = cirrus <= _DIM and any(floor <= _BRIGHT for floor in seen if floor != cirrus)
        return LIKELY if clear else UNCLEAR
    dim = sum(floor <= _DIM for floor in seen)
    return LIKELY if dim >= min(3, len(seen)) else UNCLEAR


def _by_baseline(letters: list[str], baselines: Sequence[float | None]) -> None:
    """Decides on tiles of a known baseline that are not dark."""
    known = {t: each >= _BASELINE for t, each in enumerate(baselines) if each is not None}
    if any(added and letters[t] == WITHOUT for t, added in known.items()):
        return  # the 1000 was taken away since
    for t, added in known.items():
        if letters[t] in (LIKELY, UNCLEAR):
            letters[t] = WITH if added else UNCLEAR


def _by_place(
    letters: list[str],
    floors: Sequence[Sequence[float]],
    dates: Sequence[date | None],
    cirrus: bool,
) -> None:
    """Decides on the likely tiles by the other dates of the place, if they say something.

    Without a date to compare with, B10 (`cirrus`) is enough, and so are two likely tiles.
    """
    likely = [t for t, letter in enumerate(letters) if letter == LIKELY]
    dark = [t for t, letter in enumerate(letters) if letter == WITHOUT]
    if not dark:
        # thin cloud may do this on one date, but hardly on all, nor to B10 alone
        if cirrus or len(likely) + letters.count(WITH) > 1:
            for t in likely:
                letters[t] = WITH
        return
    ground = [median(floors[t][band] for t in dark) for band in range(len(floors[0]))]
    for t in likely:
        shifts = [now - then for now, then in zip(floors[t], ground, strict=True) if then < _DARK]
        if any(abs(shift - ADDED) > _SAME for shift in shifts):
            letters[t] = UNCLEAR  # cloud: to each band it adds another amount
        elif dates and _since(dates[t]) and not any(_since(dates[each]) for each in dark):
            letters[t] = WITH


def _since(day: date | None) -> bool:
    return day is not None and day >= _SINCE
