"""Dates as names and time axes write them, against what they were made from and cftime."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from seamo_fast.data.packing.sources.formats.times import dates_since, parse_date, parse_time

NO_DATE = "is not a date YYYYMMDD, YYYY-MM-DD or YYYYDDD"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20180910", datetime(2018, 9, 10)),
        ("2018-09-10", datetime(2018, 9, 10)),
        ("2018_09_10", datetime(2018, 9, 10)),
        ("2018/9/1", datetime(2018, 9, 1)),
        ("2018.09.10", datetime(2018, 9, 10)),
        ("2018253", datetime(2018, 9, 10)),
        ("2018-253", datetime(2018, 9, 10)),
        ("2016366", datetime(2016, 12, 31)),
        ("2018253T175901", datetime(2018, 9, 10, 17, 59, 1)),
        ("2018253175901", datetime(2018, 9, 10, 17, 59, 1)),
        ("2018253.1759", datetime(2018, 9, 10, 17, 59)),
        ("20180910T175901", datetime(2018, 9, 10, 17, 59, 1)),
        ("20180910t175901Z", datetime(2018, 9, 10, 17, 59, 1)),
        ("20180910_175901", datetime(2018, 9, 10, 17, 59, 1)),
        ("20180910 1759", datetime(2018, 9, 10, 17, 59)),
        ("20180910175901", datetime(2018, 9, 10, 17, 59, 1)),
        ("2018-09-10T17:59:01.024Z", datetime(2018, 9, 10, 17, 59, 1)),
        ("2018-09-10T17-59-60", datetime(2018, 9, 10, 17, 59, 59)),
        ("2018-09-10 23:30:00 UTC", datetime(2018, 9, 10, 23, 30)),
        ("2018-09-10T23:30:00-05:00", datetime(2018, 9, 11, 4, 30)),
        ("2018-09-10T01:30:00+0200", datetime(2018, 9, 9, 23, 30)),
        ("20200304T105031_20200305T105033_T31TCJ", datetime(2020, 3, 4, 10, 50, 31)),
        ("S1A_IW_GRDH_1SDV_20200604T010800_20200604T010825", datetime(2020, 6, 4, 1, 8)),
    ],
)
def test_forms_in_use(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected
    assert parse_date(text) == expected.date()


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("10092018", "2018-09-10 (DDMMYYYY) or 2018-10-09 (MMDDYYYY)"),
        ("10092018T175901", "2018-09-10 (DDMMYYYY) or 2018-10-09 (MMDDYYYY)"),
        ("25092018", "2018-09-25 (DDMMYYYY)"),
        ("9/10/2018", "2018-10-09 (DDMMYYYY) or 2018-09-10 (MMDDYYYY)"),
        ("180910", "2018-09-10 (YYMMDD) or 2010-09-18 (DDMMYY)"),
        ("202003", "2020-03-01 (YYYYMM)"),
    ],
)
def test_what_is_ambiguous_is_refused_with_what_it_could_mean(text: str, meanings: str) -> None:
    with pytest.raises(ValueError, match="it could mean") as caught:
        parse_date(text)
    remedy = "name the groups year, month and day in the pattern"
    assert str(caught.value) == f"{text!r} {NO_DATE}; it could mean {meanings}: {remedy}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "nothing", "2020-13-01", "20200230", "2018366", "2018000", "1009118", "15830101"),
        *("1583319031", "2020030410", "20200304_1", "20200304T25", "2020-03-04T24:00"),
        *("2018-09-101", "20200304-0310"),
    ],
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date") as caught:
        parse_date(text)
    assert str(caught.value) == f"{text!r} {NO_DATE}"


@pytest.mark.parametrize(
    ("units", "values", "expected"),
    [
        ("days since 2020-01-01", [0, 59, 59.999, 60], ["01-01", "02-29", "02-29", "03-01"]),
        ("day since 2020-1-1", [1], ["01-02"]),
        ("d since 2020-01-01T00:00:00Z", [1.5], ["01-02"]),
        ("DAYS SINCE 2020-01-01 00:00:00.0 +00:00", [-0.0, 1], ["01-01", "01-02"]),
        ("weeks since 2020-01-01", [1], ["01-08"]),
        ("Hours since 2020-01-01 12:00:00", [11, 12, 36], ["01-01", "01-02", "01-03"]),
        ("hour since 2020-01-01 12", [12], ["01-02"]),
        ("hrs since 2020-01-01T23:30 UTC", [0, 0.5], ["01-01", "01-02"]),
        ("hr since 2020-01-01 0:0:0", [23, 24], ["01-01", "01-02"]),
        ("h since 2020-01-02 01:00 +02:00", [0, 1], ["01-01", "01-02"]),
        ("h since 2020-01-01 23:00 -1", [0], ["01-02"]),
        ("minutes since 2020-01-01", [1439, 1440], ["01-01", "01-02"]),
        ("min since 2020-01-01 23:59", [1], ["01-02"]),
        ("seconds since 2020-01-01 GMT", [86399.9, 86400], ["01-01", "01-02"]),
        ("sec since 2020-01-01", [86400], ["01-02"]),
        ("s since 2020-01-01", [86399, 86400], ["01-01", "01-02"]),
        ("milliseconds since 2020-01-01", [86399999], ["01-01"]),
        ("msecs since 2020-01-01", [86400000], ["01-02"]),
        ("ms since 2020-01-01", [86400000], ["01-02"]),
        ("microseconds since 2020-01-01", [86400000000], ["01-02"]),
        ("ns since 2020-01-01", [86399999999999, 86400000000000], ["01-01", "01-02"]),
    ],
)
def test_spellings_of_units(units: str, values: list[float], expected: list[str]) -> None:
    assert [f"{day:%m-%d}" for day in dates_since(values, units)] == expected


@pytest.mark.parametrize(
    ("calendar", "units", "value", "expected"),
    [
        ("standard", "days since 0001-01-01", 737426, date(2020, 1, 1)),
        ("gregorian", "days since 1-1-1", 737426, date(2020, 1, 1)),
        ("proleptic_gregorian", "days since 0001-01-01", 737424, date(2020, 1, 1)),
        ("Standard", "days since 1582-10-04", 1, date(1582, 10, 15)),
        ("julian", "days since 2020-01-01", 0, date(2020, 1, 14)),
        ("julian", "days since 1900-02-29", 1, date(1900, 3, 14)),
        ("noleap", "days since 2019-01-01", 365 + 59, date(2020, 3, 1)),
        ("365_day", "hours since 2020-02-28 23:00", 1, date(2020, 3, 1)),
        ("standard", "days since 2019-01-01", 365 + 59, date(2020, 2, 29)),
    ],
)
def test_calendars_with_one_meaning(
    calendar: str, units: str, value: float, expected: date
) -> None:
    assert dates_since([value], units, calendar) == [expected]


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian", "noleap"])
@pytest.mark.parametrize("units", ["days since 1850-01-01", "hours since 0001-01-01 00:00:00"])
def test_dates_equal_cftime(calendar: str, units: str) -> None:
    cftime = pytest.importorskip("cftime", reason="the independent reader is cftime")
    scale = 24 if units.startswith("hours") else 1
    first = 1850 * 365 * 24 if scale == 24 else 0
    values = [first + scale * n * 97.25 for n in range(1000)]
    expected = cftime.num2date(values, units, calendar, only_use_cftime_datetimes=True)
    found = dates_since(values, units, calendar)
    assert [(d.year, d.month, d.day) for d in found] == [(d.year, d.month, d.day) for d in expected]


@pytest.mark.parametrize(
    ("units", "calendar", "message"),
    [
        (
            "days since 2020-01-01",
            "360_day",
            "the time axis has the calendar '360_day', whose dates are no days of ours: all its "
            "months have 30 days; expected standard, gregorian, proleptic_gregorian, julian, "
            "noleap or 365_day",
        ),
        (
            "days since 2020-01-01",
            "all_leap",
            "the time axis has the calendar 'all_leap', whose dates are no days of ours: every "
            "year of it has a 29 February; expected standard, gregorian, proleptic_gregorian, "
            "julian, noleap or 365_day",
        ),
        (
            "days since 2020-01-01",
            "none",
            "the time axis has the calendar 'none'; expected standard, gregorian, "
            "proleptic_gregorian, julian, noleap or 365_day",
        ),
        (
            "months since 2020-01-01",
            "standard",
            "the time axis has units 'months since 2020-01-01'; expected 'days since YYYY-MM-DD' "
            "(or hours, minutes, seconds), since months and years differ in length",
        ),
        (
            "days",
            "standard",
            "the time axis has units 'days'; expected 'days since YYYY-MM-DD' (or hours, minutes, "
            "seconds)",
        ),
        (
            "days since 2020-02-30",
            "standard",
            "the time axis has units 'days since 2020-02-30': day",
        ),
    ],
)
def test_refused_axes(units: str, calendar: str, message: str) -> None:
    with pytest.raises(ValueError, match="the time axis has") as caught:
        dates_since([0], units, calendar)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [1e12, -1e7, float("inf"), float("nan"), 10**30])
def test_dates_beyond_the_calendar(value: float) -> None:
    for calendar in ("standard", "noleap"):
        with pytest.raises(ValueError, match="the time axis holds a date beyond the calendar"):
            dates_since([value], "days since 2020-01-01", calendar)
