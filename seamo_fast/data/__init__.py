"""Data: shards, the sources they are packed from, and the loader that yields them.

python -m seamo_fast.pack SOURCE OUT
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seamo_fast.data.shards import Sample, ShardSet, ShardWriter

if TYPE_CHECKING:
    from seamo_fast.data.loading.loader import TileLoader

__all__ = ["Sample", "ShardSet", "ShardWriter", "TileLoader"]


def __getattr__(name: str) -> Any:
    if name != "TileLoader":  # which needs torch; packing does not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seamo_fast.data.loading.loader import TileLoader

    return TileLoader
