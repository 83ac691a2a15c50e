"""WorldCereal: crops in cubes of monthly composites (Van Tricht et al., 2023).

    ROOT/<place>.nc

NetCDF-4 files of Sentinel-2 L2A (9 bands, DN), Sentinel-1 amplitudes (DN) and the maps of crops of
2021 on one grid of 10 m.

From three cubes on, a cube is an item and parts are made of whole cubes. Of fewer, each cube is cut
into 5 x 5 blocks: the first three columns of blocks train, the fourth validates, the fifth tests.
So a column of blocks (200 m of the 1 km of a cube) lies between what trains and what tests. Fields
and soils reach farther: such figures say that training works, not how well it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.cubes import Cube, open_cube
from seamo_fast.data.packing.sources.formats.names import list_files
from seamo_fast.data.packing.sources.mapping_files import load_mapping
from seamo_fast.data.packing.sources.plain.image_file import warn_once
from seamo_fast.data.packing.sources.rules.declared import registered
from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.corpora.bands import mapped_modalities
from seamo_fast.tasks.datasets.corpora.crop_maps import CLASSES, read_labels
from seamo_fast.tasks.datasets.reading.base import Contents, LabelledDataset, OnBad, Task, choose

_PARTS: Final = ("train", "train", "train", "val", "test")  # of the columns of blocks
_BLOCKS: Final = len(_PARTS)
_FEW: Final = 3


class Block(NamedTuple):
    """A cube, or a block of one.

    Attributes:
        id: Name of the item.
        split: The part that a block belongs to; "" for a whole cube.
        path: The file.
        at: Row and column of the block; None for the whole cube.
    """

    id: str
    split: str
    path: Path
    at: tuple[int, int] | None = None


class WorldCereal(LabelledDataset[Block]):
    """Months of optical and radar images on one grid, and the crop of every pixel.

    A month of which less than half of an item's pixels were measured is not valid.

    Args:
        root: Folder of the files.
        split: Of blocks "train", "val" or "test"; None for all items.
        modalities: Of "s2" and "s1".
        seasons: Which months to use, from 0; None for four, three months apart, in the middle of
            the cube: of 20 months from August 2020 on January, April, July and October 2021.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no files.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("s2", "s1"),
        seasons: Sequence[int] | None = None,
        on_bad: OnBad = "stop",
    ) -> None:
        self._mapping = load_mapping("worldcereal")
        chosen = choose(mapped_modalities(self._mapping), modalities)
        if seasons is not None and (not seasons or min(seasons) < 0):
            raise ValueError(f"seasons must be numbers of months from 0, but got {list(seasons)}")
        self._seasons = seasons
        files = list_files(Path(root), ".nc")
        if not files:
            raise DataError(f"{root} holds no cubes *.nc")
        if len(files) < _FEW:
            entries = [block for path in files for block in _blocks(path)]
        else:
            entries = [Block(path.stem, "", path) for path in files]
        super().__init__(chosen, CLASSES, entries, split, on_bad)

    def _images(self, entry: Block) -> Contents:
        contents = Contents({}, {})
        with open_cube(entry.path, entry.path.name, self._mapping) as cube:
            months = self._months(entry.path, len(cube.dates))
            for modality in self.modalities:
                name = modality.name
                images = [self._image(cube, modality, month, entry) for month in months]
                contents.bands[name] = [np.stack(images)]
                contents.valid[name] = [self._is_valid(modality, image) for image in images]
                contents.dates[name] = [cube.dates[month] for month in months]
        for name, valid in contents.valid.items():
            contents.bands[name][0][~np.array(valid)] = 0
        if not any(any(valid) for valid in contents.valid.values()):
            raise DataError(f"{entry.path}: no month of {entry.id} was measured", "unmeasured")
        return contents

    def _read(self, entry: Block) -> Contents:
        contents = self._images(entry)
        labels = read_labels(entry.path)
        mask = labels[_part(labels.shape, entry)]
        for name, (image,) in contents.bands.items():
            if image.shape[-2:] != mask.shape:
                raise DataError(
                    f"{entry.path}: {name} of {entry.id} is {list(image.shape[-2:])}, but the maps "
                    f"of crops {list(mask.shape)}"
                )
        return replace(contents, mask=mask)

    def _months(self, path: Path, count: int) -> Sequence[int]:
        """Returns the numbers of the months that are used of a cube."""
        if self._seasons is not None:
            wanted: Sequence[int] = self._seasons
        else:
            step = self._mapping.step
            first = (count - (self._mapping.seasons - 1) * step) // 2
            wanted = range(first, first + self._mapping.seasons * step, step)
        if min(wanted) < 0 or max(wanted) >= count:
            raise DataError(
                f"{path} has {count} months, but {', '.join(map(str, wanted))} are wanted; choose "
                f"some of 0 to {count - 1} with --seasons"
            )
        return wanted

    def _image(self, cube: Cube, modality: Modality, month: int, entry: Block) -> np.ndarray:
        """Returns a block of a month [C, H, W]."""
        try:
            pixels = cube.read(modality.name, cube.dates[month])
            for remark in registered(modality).apply(pixels):
                warn_once(remark)
        except TileError as error:
            where = f"{entry.path}: {modality.name} of month {month}"
            raise DataError(f"{where} cannot be read: {error}", error.kind) from error
        (image,) = pixels.grids
        if image.dtype != np.uint16:
            raise DataError(f"{entry.path}: {modality.name} is {image.dtype}; expected uint16")
        rows, columns = _part(image.shape[1:], entry)
        return image[:, rows, columns]

    def _is_valid(self, modality: Modality, image: np.ndarray) -> bool:
        (known,) = measured(modality, [image])
        return bool(known.all(axis=0).mean() >= self._mapping.min_valid)


def _blocks(path: Path) -> Iterator[Block]:
    for row in range(_BLOCKS):
        for column, part in enumerate(_PARTS):
            yield Block(f"{path.stem}_{row}_{column}", part, path, (row, column))


def _part(size: Sequence[int], entry: Block) -> tuple[slice, slice]:
    """Returns the rows and columns of an item.

    Raises:
        DataError: The cube is too small for blocks.
    """
    if entry.at is None:
        return slice(0, size[0]), slice(0, size[1])
    if min(size) < _BLOCKS:
        raise DataError(f"{entry.path} is {size[0]} x {size[1]} pixels; blocks need {_BLOCKS}")
    rows, columns = (
        slice(number * side // _BLOCKS, (number + 1) * side // _BLOCKS)
        for number, side in zip(entry.at, size, strict=True)
    )
    return rows, columns
