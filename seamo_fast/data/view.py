"""Moved to `seamo_fast.view`; this name stays for those who call it."""

from __future__ import annotations

import sys
import warnings

from seamo_fast.view import main

__all__ = ["main"]

warnings.warn(
    "seamo_fast.data.view has moved to seamo_fast.view",
    DeprecationWarning,
    stacklevel=1 + (__name__ != "__main__"),
)

if __name__ == "__main__":
    sys.exit(main())
