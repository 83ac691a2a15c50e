"""Data: shards, the sources they are packed from, and the loader that yields them.

python -m seamo_fast.data.pack SOURCE OUT
"""

from __future__ import annotations

from seamo_fast.data.loader import TileLoader
from seamo_fast.data.shards import Sample, ShardSet, ShardWriter

__all__ = ["Sample", "ShardSet", "ShardWriter", "TileLoader"]
