"""Dates as files write them: text, or a number of units since an origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from typing import Final

_YEARS: Final = range(1900, 2100)  # of images of the Earth
_CLOCK: Final = (
    r"(?:[T_ .]?(?P<hour>\d{2})[:_-]?(?P<minute>\d{2})(?:[:_-]?(?P<second>\d{2})(?:[.,]\d+)?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
)
# The forms of a date differ in their number of digits, with and without a time.
_FORMS: Final = tuple(
    re.compile(day + _CLOCK, re.IGNORECASE)
    for day in (
        r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
        r"(?P<year>\d{4})(?P<mark>[-_/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})",
        r"(?P<year>\d{4})[-_]?(?P<ordinal>\d{3})",
    )
)
_STAMP: Final = re.compile(r"(?<!\d)\d{8}T\d{6}")
# What else digits are used for.
_OTHERS: Final = {
    6: {"YYMMDD": "%y%m%d", "DDMMYY": "%d%m%y", "MMDDYY": "%m%d%y", "YYYYMM": "%Y%m"},
    8: {"DDMMYYYY": "%d%m%Y", "MMDDYYYY": "%m%d%Y"},
}
_DAY: Final = 86_400_000_000  # microseconds
_UNITS: Final = {  # nanoseconds of each spelling in lower case
    name: size
    for names, size in (
        ("week weeks", 7 * 1000 * _DAY),
        ("day days d", 1000 * _DAY),
        ("hour hours hr hrs h", 3_600_000_000_000),
        ("minute minutes min mins", 60_000_000_000),
        ("second seconds sec secs s", 1_000_000_000),
        ("millisecond milliseconds millisec millisecs msec msecs ms", 1_000_000),
        ("microsecond microseconds microsec microsecs us µs", 1000),
        ("nanosecond nanoseconds ns", 1),
    )
    for name in names.split()
}
_SINCE: Final = re.compile(
    r"(?P<unit>\w+)\s+since\s+(?P<year>\d{1,4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[T\s]\s*(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:\.\d*)?)?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{1,2}(?::?\d{2})?)?",
    re.IGNORECASE,
)
_REFUSED: Final = {
    "360_day": "all its months have 30 days",
    "all_leap": "every year of it has a 29 February",
    "366_day": "every year of it has a 29 February",
}
_JULIAN_TO_ORDINAL: Final = 1721425  # Julian day number of the day before 0001-01-01
_GREGORIAN: Final = date(1582, 10, 15)  # where the standard calendar leaves the Julian one


def parse_date(text: str) -> date:
    """Returns the date of a text; see `parse_time`."""
    return parse_time(text).date()


def parse_time(text: str) -> datetime:
    """Returns the date and time (UTC) that a text says.

    Read are YYYYMMDD, YYYY-MM-DD (or with `_`, `/`, `.`), YYYYDDD and YYYY-DDD (day of the year),
    each alone or with a time of day after `T`, `_`, a space or nothing, and any text with a stamp
    YYYYMMDDTHHMMSS, of which the first counts.

    Raises:
        ValueError: There is no such date, or the text could mean several; they are named.
    """
    for form in _FORMS:
        match = form.fullmatch(text)
        found = match and _moment(match)
        if found:
            return found
    stamp = _STAMP.search(text)
    if stamp is not None and stamp[0] != text:
        return parse_time(stamp[0])
    hint = ""
    meanings = [f"{day} ({form})" for form, day in _meanings(text)]
    if meanings:
        named = "name the groups year, month and day in the pattern"
        hint = f"; it could mean {' or '.join(meanings)}: {named}"
    raise ValueError(f"{text!r} is not a date YYYYMMDD, YYYY-MM-DD or YYYYDDD{hint}")


def _moment(match: re.Match[str]) -> datetime | None:
    """Returns what a form says, None if there is no such moment."""
    part = match.groupdict()
    year = int(part["year"])
    try:
        if part.get("ordinal"):
            start = datetime(year, 1, 1) + timedelta(int(part["ordinal"]) - 1)
        else:
            start = datetime(year, int(part["month"]), int(part["day"]))
        hour, minute = int(part["hour"] or 0), int(part["minute"] or 0)
        start = start.replace(hour=hour, minute=minute, second=min(int(part["second"] or 0), 59))
    except (ValueError, OverflowError):
        return None
    if start.year != year or year not in _YEARS:
        return None
    return start - timedelta(minutes=_zone(part["zone"]))


def _zone(text: str | None) -> int:
    """Returns the minutes that a time zone is ahead of UTC."""
    digits = re.sub(r"\D", "", text or "")
    if not text or not digits:
        return 0
    minutes = int(digits) * 60 if len(digits) < 3 else int(digits[:-2]) * 60 + int(digits[-2:])
    return -minutes if text.startswith("-") else minutes


def _meanings(text: str) -> Iterable[tuple[str, date]]:
    """Yields the forms in which digits would be a date, and that date."""
    parts = re.split(r"[-_/.]", re.split(r"[T ]", text, maxsplit=1)[0])
    digits = "".join(part.zfill(2) for part in parts)
    for name, form in _OTHERS.get(len(digits), {}).items():
        try:
            day = datetime.strptime(digits, form).date()
        except ValueError:
            continue
        if day.year in _YEARS:
            yield name, day


def dates_since(values: Iterable[float], units: str, calendar: str = "standard") -> list[date]:
    """Returns the dates of numbers such as "days since 2020-01-01" (the CF conventions).

    A date of the calendars standard, gregorian, proleptic_gregorian and julian is the day that it
    was, by the Gregorian calendar; one of noleap (365_day) is the day of that name.

    Raises:
        ValueError: The units or the calendar are unknown or have no such dates, or a date is
            beyond the calendar.
    """
    match = _SINCE.fullmatch(units.strip())
    size = _UNITS.get(match["unit"].lower()) if match else None
    if match is None or size is None:
        month = match is not None and match["unit"].lower().rstrip("s") in ("month", "year")
        raise ValueError(
            f"the time axis has units {units!r}; expected 'days since YYYY-MM-DD' (or hours, "
            f"minutes, seconds){', since months and years differ in length' * month}"
        )
    number, day_of = _calendar(calendar)
    year, month_, day = (int(match[part]) for part in ("year", "month", "day"))
    clock = [int(match[part] or 0) for part in ("hour", "minute", "second")]
    seconds = clock[0] * 3600 + (clock[1] - _zone(match["zone"])) * 60 + clock[2]
    try:
        origin = number(year, month_, day) * _DAY + seconds * 1_000_000
    except ValueError as error:
        raise ValueError(f"the time axis has units {units!r}: {error}") from None
    try:
        return [day_of((origin + _microseconds(value, size)) // _DAY) for value in values]
    except (OverflowError, ValueError):  # ValueError: it is NaN
        raise ValueError("the time axis holds a date beyond the calendar") from None


def _microseconds(value: float, size: int) -> int:
    return value * size // 1000 if isinstance(value, int) else round(value * (size / 1000))


def _calendar(name: str) -> tuple[Callable[[int, int, int], int], Callable[[int], date]]:
    """Returns how a calendar numbers its days, and which date a number is.

    Raises:
        ValueError: It is unknown, or its dates are no days of ours.
    """
    lower = name.lower()
    numbers = {
        "standard": _standard,
        "gregorian": _standard,
        "proleptic_gregorian": _gregorian,
        "julian": _julian,
    }
    if lower in numbers:
        return numbers[lower], _date
    if lower in ("noleap", "365_day"):
        return _noleap, _noleap_date
    why = _REFUSED.get(lower)
    raise ValueError(
        f"the time axis has the calendar {name!r}"
        + (f", whose dates are no days of ours: {why}" if why else "")
        + f"; expected {', '.join(numbers)}, noleap or 365_day"
    )


def _date(number: int) -> date:
    if not 0 < number <= date.max.toordinal():
        raise OverflowError
    return date.fromordinal(number)


def _gregorian(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal()


def _standard(year: int, month: int, day: int) -> int:
    if (year, month, day) >= (_GREGORIAN.year, _GREGORIAN.month, _GREGORIAN.day):
        return _gregorian(year, month, day)
    return _julian(year, month, day)


def _julian(year: int, month: int, day: int) -> int:
    """Numbers a date of the Julian calendar as `date.toordinal` does one of ours."""
    date(2000 if year % 4 == 0 else 2001, month, day)  # raises ValueError if there is none
    years, months = year + 4800 - (month < 3), (month + 9) % 12
    day_number = day + (153 * months + 2) // 5 + 365 * years + years // 4 - 32083
    return day_number - _JULIAN_TO_ORDINAL


def _noleap(year: int, month: int, day: int) -> int:
    return year * 365 + date(2001, month, day).timetuple().tm_yday - 1


def _noleap_date(number: int) -> date:
    year, day = divmod(number, 365)
    if not 0 < year <= date.max.year:
        raise OverflowError
    return (date(2001, 1, 1) + timedelta(day)).replace(year=year)
