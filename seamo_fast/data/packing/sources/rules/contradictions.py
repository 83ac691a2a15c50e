"""Where a file says something else of its numbers than what holds for the set."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.metadata import Said
from seamo_fast.data.shards import Remark
from seamo_fast.modalities import Modality, canonical_band, get_modality

_DECIBELS: Final = re.compile(r"\b(db|decibels?)\b")
_COUNTS: Final = frozenset(("dn", "digital number", "digital numbers", "count", "counts"))
_ONE: Final = frozenset(("1", "unitless", "dimensionless"))
# Names of one kind: B4 may well be called red, but not B3.
_KINDRED: Final = (
    frozenset(get_modality("s2l1c").band_names),
    frozenset(("VV", "VH", "HH", "HV")),
    frozenset(("RED", "GREEN", "BLUE")),
)


@lru_cache(maxsize=1024)
def contradictions(
    modality: Modality, by: str, said: tuple[Said, ...], kind: str, *, scaled_by_files: bool
) -> tuple[Remark, ...]:
    """Returns where a file contradicts scale, unit and names of what holds for the set.

    Args:
        modality: What holds.
        by: Who says so: "mapping" or "modality".
        said: What the file says of each band.
        kind: That of the dtype of its numbers.
        scaled_by_files: Scale and offset were left to the files.

    Raises:
        TileError: The file has another scale than the set, which was left to files.
    """
    remarks = []
    held = f"(stored - {modality.offset:.9g}) / {modality.scale:.9g}"
    for factor, constant in dict.fromkeys(each.line for each in said):
        scale, offset = inverse(factor, constant)
        same = math.isclose(scale, modality.scale, rel_tol=1e-6) and math.isclose(
            offset, modality.offset, rel_tol=1e-6, abs_tol=1e-6 * abs(scale)
        )
        if same or (factor, constant) == (1.0, 0.0):
            continue
        words = formula(factor, constant)
        if scaled_by_files:
            raise TileError(
                f"the file says {words}, but the data set has {held}; give scale and offset in "
                "the mapping if they hold for all",
                "mismatch",
            )
        why = f"files say {words}, the {by} {held}, which is used"
        remarks.append(Remark(modality.name, why, "override"))
    for unit in dict.fromkeys(each.unit for each in said if _differs(each, modality, kind)):
        why = f"files say unit {unit!r}, the {by} {modality.unit!r}, which is used"
        remarks.append(Remark(modality.name, why, "override"))
    renamed = [
        (band, each.name)
        for band, each in zip(modality.band_names, said, strict=True)
        if _is_another(band, canonical_band(each.name))
    ]
    if renamed:
        ours, theirs = (", ".join(names) for names in zip(*renamed, strict=True))
        why = f"files call the bands {ours} of the {by} {theirs}; those of the {by} are used"
        remarks.append(Remark(modality.name, why, "override"))
    return tuple(remarks)


def _differs(said: Said, modality: Modality, kind: str) -> bool:
    """Whether the file's unit cannot be that of the modality."""
    text, unit = said.unit.casefold(), modality.unit
    physical = kind == "f" and said.scale is None  # the stored values themselves have the unit
    if not text:
        return False
    if _DECIBELS.search(text):
        return unit != "db"
    if text in _COUNTS:
        return unit in ("db", "reflectance")
    if text in _ONE:
        return unit == "db" or (unit == "dn" and physical and modality.scale != 1)
    if "reflectance" in text:
        return unit in ("db", "uint8") or (unit == "dn" and (physical or modality.scale == 1))
    return unit in ("db", "reflectance")


def _is_another(band: str, name: str) -> bool:
    return band != name and any(band in kindred and name in kindred for kindred in _KINDRED)


def inverse(factor: float, constant: float) -> tuple[float, float]:
    """Returns scale and offset of physical = (stored - offset) / scale, rounded once."""
    exact = Decimal(repr(factor))
    return float(1 / exact), float(-Decimal(repr(constant)) / exact) + 0.0


def formula(factor: float, constant: float) -> str:
    """Returns how stored values become physical ones, in words."""
    sign = "-" if constant < 0 else "+"
    return f"value = stored * {factor:.9g}" + (f" {sign} {abs(constant):.9g}" if constant else "")
