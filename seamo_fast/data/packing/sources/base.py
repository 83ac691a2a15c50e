"""What a source gives to the packer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from seamo_fast.data.packing.sources.formats.ground import Ground
from seamo_fast.data.packing.sources.formats.names import is_hidden
from seamo_fast.data.shards import ArraySpec, Remark, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

_BASELINE: Final = re.compile(r"_N(\d\d)(\d\d)_")  # in names of Sentinel-2 products


@dataclass
class Reading:
    """One sample as read, in the form that `ShardWriter.add` takes.

    Attributes:
        id: Name of the sample in its source.
        arrays: For each modality its grids, each [T, Cg, Hg, Wg]; a modality may be absent.
        dates: For each modality T dates.
        valid: For each modality T flags.
        skipped: Tiles that could not be used; their groups are invalid.
        noted: Tiles that are kept or missing in an unusual way.
        place: Name of the place; samples that share ground share it. `id` if empty.
        position: Longitude and latitude of the place in degrees, None where unknown.
        baselines: For each modality the processing baselines of its T tiles, such as 4.0, None
            where no name says it; a modality may be absent.
    """

    id: str
    arrays: dict[str, list[np.ndarray]]
    dates: dict[str, list[date | None]]
    valid: dict[str, list[bool]]
    skipped: list[Remark] = field(default_factory=list)
    noted: list[Remark] = field(default_factory=list)
    place: str = ""
    position: tuple[float, float] | None = None
    baselines: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no group is valid."""
        return not any(any(flags) for flags in self.valid.values())

    @property
    def left_out(self) -> list[Remark]:
        """The skipped tiles, and the sample itself if no tile of it can be used."""
        if not self.empty:
            return self.skipped
        return [*self.skipped, Remark(self.id, "no tile of it can be used", "unusable")]


class Source(Protocol):
    """A dataset on disk; picklable, so that worker processes can read it.

    Attributes:
        layout: Name of the layout, for the manifest.
        path: Where the dataset is.
        release: Release name for the manifest and measured statistics.
        modalities: In the order of the M axis.
        arrays: One record's dtype and shape for each array.
        settings: Everything besides the items that decides what is read; JSON-able.
        remarks: What is taken and left out, a line each, for the log.
    """

    layout: ClassVar[str]
    path: Path
    release: str
    modalities: tuple[Modality, ...]
    arrays: dict[str, ArraySpec]
    settings: dict[str, Any]
    remarks: tuple[str, ...]

    def items(self) -> list[str]:
        """Returns the names of the pieces that are read one by one, in a fixed order."""
        ...

    def files(self, item: str) -> Iterable[Path]:
        """Returns the files that an item is read from; opens none of them."""
        ...

    def estimate(self) -> int:
        """Returns about how many samples the items yield, judged by the first of them."""
        ...

    def read(self, item: str) -> Iterator[Reading]:
        """Yields the samples of an item.

        Raises:
            DataError: The whole item cannot be used.
        """
        ...

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields where the places of an item are, and what their tiles hold.

        Cheap: of a tile it reads one band, if that. A place may come several times, and each that
        `read` gives a sample of comes.

        Raises:
            DataError: The whole item cannot be used.
        """
        ...


class Layout(Source, Protocol):
    """A source that a folder shows by itself, without a mapping.

    A new one is a class like this in a file of its own, and its name in `LAYOUTS` of this package.

    Args:
        path: Where the dataset is.
        seasons: T.
        modalities: Which to read; the layout's usual ones if None.

    Raises:
        DataError: A modality is not there, or nothing can be read.

    Attributes:
        looked_for: What a folder of this layout contains, for error messages.
    """

    looked_for: ClassVar[str]

    def __init__(
        self, path: Path, seasons: int = 4, modalities: Sequence[str] | None = None
    ) -> None: ...

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a folder looks like this layout; reads no pixel."""
        ...


class TileError(ValueError):
    """A tile that cannot be used; the message says why.

    Args:
        message: Names the file and what is wrong.
        kind: Its code in reports, one of `seamo_fast.data.shards.KINDS`.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


def product_baseline(name: str) -> float | None:
    """Returns the processing baseline in the name of a Sentinel-2 product, such as 4.0 of N0400.

    None if there is none, or 99.99, which is nobody's in particular.
    """
    match = _BASELINE.search(name)
    if match is None or match[0] == "_N9999_":
        return None
    return int(match[1]) + int(match[2]) / 100


def check_tile(name: str, values: np.ndarray, dtype: str, shape: Sequence[int]) -> None:
    """Raises TileError unless a tile has the expected dtype and shape."""
    if values.dtype != dtype:
        raise TileError(f"{name} has dtype {values.dtype}, expected {dtype}", "mismatch")
    if values.shape != tuple(shape):
        raise TileError(
            f"{name} has shape {list(values.shape)}, expected {list(shape)}", "mismatch"
        )


def check_extents(modalities: Sequence[Modality], arrays: Mapping[str, ArraySpec]) -> None:
    """Raises DataError unless all tiles of a sample show the same ground, to a pixel.

    Args:
        modalities: With the ground sampling distance of each grid.
        arrays: The shapes [T, Cg, Hg, Wg].
    """
    found = [
        (name, grid.gsd, arrays[name].shape[-2:])
        for modality in modalities
        for name, grid in zip(array_names(modality), modality.grids, strict=True)
    ]
    finest, fine, sides = min(found, key=lambda each: each[1])
    for name, gsd, others in found:
        if any(abs(a * fine - b * gsd) > gsd for a, b in zip(sides, others, strict=True)):
            raise DataError(
                f"{name} has {others[0]} x {others[1]} pixels of {gsd:g} m, but {finest} "
                f"{sides[0]} x {sides[1]} of {fine:g} m: they do not show the same ground; "
                "correct gsd, or the files",
                "axes",
            )


def list_folders(path: Path) -> list[Path]:
    """Returns the folders in a folder that are not hidden, sorted; none if it does not exist.

    Raises:
        DataError: The folder cannot be listed.
    """
    if not path.is_dir():
        return []
    try:
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if not is_hidden(e.name) and e.is_dir())
    except OSError as error:
        raise DataError(f"cannot list {path}: {error.strerror}") from error
    return [path / name for name in names]
