"""Pairing of dates by season, against trying every possibility."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data.packing.sources.pairing import season_slots

START = date(2020, 1, 1)
days = st.lists(st.integers(0, 700), max_size=6, unique=True).map(sorted)


def as_dates(offsets: list[int]) -> list[date]:
    return [START + timedelta(offset) for offset in offsets]


def cheapest(a: list[int], b: list[int]) -> int:
    short, long = sorted((a, b), key=len)
    return min(
        sum(abs(x - y) for x, y in zip(short, chosen, strict=True))
        for chosen in combinations(long, len(short))
    )


@given(optical=days, radar=days, seasons=st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_other_dates_cost_least(optical: list[int], radar: list[int], seasons: int) -> None:
    slots = season_slots({"o": as_dates(optical), "r": as_dates(radar)}, seasons)
    anchor, other = ("o", "r") if len(optical) >= len(radar) else ("r", "o")
    offsets = {"o": optical, "r": radar}
    assert all(len(chosen) == seasons for chosen in slots.values())
    kept = [p for p in slots[anchor] if p is not None]
    assert len(kept) == min(len(offsets[anchor]), seasons)
    assert slots[anchor][: len(kept)] == kept == sorted(set(kept))
    pairs = [(p, q) for p, q in zip(slots[other], slots[anchor], strict=True) if p is not None]
    assert [p for p, _ in pairs] == sorted({p for p, _ in pairs})
    assert len(pairs) == min(len(offsets[other]), len(kept))
    cost = sum(abs(offsets[other][p] - offsets[anchor][q]) for p, q in pairs if q is not None)
    assert cost == cheapest(offsets[other], [offsets[anchor][p] for p in kept])


@pytest.mark.parametrize(
    ("optical", "radar", "expected"),
    [
        ([0, 90, 180, 270], [95, 275], [None, 0, None, 1]),
        ([0, 90, 180, 270], [10, 100, 170, 260], [0, 1, 2, 3]),
        ([0, 90, 180, 270], [], [None] * 4),
        ([0, 70], [3, 91], [0, 1, None, None]),
    ],
)
def test_radar_keeps_its_dates_at_the_nearest_seasons(
    optical: list[int], radar: list[int], expected: list[int | None]
) -> None:
    slots = season_slots({"s2l2a": as_dates(optical), "s1grd": as_dates(radar)}, 4)
    assert slots["s1grd"] == expected


@pytest.mark.parametrize(
    ("dates", "seasons", "kept"),
    [(7, 3, [0, 3, 6]), (5, 4, [0, 1, 3, 4]), (8, 4, [0, 2, 5, 7]), (6, 1, [0]), (3, 3, [0, 1, 2])],
)
def test_more_dates_than_seasons_are_thinned_evenly(
    dates: int, seasons: int, kept: list[int]
) -> None:
    slots = season_slots({"s2l2a": as_dates(list(range(0, 50 * dates, 50)))}, seasons)
    assert slots["s2l2a"] == kept
