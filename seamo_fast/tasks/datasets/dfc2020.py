"""DFC2020: land cover of the IEEE GRSS Data Fusion Contest 2020 (Yokoya et al., 2020).

    ROOT/ROIs0000_{validation,test}/{s1,s2,dfc}_<scene>/ROIs0000_<part>_{s1,s2,dfc}_<n>_p<patch>.tif

Images as in SEN12MS; `dfc` is the land cover that the contest mapped at 10 m, 1 to 10 in the
simplified scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    Contents,
    FileEntry,
    LabelledDataset,
    OnBad,
    Task,
    choose,
)
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.sen12ms import (
    MODALITIES,
    SIDE,
    SIMPLIFIED,
    find_patches,
    image_paths,
    partner,
    read_triplet,
)

_FOLDERS: Final = {"val": "ROIs0000_validation", "test": "ROIs0000_test"}
_UNSCORED: Final = ("Savanna", "Snow/ice")


class DFC2020(LabelledDataset[FileEntry]):
    """One date of radar and optical images on one grid, and the land cover of every pixel.

    Args:
        root: Folder of the two parts.
        split: "val" (986 patches) or "test" (5,128); None for both.
        modalities: Of "s2l1c" and "s1grd".
        num_classes: 10, or the 8 that the contest scored; savanna and snow are then `IGNORE`.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no patches.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("s2l1c", "s1grd"),
        num_classes: Literal[8, 10] = 8,
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        chosen = [
            replace(modality, release="dfc2020") for modality in choose(MODALITIES, modalities)
        ]
        if num_classes not in (8, 10):
            raise ValueError(f"DFC2020 has 8 or 10 classes, but got {num_classes}")
        dropped = _UNSCORED if num_classes == 8 else ()
        classes = [name for name in SIMPLIFIED if name not in dropped]
        numbers = [classes.index(name) if name in classes else IGNORE for name in SIMPLIFIED]
        self._numbers = np.array([IGNORE, *numbers])
        entries = [
            entry for part, folder in _FOLDERS.items() for entry in find_patches(root, folder, part)
        ]
        if not entries:
            raise DataError(f"{root} holds no patches {' or '.join(_FOLDERS.values())}/s2_*/*.tif")
        super().__init__(chosen, classes, entries, split, on_bad)

    def _images(self, entry: FileEntry) -> Contents:
        return read_triplet(entry.path, self.modalities)

    def _paths(self, entry: FileEntry) -> list[Path]:
        return image_paths(entry.path, self.modalities)

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        codes = read_mask(partner(entry.path, "dfc"), (None, SIDE, SIDE))
        known = (codes >= 0) & (codes < len(self._numbers))
        return replace(contents, mask=self._numbers[np.where(known, codes, 0)])
