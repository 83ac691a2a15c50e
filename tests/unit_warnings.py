"""Which warnings about units a piece of code gives."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from seamo_fast.errors import UnitWarning


@contextmanager
def said(*expected: str) -> Iterator[None]:
    """Expects these warnings and no others, each a regular expression."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    texts = [str(each.message) for each in seen if each.category is UnitWarning]
    assert len(texts) == len(expected), texts
    for pattern, text in zip(expected, texts, strict=True):
        assert re.search(pattern, text), text
        assert "\n" not in text
