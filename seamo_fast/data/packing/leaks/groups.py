"""Groups of what belongs together, and how a report names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

_NAMED: Final = 3


def connected(count: int, pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Returns the groups of two and more that pairs make of the numbers below `count`.

    Pairs with a number in common are in one group. Groups and their numbers are ascending.
    """
    above = list(range(count))

    def first(number: int) -> int:
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    for pair in pairs:
        low, high = sorted(map(first, pair))
        above[high] = low
    groups: dict[int, list[int]] = {}
    for number in range(count):
        groups.setdefault(first(number), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def listed(names: Sequence[str]) -> str:
    """Returns names for a sentence: the first of them, and how many more there are."""
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
