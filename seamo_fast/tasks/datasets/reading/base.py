"""What every labelled dataset gives: tiles as stored, with their labels, dates and split."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.names import twins
from seamo_fast.data.packing.sources.rules.lost import any_measured, check_bands
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

if TYPE_CHECKING:
    from typing_extensions import Self

OnBad = Literal["skip", "stop"]
Task = Literal["classes", "multilabel", "mask", "change"]
DENSE: Final = ("mask", "change")  # tasks whose pixels have labels
IGNORE: Final = -1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledTile:
    """One item of a dataset, values as stored.

    Attributes:
        id: Name of the item in its dataset.
        number: Its index in the dataset that gave it.
        split: The published part it belongs to, such as "train"; "" if it is in none.
        bands: For each modality its grids in ascending ground sampling distance, each
            [T, Cg, Hg, Wg]; zeros where a season is not valid.
        dates: For each modality T acquisition dates, None where unknown.
        valid: For each modality T flags.
        label: int64 class number [], or flags [classes] of a multi-label dataset.
        mask: int64 class numbers [H, W], `IGNORE` where a pixel has none.
    """

    id: str
    number: int
    split: str
    bands: dict[str, list[Tensor]]
    dates: dict[str, list[date | None]]
    valid: dict[str, list[bool]]
    label: Tensor | None = None
    mask: Tensor | None = None

    @property
    def image(self) -> Tensor:
        """The image [C, H, W] of an item with one modality on one grid at one season.

        Raises:
            ValueError: The item has more than that.
        """
        grids = [grid for grids in self.bands.values() for grid in grids]
        if len(grids) != 1 or len(grids[0]) != 1:
            shapes = ", ".join(str(list(grid.shape)) for grid in grids)
            raise ValueError(f"{self.id} is not one image but has grids {shapes}; use bands")
        return grids[0][0]


@dataclass(frozen=True)
class SkippedTile:
    """What stands for an item that cannot be read, where bad files are skipped.

    Attributes:
        id: Name of the item in its dataset.
        number: Its index.
        reason: Names the file and what is wrong with it.
    """

    id: str
    number: int
    reason: str


class Entry(Protocol):
    """Where an item lies; datasets keep one for each."""

    @property
    def id(self) -> str:
        """Name of the item."""
        ...

    @property
    def split(self) -> str:
        """The published part the item belongs to, or ""."""
        ...


class FileEntry(NamedTuple):
    """An item that is one file, or starts from one.

    Attributes:
        id: Name of the item.
        split: The published part it belongs to, or "".
        path: The file or folder.
        label: Number of its class.
    """

    id: str
    split: str
    path: Path
    label: int = 0


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Contents:
    """What a dataset reads of one item.

    Attributes:
        bands: For each modality its grids [T, Cg, Hg, Wg].
        dates: For each modality T dates; unknown ones if it is not in here.
        label: Class number, or flags [classes].
        mask: Integers [H, W].
        valid: For each modality T flags, False where the item lacks a season, whose bands are
            zeros; it lacks none of a modality that is not in here.
    """

    bands: dict[str, list[np.ndarray]]
    dates: dict[str, list[date | None]]
    label: int | np.ndarray | None = None
    mask: np.ndarray | None = None
    valid: dict[str, list[bool]] = field(default_factory=dict)


def choose(known: Mapping[str, Modality], names: Sequence[str]) -> list[Modality]:
    """Returns the modalities of these names.

    Raises:
        ValueError: There is none, or one is unknown.
    """
    if not names or any(name not in known for name in names):
        raise ValueError(f"modalities must be some of {', '.join(known)}, but got {list(names)}")
    return [known[name] for name in names]


class LabelledDataset(Dataset["LabelledTile | SkippedTile"], ABC, Generic[E]):
    """A map-style dataset on disk.

    An item is a `LabelledTile`. One that cannot be read raises DataError, or is a `SkippedTile`
    where `on_bad` is "skip"; `collate` leaves those out and counts them.

    Attributes:
        task: What is to be predicted for an item.
        modalities: Those of an item, without statistics: measure them on the training part.
        classes: Names of the classes.
        entries: Where each item lies.
        on_bad: What an item that cannot be read does.
        remarks: What was left out when the dataset was opened, and why.

    Args:
        modalities: See above.
        classes: See above.
        entries: Those of all parts.
        split: The part to keep; None for all entries. Readers whose items come from lists alone
            have none besides those in a part.
        on_bad: "stop" raises, "skip" gives a `SkippedTile`.
        remarks: See above.

    Raises:
        DataError: There is no item, or none in this part, or two have one name.
    """

    task: Task

    def __init__(
        self,
        modalities: Sequence[Modality],
        classes: Sequence[str],
        entries: Sequence[E],
        split: str | None = None,
        on_bad: OnBad = "stop",
        remarks: Sequence[str] = (),
    ) -> None:
        if not entries:
            raise DataError(f"{type(self).__name__}: there is no item")
        for name, other in twins(entry.id for entry in entries).items():
            raise DataError(
                f"{type(self).__name__}: two items have one name, {other} and {name}; rename or "
                "delete one",
                "name",
            )
        self.modalities = tuple(modalities)
        self.classes = tuple(classes)
        self.entries: Sequence[E] = tuple(entries)
        self.on_bad = on_bad
        self.remarks = tuple(remarks)
        if remarks:
            _LOG.warning(f"{type(self).__name__}: {len(remarks)} remarks: {remarks[0]}; ...")
        if split is not None:
            self.entries = self.part(split).entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> LabelledTile | SkippedTile:
        """Reads one item.

        Raises:
            DataError: It cannot be read, and `on_bad` is "stop".
            IndexError: There is no such item.
        """
        try:
            return self.read(index)
        except DataError as error:
            if self.on_bad == "stop":
                raise
            return SkippedTile(self.entries[index].id, index % len(self), str(error))

    def read(self, index: int) -> LabelledTile:
        """Reads one item, whatever `on_bad` is.

        Raises:
            DataError: A file is missing, damaged, or not what the dataset holds, or a band was
                never filled or is constant; it is named.
            IndexError: There is no such item.
        """
        entry = self.entries[index]
        contents = self._read(entry)
        self._check(entry, contents)
        label, mask = contents.label, contents.mask
        seasons = {name: len(grids[0]) for name, grids in contents.bands.items()}
        return LabelledTile(
            id=entry.id,
            number=index % len(self),
            split=entry.split,
            bands={
                name: [torch.from_numpy(np.require(grid, None, ["C", "W"])) for grid in grids]
                for name, grids in contents.bands.items()
            },
            dates={name: contents.dates.get(name, [None] * seasons[name]) for name in seasons},
            valid={name: contents.valid.get(name, [True] * seasons[name]) for name in seasons},
            label=None if label is None else torch.tensor(label, dtype=torch.int64),
            mask=None if mask is None else torch.from_numpy(mask.astype(np.int64)),
        )

    def label_of(self, index: int) -> int | np.ndarray | None:
        """Returns the class number or flags of an item, without its images where that can be.

        Raises:
            DataError: A file is missing, damaged, or not what the dataset holds.
            IndexError: There is no such item.
        """
        return self._label_of(self.entries[index])

    def _label_of(self, entry: E) -> int | np.ndarray | None:
        """Reads the label of an item; readers that know it otherwise do not open its images."""
        return self._read(entry).label

    def has_label(self, entry: E) -> bool:
        """Returns whether an item has a label, as far as that is known without reading it."""
        return True

    def place_of(self, entry: E) -> str:
        """Returns the name of an item's place: items of one place are not split apart."""
        return entry.id

    def _check(self, entry: E, contents: Contents) -> None:
        """Raises DataError if an image or a band of it was never filled, or a band is constant."""
        for modality in self.modalities:
            seasons = list(zip(*contents.bands[modality.name], strict=True))
            valid = contents.valid.get(modality.name, [True] * len(seasons))
            for t, grids in enumerate(seasons):
                if not valid[t]:
                    continue
                where = entry.id if len(seasons) == 1 else f"{entry.id} season {t}"
                try:
                    if not any_measured(grids, modality.nodata, modality.limit):
                        raise TileError(f"no pixel of {modality.name} is measured", "unmeasured")
                    check_bands(modality, grids)
                except TileError as error:
                    raise DataError(f"{where}: {error}", error.kind) from error

    def images(self, index: int) -> Contents:
        """Reads the images of an item as stored, without label and mask, whatever is in them.

        Raises:
            DataError: A file of them is missing, damaged, or not what the dataset holds.
            IndexError: There is no such item.
        """
        return replace(self._images(self.entries[index]), label=None, mask=None)

    def paths(self, index: int) -> list[Path]:
        """Returns the files, and folders of files, that the images of an item are read from."""
        return list(self._paths(self.entries[index]))

    def _images(self, entry: E) -> Contents:
        """Reads an item for its images; readers override it to leave files of labels closed."""
        return self._read(entry)

    def _paths(self, entry: E) -> Iterable[Path]:
        """Yields what `paths` returns: by default the path that the entry has, if any."""
        path = getattr(entry, "path", None)
        return () if path is None else (path,)

    @abstractmethod
    def _read(self, entry: E) -> Contents:
        """Reads the files of an item; raises DataError naming the one that is bad."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The published parts that items belong to, in the order they first come."""
        return tuple(dict.fromkeys(entry.split for entry in self.entries if entry.split))

    def part(self, split: str) -> Self:
        """Returns the dataset of one part.

        Raises:
            DataError: No item belongs to it.
        """
        kept = tuple(entry for entry in self.entries if entry.split == split)
        if not kept:
            known = ", ".join(self.parts) or "none: its lists are missing"
            raise DataError(f"{type(self).__name__} has no items in {split!r}; its parts: {known}")
        found = copy.copy(self)
        found.entries = kept
        return found
