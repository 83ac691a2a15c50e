"""Moved to `seamo_fast.stats`; this name stays for those who call it."""

from __future__ import annotations

import sys
import warnings

from seamo_fast.stats import main

__all__ = ["main"]

warnings.warn(
    "seamo_fast.data.stats has moved to seamo_fast.stats",
    DeprecationWarning,
    stacklevel=1 + (__name__ != "__main__"),
)

if __name__ == "__main__":
    sys.exit(main())
