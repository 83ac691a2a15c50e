"""What files say of their numbers.

TIFF: nodata by tag 42113 (GDAL_NODATA); scale, offset, unit and description of each band by the
items of tag 42112 (GDAL_METADATA) that have these roles. NetCDF and zarr: the attributes of the CF
conventions, and a zarr array's `fill_value` unless it is 0, which is only what zarr writes by
itself. NaN always means "not measured" and is never named here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

_ITEM: Final = re.compile(r"<Item\b([^>]*)>([^<]*)</Item>")
_ATTRIBUTE: Final = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")
_ROLES: Final = {"scale": "scale", "offset": "offset", "description": "name", "unittype": "unit"}
_RANGES: Final = ("valid_range", "valid_min", "valid_max")
_NUMERIC: Final = ("_FillValue", "missing_value", "scale_factor", "add_offset", *_RANGES)
_MOST_ITEMS: Final = 2**20  # characters of tag 42112
_MOST_NUMBERS: Final = 64  # of an attribute
# What the axes of an array are called, by what they are.
_AXES: Final = {
    "time": frozenset(("time", "t")),
    "band": frozenset(("band", "bands", "channel", "channels")),
    "y": frozenset(("y", "lat", "latitude", "northing", "row", "rows")),
    "x": frozenset(("x", "lon", "longitude", "easting", "column", "columns", "col")),
}


class Said(NamedTuple):
    """What a file says of the numbers of one band.

    Attributes:
        nodata: Stored values that mean "not measured", besides NaN.
        scale: physical value = stored * scale + offset; None if the file does not say.
        offset: See there.
        low: The smallest stored value that is valid, None if the file does not say.
        high: The largest.
        unit: Of the physical value, in the file's words.
        name: Of the band, in the file's words.
    """

    nodata: tuple[float, ...] = ()
    scale: float | None = None
    offset: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    name: str = ""

    @property
    def line(self) -> tuple[float, float]:
        """Factor and constant that make stored values physical; 1 and 0 if not said."""
        return (
            1.0 if self.scale is None else self.scale,
            0.0 if self.offset is None else self.offset,
        )


SILENT: Final = Said()


@lru_cache(maxsize=64)
def said_by_tags(nodata: str, items: str, bands: int) -> tuple[Said, ...]:
    """Returns what the texts of tags 42113 and 42112 say of each band; empty ones say nothing.

    Raises:
        ValueError: A text that should be a number is none.
    """
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"has {len(items)} characters of GDAL metadata")
    values = _nodata([_number(nodata, "nodata")] if nodata.strip() else [])
    found = [SILENT._replace(nodata=values)] * bands
    for head, text in _ITEM.findall(items):
        given = dict(_ATTRIBUTE.findall(head))
        sample, role, text = given.get("sample", ""), given.get("role", ""), html.unescape(text)
        if sample.isdecimal() and int(sample) < bands and role in _ROLES and text.strip():
            name = _ROLES[role]
            value: Any = _number(text, name) if name in ("scale", "offset") else text.strip()
            found[int(sample)] = found[int(sample)]._replace(**{name: value})
    return tuple(map(_checked, found))


def said_by_attributes(
    attributes: Mapping[str, Any], dtype: np.dtype[Any], *, unsigned: bool = False
) -> Said:
    """Returns what the attributes of a variable say (CF conventions 1.11, 2.5 and 8.1).

    Args:
        attributes: Of the variable.
        dtype: Of its stored values.
        unsigned: Its signed integers stand for unsigned ones, and so do those of attributes.

    Raises:
        ValueError: An attribute that should be a number is none.
    """
    found = {name: _numbers(attributes[name], name) for name in _NUMERIC if name in attributes}
    scale, offset = (found.get(name, [None])[0] for name in ("scale_factor", "add_offset"))
    said = _checked(Said(scale=scale, offset=offset, unit=_word(attributes.get("units", ""))))
    low, high = _limits(found)
    floats = any(
        np.asarray(attributes[name]).dtype.kind == "f" for name in _RANGES if name in found
    )
    if floats and dtype.kind in "iu" and said.line != (1.0, 0.0):
        low, high = _stored_limits(low, high, said)  # of the unpacked values, by their type
    nodata = [*found.get("_FillValue", []), *found.get("missing_value", [])]
    if unsigned:
        span = 2.0 ** (8 * dtype.itemsize)
        nodata = [value + span if value < 0 else value for value in nodata]
        low, high = (each + span if each is not None and each < 0 else each for each in (low, high))
    if low is not None and high is not None and low > high:
        raise ValueError(f"says the valid range {low:g}..{high:g}")
    return said._replace(nodata=_nodata(nodata), low=low, high=high)


def _limits(found: Mapping[str, list[float]]) -> tuple[float | None, float | None]:
    low: float | None = None
    high: float | None = None
    if "valid_range" in found:
        if len(found["valid_range"]) != 2:
            raise ValueError(f"says valid_range with {len(found['valid_range'])} numbers")
        low, high = found["valid_range"]
    return found.get("valid_min", [low])[0], found.get("valid_max", [high])[0]


def _stored_limits(
    low: float | None, high: float | None, said: Said
) -> tuple[float | None, float | None]:
    factor, constant = said.line
    ends = [None if each is None else (each - constant) / factor for each in (low, high)]
    return (ends[0], ends[1]) if factor > 0 else (ends[1], ends[0])


def stored_as(value: float, dtype: np.dtype[Any]) -> float | None:
    """Returns a value as the dtype holds it, None if it cannot."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        inside = float(value).is_integer() and limits.min <= value <= limits.max
        return int(value) if inside else None
    with np.errstate(over="ignore"):
        found = float(dtype.type(value))
    return found if math.isfinite(found) else None


def check_axes(found: Sequence[str], expected: Sequence[str], clock: str = "") -> None:
    """Raises ValueError if the names of axes say that they stand in another order.

    Args:
        found: Their names, "" where unknown; those that are not known may stand anywhere.
        expected: What each is: time, band, y, x, or another word for an axis of any name.
        clock: Name of the time axis, if it has one of its own.
    """
    for name, role in zip(found, expected, strict=False):
        known = next((each for each, names in _AXES.items() if name.lower() in names), role)
        if name and name == clock:
            known = "time"
        if known != role:
            raise ValueError(
                f"has the axes [{', '.join(found)}]; expected [{', '.join(expected)}]: "
                "store it in this order"
            )


def _checked(said: Said) -> Said:
    factor, constant = said.line
    if not math.isfinite(factor) or not math.isfinite(constant) or factor == 0:
        raise ValueError(f"says that value = stored * {factor:g} + {constant:g}")
    return said._replace(scale=None, offset=None) if (factor, constant) == (1.0, 0.0) else said


def _nodata(values: Iterable[float]) -> tuple[float, ...]:
    # infinite values are not measured anyway, as NaN is
    return tuple(dict.fromkeys(value for value in values if math.isfinite(value)))


def _numbers(value: Any, what: str) -> list[float]:
    found = np.asarray(value).reshape(-1)
    if found.dtype.kind in "SUO":
        found = np.asarray([word for each in found for word in re.split(r"[\s,]+", _word(each))])
    if not 0 < len(found) <= _MOST_NUMBERS:
        raise ValueError(f"says {what} with {len(found)} numbers")
    # by way of text, 0.0001 of float32 is that of float64
    return [_number(str(each), what) for each in found]


def _number(text: str, what: str) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"says {what} {text.strip()[:40]!r}, which is no number") from None


def _word(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
