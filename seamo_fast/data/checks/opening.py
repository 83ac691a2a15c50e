"""Opens what can be looked at: shards, or a dataset that can be packed into them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seamo_fast.data.packing.sources import Source, open_source
from seamo_fast.data.shards import ShardSet, is_packed


def open_data(
    path: Path,
    layout: str = "auto",
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: Sequence[str] | None = None,
) -> ShardSet | Source:
    """Returns a shard set, or else a dataset by the arguments of `open_source`.

    Raises:
        DataError: Neither is there, or it cannot be read.
        ConfigError: See `open_source`.
    """
    if is_packed(path):
        return ShardSet(path)
    return open_source(path, layout, mapping=mapping, seasons=seasons, modalities=modalities)
