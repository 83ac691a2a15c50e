"""Reading and writing files: nothing is lost, nothing hangs, and no file takes all memory."""

from __future__ import annotations

from seamo_fast.files.folders import (
    CACHE,
    cache_folder,
    locked,
    move_aside,
    new_folder,
    new_name,
    results_folder,
)
from seamo_fast.files.regular import check_regular, open_regular, read_regular
from seamo_fast.files.strangers import (
    brief,
    parse_json,
    parse_yaml,
    read_bounded,
    read_json,
    read_yaml,
    shown,
)
from seamo_fast.files.whole import replacing, sync, write_json, write_text, writing

__all__ = [
    "CACHE",
    "brief",
    "cache_folder",
    "check_regular",
    "locked",
    "move_aside",
    "new_folder",
    "new_name",
    "open_regular",
    "parse_json",
    "parse_yaml",
    "read_bounded",
    "read_json",
    "read_regular",
    "read_yaml",
    "replacing",
    "results_folder",
    "shown",
    "sync",
    "write_json",
    "write_text",
    "writing",
]
