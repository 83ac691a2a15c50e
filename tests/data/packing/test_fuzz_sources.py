"""Damaged files of every layout: a named error or a counted skip, never a crash or a hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.packing import fuzzing

CASES = int(os.environ.get("SEAMO_FAST_FUZZ", 0)) // len(fuzzing.KINDS)  # `make fuzz`


@pytest.mark.parametrize("kind", list(fuzzing.KINDS))
def test_damaged_files_are_named_errors(tmp_path: Path, kind: str) -> None:
    short = 10 if kind == "ssl4eo-v1.0" else 40
    assert fuzzing.run(kind, 0, CASES or short, tmp_path) == []
