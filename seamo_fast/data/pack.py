"""Moved to `seamo_fast.pack`; this name stays for those who call it."""

from __future__ import annotations

import sys
import warnings

from seamo_fast.pack import main

__all__ = ["main"]

warnings.warn(
    "seamo_fast.data.pack has moved to seamo_fast.pack",
    DeprecationWarning,
    stacklevel=1 + (__name__ != "__main__"),
)

if __name__ == "__main__":
    sys.exit(main())
