"""Moved to `seamo_fast.data.loading.loader`; this name stays for those who call it."""

from __future__ import annotations

import warnings

from seamo_fast.data.loading.loader import TileLoader

__all__ = ["TileLoader"]

warnings.warn(
    "seamo_fast.data.loader has moved to seamo_fast.data.loading.loader",
    DeprecationWarning,
    stacklevel=2,
)
