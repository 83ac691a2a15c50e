"""Dates of acquisition: int32, days since 1970-01-01."""

from __future__ import annotations

from typing import Final

MISSING_DATE: Final = -(2**31)  # of a group whose date is unknown
FIRST_DATE: Final = -25567  # 1900-01-01; no image of the Earth from above is older
LAST_DATE: Final = 84006  # 2200-01-01; YYYYMMDD, seconds and other units of time are beyond
