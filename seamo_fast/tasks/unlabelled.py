"""Labelled datasets as sources of packing: their images, without the labels.

Which part is packed is the caller's choice, the training part by default, by the same split that
`evaluate` and `finetune` use: images of the test part in pretraining would be a leak.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from seamo_fast.data.packing.sources import (
    PlainOptions,
    Reading,
    check_memory,
    layout_names,
    recognise,
)
from seamo_fast.data.packing.sources.formats.names import is_hidden, walk
from seamo_fast.data.packing.sources.plain.folder import ALL, ImageFolder, has_parts
from seamo_fast.data.packing.sources.plain.source import WholeImages
from seamo_fast.data.shards import DTYPES, Remark
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets import open as datasets
from seamo_fast.tasks.datasets.open import (
    DATASETS,
    AnyDataset,
    DatasetOptions,
    open_items,
    split_items,
)

_PLAIN: Final = ("class_folder", "mask_folder")  # take a modality, and classes that nobody reads
_BY_MAPPING: Final = "worldcereal"  # a mapping of this name packs all months; it is to be named
_PARTS: Final = ("train", "val", "test")
_WIDEST: Final = "float32"  # of what shards hold


class Unlabelled(WholeImages):
    """The images of one part of a labelled dataset; an item is one of its items.

    Values are as the dataset reads them, but float64, which shards do not hold, becomes float32;
    a remark says so.

    Args:
        path: Folder of the dataset.
        name: One of `DATASETS`.
        modalities: Some of the dataset's; all if None.
        plain: Modality of plain folders, edge of tiles, and part.

    Raises:
        ConfigError: An option is impossible or of another dataset.
        DataError: The folder is not what it should be, or see `WholeImages`.
    """

    layout: ClassVar[str] = "labelled"

    def __init__(
        self,
        path: Path,
        name: str,
        modalities: Sequence[str] | None,
        plain: PlainOptions,
    ) -> None:
        self._name, self._part = name, plain.part or "train"
        if self._part not in (*_PARTS, ALL):
            raise ConfigError(f"part must be {', '.join(_PARTS)} or {ALL}, but got {self._part!r}")
        if plain.modality is not None and name not in _PLAIN:
            raise ConfigError(f"{name} knows what its images hold; leave --modality out")
        options = DatasetOptions(
            modalities=None if modalities is None else list(modalities),
            modality=plain.modality,
            classes=["any"] if name == "mask_folder" else None,
        )
        self._options = json.dumps(asdict(options))
        for cached in (_open, _numbers, _names):  # files may have come since
            cached.cache_clear()
        self.path = path
        chosen = self._dataset.modalities
        self.remarks = (self._remark(),)
        settings = {
            "dataset": name,
            "part": self._part,
            "modalities": [modality.name for modality in chosen],
        }
        super().__init__(path, chosen[0].release or name, chosen, plain.size, settings)

    def items(self) -> list[str]:
        """Returns the names of the items of the part."""
        return list(_names(self.path, self._name, self._options, self._part))

    def files(self, item: str) -> list[Path]:
        """Returns the files of an item's images."""
        return [file for path in self._dataset.paths(self._number(item)) for file in _below(path)]

    def whole(self, item: str) -> Reading:
        """Returns the images of an item in their own size."""
        contents = self._dataset.images(self._number(item))
        reading = Reading(item, {}, {}, {}, place=item)
        for modality in self.modalities:
            name = modality.name
            grids = contents.bands[name]
            reading.arrays[name] = [_stored(modality, grid, reading) for grid in grids]
            seasons = len(grids[0])
            valid = contents.valid.get(name, [True] * seasons)
            days = contents.dates.get(name, [None] * seasons)
            reading.valid[name] = [*valid]
            reading.dates[name] = [
                day if there else None for day, there in zip(days, valid, strict=True)
            ]
        return reading

    def _number(self, item: str) -> int:
        try:
            return _numbers(self.path, self._name, self._options)[item]
        except KeyError:
            raise DataError(f"{self.path} has no {item} any more", "missing") from None

    @property
    def _dataset(self) -> AnyDataset:
        return _open(self.path, self._name, self._options)

    def _remark(self) -> str:
        count = len(self._dataset)
        if self._part == ALL:
            return f"{self._name}: taking all {count} items, without labels, of the test part too"
        taken = f"the {len(self.items())} items of part {self._part!r} (of {count})"
        return f"{self._name}: taking {taken}, without labels"


# A job that is sent to a process names the dataset; it is opened there once, not sent along.
@lru_cache(maxsize=2)
def _open(path: Path, name: str, options: str) -> AnyDataset:
    return open_items(path, name, DatasetOptions(**json.loads(options)))[1]


@lru_cache(maxsize=2)
def _numbers(path: Path, name: str, options: str) -> dict[str, int]:
    entries = _open(path, name, options).entries
    return {entry.id: number for number, entry in enumerate(entries)}


@lru_cache(maxsize=2)
def _names(path: Path, name: str, options: str, part: str) -> tuple[str, ...]:
    dataset = _open(path, name, options)
    numbers = range(len(dataset)) if part == ALL else getattr(split_items(name, dataset), part)
    return tuple(dataset.entries[number].id for number in numbers)


def _below(path: Path) -> Iterator[Path]:
    """Yields a file itself, or the files of a folder."""
    if not path.is_dir():
        yield path
        return
    for prefix, _, files in walk(path):
        yield from (path / prefix / name for name in files if not is_hidden(name))


def _stored(modality: Modality, grid: np.ndarray, reading: Reading) -> np.ndarray:
    """Returns a grid in a dtype that shards hold.

    Raises:
        DataError: There is none that holds its values.
    """
    if grid.dtype.name in DTYPES:
        return grid
    with np.errstate(over="ignore"):
        stored = grid.astype(_WIDEST)
    if grid.dtype != "float64" or (np.isinf(stored) & np.isfinite(grid)).any():
        raise DataError(
            f"{reading.id} is stored as {grid.dtype}; shards hold {', '.join(DTYPES)}", "mismatch"
        )
    why = f"float64 is packed as {_WIDEST}, the widest that shards hold"
    reading.noted.append(Remark(modality.name, why, "metadata"))
    return stored


def labelled_name(path: Path, layout: str, part: str | None) -> str | None:
    """Returns the labelled dataset that is to be packed, None if it is another layout.

    A name that layouts and datasets share, and class folders without folders of parts, are the
    dataset where a part is asked for: only it knows the parts.

    Args:
        path: The source.
        layout: As given: "auto" looks.
        part: As given, None for the default.

    Raises:
        ConfigError: The layout is unknown.
    """
    if layout not in ("auto", *DATASETS, *layout_names()):
        every = ", ".join(dict.fromkeys((*layout_names(), *DATASETS)))
        raise ConfigError(f"unknown layout {layout!r}; expected auto, {every}")
    if layout != "auto":
        known = layout in DATASETS and (part is not None or layout not in layout_names())
        return layout if known else None
    if part is None and recognise(path) is not None:
        return None
    try:
        name = datasets.recognise(path)
    except DataError:
        return None
    if name == _BY_MAPPING and part is None:
        return None
    if name == "class_folder" and (part is None or has_parts(path)):
        return None
    return name


def open_labelled(
    path: Path,
    layout: str,
    seasons: int | None,
    modalities: Sequence[str] | None,
    plain: PlainOptions,
) -> Unlabelled | None:
    """Opens a labelled dataset for packing, see `Unlabelled`; None if the source is another layout.

    Raises:
        ConfigError: The layout is unknown, `seasons` is not the number that the dataset has, or see
            `Unlabelled`.
        DataError: See there, and a sample takes more memory than there is.
    """
    name = labelled_name(path, layout, plain.part)
    if name is None:
        return None
    try:
        source = Unlabelled(path, name, modalities, plain)
    except DataError as error:
        if layout != "auto" or error.kind == "mismatch":  # it is this dataset, and needs a size
            raise
        raise DataError(
            f"{error} (read as {name}; --layout {ImageFolder.layout} packs any images)", error.kind
        ) from error
    found = next(iter(source.arrays.values())).shape[0]
    if seasons not in (None, found):
        raise ConfigError(f"{name} has {found} seasons, but got {seasons}; leave --seasons out")
    check_memory(source)
    return source
