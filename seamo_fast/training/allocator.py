"""How the process treats memory that tensors have given back."""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keeps freed memory in the process for the next step, instead of giving it back at once.

    By default glibc unmaps each freed block above 32 MiB; the kernel then clears new pages at
    every step. The peak stays as it is, and the process does not shrink below it any more. For the
    whole process, so only for commands.

    Returns:
        Whether the allocator took the settings; others than glibc's do not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _LARGEST))
