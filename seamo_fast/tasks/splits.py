"""Fixed splits of labelled images into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.errors import DataError
from seamo_fast.randomness import generator

HELD_OUT: Final = 0.2


class Split(NamedTuple):
    """Numbers of the images of each part, ascending."""

    train: list[int]
    val: list[int]
    test: list[int]


def stratified_split(labels: Sequence[str], same: Mapping[int, int] | None = None) -> Split:
    """Splits 60/20/20 within every class.

    A pure function of its arguments: no seed, so that results stay comparable.

    Args:
        labels: Name of every image's class, in the order of the sorted file names.
        same: Numbers of images that hold the same pixels as an earlier one, and the number of the
            first such, which they follow; all others are drawn as if there were none.

    Raises:
        DataError: A class has too few images to be in every part.
    """
    parts = Split([], [], [])
    for label in sorted(set(labels)):
        members = np.flatnonzero(np.asarray(labels) == label)
        held_out = max(1, round(HELD_OUT * len(members)))
        if len(members) <= 2 * held_out:
            raise DataError(
                f"class {label!r} has {len(members)} images, which cannot be split into training, "
                "validation and test; give it at least 3"
            )
        order = members[generator(0, "split", label).random(len(members)).argsort(kind="stable")]
        for part, chosen in zip(parts, np.split(order, [-2 * held_out, -held_out]), strict=True):
            part.extend(chosen.tolist())
    drawn = {number: n for n, part in enumerate(parts) for number in part}
    moved = {number: drawn[first] for number, first in (same or {}).items()}
    found = Split([], [], [])
    for number, at in sorted({**drawn, **moved}.items()):
        found[at].append(number)
    return found


def held_out(numbers: Sequence[int], labels: Mapping[int, str]) -> tuple[list[int], list[int]]:
    """Holds a fifth of a published training part out for validation, within every class.

    A pure function of its arguments, as `stratified_split` is.

    Args:
        numbers: Items of the training part.
        labels: Name of the class of each of them.

    Returns:
        Numbers of the items that still train, and of those that validate; ascending.

    Raises:
        DataError: There is only one item.
    """
    if len(numbers) < 2:
        raise DataError("the training part has one item; validation needs another")
    train: list[int] = []
    val: list[int] = []
    for label in sorted({labels[number] for number in numbers}):
        members = [number for number in numbers if labels[number] == label]
        count = round(HELD_OUT * len(members))
        order = generator(0, "held out", label).random(len(members)).argsort(kind="stable")
        val += [members[at] for at in order[:count]]
        train += [members[at] for at in order[count:]]
    if not val:
        val.append(train.pop())
    return sorted(train), sorted(val)
