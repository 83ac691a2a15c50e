"""What packing says of its source: what was left out, what is unusual, and of which kind it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

# Codes of manifest.json and report.json; docs/data.md says what happens and how to change it.
KINDS: Final = {
    "unreadable": "a file is damaged, cut short or cannot be decoded",
    "missing": "a file, band, variable or piece is not there",
    "mismatch": "dtype, size or number of bands is not what the data set has elsewhere",
    "axes": "pages, samples and sides do not fit the mapping",
    "name": "a file's name says nothing, or what another says too",
    "date": "a date cannot be read, or means two things",
    "same-day": "several acquisitions of one day: the fullest is taken",
    "pairing": "dates of one season are more than half a season apart",
    "metadata": "what a file says of its numbers is used",
    "override": "a file says something else of its numbers than the mapping, which is used",
    "unmeasured": "too few pixels are measured",
    "nonfinite": "pixels are NaN, infinite or beyond what their unit can hold",
    "empty": "a band was never filled",
    "constant": "a band has the same number everywhere",
    "unit": "the numbers look like another unit",
    "offset": "1000 seems to have been added, or not",
    "statistics": "means differ from the published ones",
    "ground": "places of two names share ground",
    "content": "the same pixels twice",
    "unusable": "nothing of a sample is left",
}


class Remark(NamedTuple):
    """Something of the source that was left out or is unusual, and why.

    Attributes:
        what: The tile, file or place.
        why: The reason, in one line.
        kind: One of `KINDS`; empty in sets that earlier versions wrote.
    """

    what: str
    why: str
    kind: str = ""


def unique(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Returns remarks once each, in order: overlapping windows meet the same tile several times."""
    return tuple(dict.fromkeys(remarks))
