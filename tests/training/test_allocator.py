from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from seamo_fast.training import allocator

# pages that the kernel hands out while large blocks come and go
FAULTS = """
import resource, sys, torch
from seamo_fast.training import allocator
if sys.argv[1] == "keep" and not allocator.keep_freed_memory():
    sys.exit(77)
for step in range(30):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("the allocator is not glibc's")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_blocks_are_used_again() -> None:
    pages = 10_000_000 * 4 // 4096
    assert faults("keep") < 5 * pages
    if faults("default") < 15 * pages:
        pytest.skip("this allocator keeps large blocks by itself")


@pytest.mark.parametrize("refused", [None, -1, -3])
def test_both_thresholds_are_the_largest_that_malloc_takes(
    monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    asked = {}

    def mallopt(option: int, value: int) -> int:
        asked[option] = value
        return int(option != refused)

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocator.keep_freed_memory() is (refused is None)
    largest = 2 ** (8 * ctypes.sizeof(ctypes.c_int) - 1) - 1
    assert set(asked.values()) == {largest}
    if refused is None:  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        assert set(asked) == {-1, -3}


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
