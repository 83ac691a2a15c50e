"""Which date of each modality belongs to which season of a sample."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise, product
from typing import Final

import numpy as np

from seamo_fast.data.shards import Remark

_SEASON: Final = 91  # days, where the data do not say


def season_slots(dates: Mapping[str, Sequence[date]], seasons: int) -> dict[str, list[int | None]]:
    """Pairs the dates of several modalities by season.

    The modality with most dates (the first of equals) sets the seasons: its dates in order, evenly
    thinned if it has more than `seasons`. The dates of another modality go to these slots in order,
    as many as fit, so that the sum of the absolute differences in days is least.

    Args:
        dates: For each modality its sorted dates.
        seasons: T.

    Returns:
        For each modality T positions in its list of dates, None where it has none.
    """
    anchor = _anchor(dates)
    total = len(dates[anchor])
    kept = np.linspace(0, total - 1, min(total, seasons)).round().astype(int).tolist()
    targets = [dates[anchor][position].toordinal() for position in kept]
    slots: dict[str, list[int | None]] = {}
    for name, days in dates.items():
        chosen: list[int | None] = [None] * seasons
        pairs = (
            list(zip(kept, range(len(kept)), strict=True))
            if name == anchor
            else _match([day.toordinal() for day in days], targets)
        )
        for position, slot in pairs:
            chosen[slot] = position
        slots[name] = chosen
    return slots


def distant(
    place: str, dates: Mapping[str, Sequence[date]], slots: Mapping[str, Sequence[int | None]]
) -> list[Remark]:
    """Returns a remark for each date that was paired with one more than half a season away.

    A season is the median distance in days between the seasons, 91 where there are fewer than two.

    Args:
        place: Name of the place.
        dates: As in `season_slots`.
        slots: What that returned.
    """
    anchor = _anchor(dates)
    seasons = [dates[anchor][slot] for slot in slots[anchor] if slot is not None]
    gaps = [(after - before).days for before, after in pairwise(seasons)]
    half = (statistics.median(gaps) if gaps else _SEASON) / 2
    remarks = []
    for name, chosen in slots.items():
        for season, slot in zip(seasons, chosen, strict=False):
            if slot is None:
                continue
            day = dates[name][slot]
            apart = abs((day - season).days)
            if apart > half:
                why = (
                    f"paired with {anchor} {season}, {apart} days apart; half a season is {half:g}"
                )
                remarks.append(Remark(f"{place} {name} {day}", why, "pairing"))
    return remarks


def _anchor(dates: Mapping[str, Sequence[date]]) -> str:
    """Returns the modality that sets the seasons."""
    return max(dates, key=lambda name: len(dates[name]))


def _match(days: Sequence[int], targets: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the (day, target) positions of the cheapest matching that keeps the order.

    Every element of the shorter list is matched. Dynamic programme over prefixes: best[i, j] is
    the least cost for the first i days and j targets.
    """
    n, m = len(days), len(targets)
    best = np.full((n + 1, m + 1), np.inf)
    best[:, 0] = [0.0] + [0.0 if n > m else np.inf] * n
    best[0, :] = [0.0] + [0.0 if m > n else np.inf] * m
    for i, j in product(range(1, n + 1), range(1, m + 1)):
        skip = best[i - 1, j] if n > m else best[i, j - 1] if m > n else np.inf
        best[i, j] = min(best[i - 1, j - 1] + abs(days[i - 1] - targets[j - 1]), skip)
    pairs = []
    i, j = n, m
    while i and j:
        if best[i, j] == best[i - 1, j - 1] + abs(days[i - 1] - targets[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif n > m:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
