"""The layouts on disk that can be packed, by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from seamo_fast.data.packing.sources.base import Layout, Reading, Source
from seamo_fast.data.packing.sources.formats.names import is_hidden
from seamo_fast.data.packing.sources.mapping_files import load_mapping, packaged_mappings
from seamo_fast.data.packing.sources.plain.folder import ImageFolder
from seamo_fast.data.packing.sources.series import Series
from seamo_fast.data.packing.sources.ssl4eo import SSL4EO
from seamo_fast.data.packing.sources.ssl4eo_lmdb import SSL4EOLmdb
from seamo_fast.data.packing.sources.ssl4eo_zarr import SSL4EOZarr
from seamo_fast.data.shards import record_bytes
from seamo_fast.errors import ConfigError, DataError

__all__ = [
    "LAYOUTS",
    "Layout",
    "PlainOptions",
    "Reading",
    "Source",
    "check_memory",
    "layout_names",
    "open_source",
    "recognise",
]

_COPIES: Final = 2  # of a sample, while it is packed
# the one list of layouts: help, recognition and error messages read it
LAYOUTS: Final[tuple[type[Layout], ...]] = (SSL4EO, SSL4EOLmdb, SSL4EOZarr)


@dataclass(frozen=True)
class PlainOptions:
    """What plain folders of images do not say themselves.

    Attributes:
        modality: What an image holds: the name of a registered modality, "rgb" if None.
        size: Edge of the tiles that images are cut into; None for images of one size.
        part: Which part to take, "all" for all.
    """

    modality: str | None = None
    size: int | None = None
    part: str | None = None

    def check_none(self, layout: str) -> None:
        """Raises ConfigError if there are any."""
        given = [name for name, value in asdict(self).items() if value is not None]
        if given:
            raise ConfigError(f"layout {layout} takes no {given[0]}; leave --{given[0]} out")


def layout_names() -> list[str]:
    """Returns what `--layout` takes, besides auto; a mapping of this package is one too."""
    names = [each.layout for each in LAYOUTS]
    return [*names, Series.layout, ImageFolder.layout, *packaged_mappings()]


def open_source(
    path: Path,
    layout: str = "auto",
    *,
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: Sequence[str] | None = None,
    images: PlainOptions = PlainOptions(),
) -> Source:
    """Opens a dataset.

    Args:
        path: Where it is.
        layout: One of `layout_names`, or "auto" to recognise it.
        mapping: Name or file of the mapping of a series.
        seasons: T; 4 or the mapping's if None.
        modalities: Which to read; the layout's default if None.
        images: What plain folders of images do not say themselves.

    Raises:
        DataError: There is nothing of the layout, it cannot be read, or a sample takes more memory
            than there is.
        ConfigError: `seasons` is below 1, a modality comes twice, or a mapping with a layout,
            or an option is of another layout.
    """
    _check(layout, mapping, seasons, modalities)
    if not path.exists():
        raise DataError(f"source {path} does not exist")
    if layout == "auto" and mapping is None:
        layout = recognise(path) or _images_or_unknown(path)
    if layout == ImageFolder.layout:
        source = _open_images(path, seasons, modalities, images)
    else:
        images.check_none(layout if mapping is None else Series.layout)
        source = _open(path, layout, mapping, seasons, modalities)
    check_memory(source)
    return source


def check_memory(source: Source) -> None:
    """Raises DataError if a sample takes more memory than there is."""
    size = record_bytes(list(source.arrays.values()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory // _COPIES:
        raise DataError(
            f"a sample of {source.path} takes {size / 1e9:.1f} GB, too much for "
            f"{memory / 1e9:.1f} GB of memory; pack fewer seasons or modalities, or smaller tiles"
        )


def _open_images(
    path: Path, seasons: int | None, modalities: Sequence[str] | None, images: PlainOptions
) -> Source:
    if modalities is not None or seasons not in (None, 1):
        raise ConfigError(
            "plain images have one modality (--modality) and one season; dates and several "
            "modalities take a mapping (--mapping)"
        )
    return ImageFolder(path, images.modality or "rgb", images.size, images.part)


def _open(
    path: Path,
    layout: str,
    mapping: str | None,
    seasons: int | None,
    modalities: Sequence[str] | None,
) -> Source:
    if mapping is not None:
        return Series(path, load_mapping(mapping), seasons, modalities)
    for kind in LAYOUTS:
        if kind.layout != layout:
            continue
        if not kind.recognises(path):
            raise DataError(f"{path} is not {layout}; looked for {kind.looked_for}")
        return kind(path, seasons or 4, modalities)
    if layout == Series.layout:
        raise DataError(
            "a time series needs --mapping: a .yaml file or one of "
            f"{', '.join(packaged_mappings())}"
        )
    if layout in packaged_mappings():
        return Series(path, load_mapping(layout), seasons, modalities)
    raise DataError(f"unknown layout {layout!r}; expected auto, {', '.join(layout_names())}")


def _check(
    layout: str, mapping: str | None, seasons: int | None, modalities: Sequence[str] | None
) -> None:
    if seasons is not None and seasons < 1:
        raise ConfigError(f"seasons must be 1 or more, but got {seasons}")
    if modalities is not None and (not modalities or len(set(modalities)) < len(modalities)):
        raise ConfigError(f"modalities must be some, each once, but got {list(modalities)}")
    if mapping is not None and layout not in ("auto", Series.layout):
        raise ConfigError(f"a mapping describes a series; leave out --layout {layout}")


def recognise(path: Path) -> str | None:
    """Returns the layout that a folder shows, None for none; plain images are no layout here."""
    for kind in LAYOUTS:
        if kind.recognises(path):
            return kind.layout
    for name in packaged_mappings():
        for pattern in load_mapping(name).recognise:
            if path.is_dir() and not all(is_hidden(f.name) for f in path.glob(_any_case(pattern))):
                return name
    return None


def _images_or_unknown(path: Path) -> str:
    if ImageFolder.recognises(path):
        return ImageFolder.layout
    looked_for = [f"{each.layout}: {each.looked_for}" for each in LAYOUTS]
    looked_for.append(f"{Series.layout}: {Series.looked_for}")
    looked_for.append(f"{ImageFolder.layout}: {ImageFolder.looked_for}")
    state = "is empty" if path.is_dir() and not any(path.iterdir()) else "has no known layout"
    raise DataError(f"{path} {state}; looked for {'; '.join(looked_for)}")


def _any_case(pattern: str) -> str:
    """Returns a pattern of files whose ending may be in any case."""
    stem, dot, ending = pattern.rpartition(".")
    if not dot:
        return pattern
    return stem + dot + re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", ending)
