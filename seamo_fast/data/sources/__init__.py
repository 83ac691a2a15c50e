"""The layouts on disk that can be packed, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seamo_fast.data.sources.base import Reading, Source
from seamo_fast.data.sources.mapping import load_mapping
from seamo_fast.data.sources.series import Series
from seamo_fast.data.sources.ssl4eo import SSL4EO
from seamo_fast.errors import ConfigError, DataError

__all__ = ["LAYOUTS", "Reading", "Source", "open_source"]

LAYOUTS: Final[dict[str, type[SSL4EO] | type[Series]]] = {
    each.layout: each for each in (SSL4EO, Series)
}


def open_source(
    path: Path,
    layout: str = "auto",
    *,
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: Sequence[str] | None = None,
) -> Source:
    """Opens a dataset.

    Args:
        path: Where it lies.
        layout: One of `LAYOUTS`, or "auto" to recognise it.
        mapping: Name or file of the mapping of a series.
        seasons: T; 4 or the mapping's if None.
        modalities: Which to read; the layout's default if None.

    Raises:
        DataError: There is nothing of the layout, or it cannot be read.
        ConfigError: `seasons` is below 1.
    """
    if seasons is not None and seasons < 1:
        raise ConfigError(f"seasons must be 1 or more, but got {seasons}")
    if not path.exists():
        raise DataError(f"source {path} does not exist")
    if layout == "auto":
        layout = _recognise(path, mapping)
    if layout == SSL4EO.layout:
        if not SSL4EO.recognises(path):
            raise DataError(f"{path} is not {layout}; looked for {SSL4EO.looked_for}")
        return SSL4EO(path, seasons or 4, modalities)
    if layout == Series.layout:
        if mapping is None:
            raise DataError(
                "a time series needs --mapping: a .yaml file or a name like worldcereal"
            )
        return Series(path, load_mapping(mapping), seasons, modalities)
    raise DataError(f"unknown layout {layout!r}; expected auto, {', '.join(LAYOUTS)}")


def _recognise(path: Path, mapping: str | None) -> str:
    if mapping is not None:
        return Series.layout
    if SSL4EO.recognises(path):
        return SSL4EO.layout
    looked_for = "; ".join(f"{name}: {each.looked_for}" for name, each in LAYOUTS.items())
    state = "is empty" if path.is_dir() and not any(path.iterdir()) else "has no known layout"
    raise DataError(f"{path} {state}; looked for {looked_for}")
