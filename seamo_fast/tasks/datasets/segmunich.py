"""SegMunich: land use in 128 x 128 pixel Sentinel-2 patches (Hong et al., SpectralGPT, 2024).

    ROOT/{train,val}/{img,label}/<id>.tif    ROOT/dataset/{train,val}.txt

Ten bands on one grid, pixel-interleaved. A label is the code of a land use class.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import S2L2A
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    Contents,
    FileEntry,
    LabelledDataset,
    OnBad,
    Task,
)
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.reading.lists import check_name, check_parts, read_lines

SIDE: Final = 128
# Band names by the loader of a mirror of the data (yuxuanw8/SegMunich); the authors give none.
SEGMUNICH: Final = replace(
    S2L2A.on_one_grid(10).subset(("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8A", "B11", "B12")),
    name="segmunich",
    mean=None,
    std=None,
    nodata=None,
    release="segmunich",
)
CLASSES: Final = (
    "Background",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Forests",
    "Surface water",
    "Shrub",
    "Open spaces",
    "Wetlands",
    "Mine, dump",
    "Artificial vegetation",
    "Urban fabric",
    "Buildings",
)
# TUM_128.py of the authors' code: codes that stand for other class numbers.
_CODES: Final = {21: 1, 22: 2, 23: 3, 31: 4, 32: 6, 33: 7, 41: 8, 13: 9, 14: 10}
_NUMBERS: Final = np.full(256, IGNORE, np.int64)
_NUMBERS[: len(CLASSES)] = range(len(CLASSES))
_NUMBERS[list(_CODES)] = list(_CODES.values())


class SegMunich(LabelledDataset[FileEntry]):
    """One optical image [1, 10, 128, 128] without a date, and the class of every pixel.

    The parts are those of the lists; codes that are no class are `IGNORE`.

    Args:
        root: Folder of `dataset`, `train` and `val` (`TUM_128` of the archive).
        split: "train" or "val"; None for both.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: A list is missing or damaged.
    """

    task: Task = "mask"

    def __init__(self, root: Path | str, split: str | None = None, on_bad: OnBad = "stop") -> None:
        self.root = Path(root)
        if (self.root / "TUM_128").is_dir():
            self.root /= "TUM_128"
        lists = {part: self.root / "dataset" / f"{part}.txt" for part in ("train", "val")}
        parts = {part: read_lines(path) for part, path in lists.items() if path.is_file()}
        if not parts:
            raise DataError(f"{self.root} holds no lists dataset/train.txt and dataset/val.txt")
        entries = [
            FileEntry(name, part, self.root / part / "img" / f"{check_name(name, lists[part])}.tif")
            for name, part in check_parts(parts, self.root / "dataset").items()
        ]
        super().__init__([SEGMUNICH], CLASSES, entries, split, on_bad)

    def _images(self, entry: FileEntry) -> Contents:
        image = read_image(entry.path, ("uint16", "int16", "float32"), modality=SEGMUNICH)
        bands = len(SEGMUNICH.bands)
        # tifffile writes [H, W, C] arrays as a page a row unless asked otherwise
        if image.shape == (SIDE, SIDE, bands):
            image = np.moveaxis(image, -1, 0)
        if image.shape != (bands, SIDE, SIDE):
            raise DataError(
                f"{entry.path} has shape {list(image.shape)}, expected {[bands, SIDE, SIDE]}"
            )
        return Contents({SEGMUNICH.name: [image[None]]}, {})

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        label = entry.path.parent.parent / "label" / entry.path.name
        mask = read_mask(label, (1, SIDE, SIDE))
        known = (mask >= 0) & (mask < len(_NUMBERS))
        return replace(contents, mask=_NUMBERS[np.where(known, mask, 255)])
