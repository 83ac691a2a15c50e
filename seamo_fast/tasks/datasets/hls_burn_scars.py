"""HLS Burn Scars: burned land in 512 x 512 pixel HLS chips (Phillips et al., 2023).

    ROOT/{training,validation}/subsetted_512x512_HLS.S30.T10SDH.2020190.v1.4{_merged,.mask}.tif

Six bands of Harmonized Landsat Sentinel-2 S30 reflectance at 30 m; the date is in the name. Masks
are -1 no data, 0 not burned, 1 burned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.formats.names import list_files
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    Contents,
    FileEntry,
    LabelledDataset,
    OnBad,
    Task,
)
from seamo_fast.tasks.datasets.reading.images import read_mask

SIDE: Final = 512
HLS: Final = Modality(
    name="hls",
    bands=(
        Band("B2", 30, 490),
        Band("B3", 30, 560),
        Band("B4", 30, 665),
        Band("B8A", 30, 865),
        Band("B11", 30, 1610),
        Band("B12", 30, 2190),
    ),
    unit="reflectance",
    nodata=-9999.0,
    release="hls-burn-scars",
    composite=("B4", "B3", "B2"),
)
_FOLDERS: Final = {"train": "training", "val": "validation"}
_DAY: Final = re.compile(r"\.T\d{2}[A-Z]{3}\.(\d{7})\.")


class HLSBurnScars(LabelledDataset[FileEntry]):
    """One optical image [1, 6, 512, 512] with its date, and whether every pixel is burned.

    Args:
        root: Folder of `training` and `validation`.
        split: "train" or "val"; None for both.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no images.
    """

    task: Task = "mask"

    def __init__(self, root: Path | str, split: str | None = None, on_bad: OnBad = "stop") -> None:
        entries = list(_images(Path(root)))
        if not entries:
            raise DataError(f"{root} holds no images training/*_merged.tif")
        super().__init__([HLS], ("Not burned", "Burned"), entries, split, on_bad)

    def _images(self, entry: FileEntry) -> Contents:
        shape = (len(HLS.bands), SIDE, SIDE)
        image = read_image(entry.path, ("float32", "float64"), shape, HLS)
        return Contents({HLS.name: [image[None]]}, {HLS.name: [_date(entry.id)]})

    def _read(self, entry: FileEntry) -> Contents:
        mask = read_mask(entry.path.with_name(f"{entry.id}.mask.tif"), (1, SIDE, SIDE))
        known = (mask == 0) | (mask == 1)
        return replace(self._images(entry), mask=np.where(known, mask, IGNORE))


def _images(root: Path) -> Iterator[FileEntry]:
    for part, folder in _FOLDERS.items():
        for path in list_files(root / folder, "_merged.tif"):
            yield FileEntry(path.name[: -len("_merged.tif")], part, path)


def _date(name: str) -> date | None:
    """Returns the day that HLS names give as year and day of the year."""
    match = _DAY.search(name)
    try:
        return datetime.strptime(match[1], "%Y%j").date() if match else None
    except ValueError:
        return None
