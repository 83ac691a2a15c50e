"""Dates as files write them: text, or a number of units since an origin."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

CALENDARS: Final = ("standard", "gregorian", "proleptic_gregorian")
_UNITS: Final = re.compile(
    r"(days|hours|minutes|seconds|milliseconds|microseconds|nanoseconds)"
    r" since (\d{4}-\d{1,2}-\d{1,2})(.*)"
)


def parse_date(text: str) -> date:
    """Returns the date of YYYYMMDD or YYYY-MM-DD, with or without a time of day after it.

    Raises:
        ValueError: There is no such date.
    """
    digits = re.sub(r"\D", "", text)[:8]
    if len(digits) < 8:
        raise ValueError(f"{text!r} is not a date YYYYMMDD")
    try:
        return datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        raise ValueError(f"{text!r} is not a date YYYYMMDD") from None


def dates_since(values: Iterable[float], units: str, calendar: str = "standard") -> list[date]:
    """Returns the dates of numbers such as "days since 2020-01-01" (the CF conventions).

    Raises:
        ValueError: The units or the calendar are unknown, or a date is beyond the calendar.
    """
    match = _UNITS.fullmatch(units.strip())
    if match is None or calendar not in CALENDARS:
        raise ValueError(
            f"the time axis has units {units!r} and calendar {calendar!r}; expected "
            f"'days since YYYY-MM-DD' (or hours, minutes, seconds) and {' or '.join(CALENDARS)}"
        )
    unit, origin_text, clock = match.groups()
    try:
        origin = datetime.strptime(origin_text, "%Y-%m-%d") + _clock(clock)
        if unit == "nanoseconds":
            return [(origin + timedelta(microseconds=value // 1000)).date() for value in values]
        return [(origin + timedelta(**{unit: float(value)})).date() for value in values]
    except OverflowError:
        raise ValueError("the time axis holds a date beyond the calendar") from None


def _clock(text: str) -> timedelta:
    """Returns the time of day in the rest of a units text such as ' 06:00:00'."""
    match = re.match(r"[ T](\d{1,2}):(\d{2})", text)
    return timedelta(hours=int(match[1]), minutes=int(match[2])) if match else timedelta()
