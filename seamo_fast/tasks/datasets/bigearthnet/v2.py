"""BigEarthNet v2 (Clasen et al., "reBEN: Refined BigEarthNet Dataset", 2024).

ROOT/metadata.parquet
ROOT/BigEarthNet-S2/<scene>/<patch>/<patch>_{B01..B12,B8A}.tif
ROOT/BigEarthNet-S1/<radar scene>/<radar patch>/<radar patch>_{VV,VH}.tif
ROOT/Reference_Maps/<scene>/<patch>/<patch>_reference_map.tif
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.bigearthnet.classes import CLASSES_19, CODES_TO_19
from seamo_fast.tasks.datasets.bigearthnet.v1 import (
    EXTENT,
    MODALITIES,
    Pair,
    flags,
    pair_paths,
    read_pair,
)
from seamo_fast.tasks.datasets.reading.base import Contents, LabelledDataset, OnBad, Task, choose
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.reading.lists import check_name, find_folder

_COLUMNS: Final = ("patch_id", "s1_name", "labels", "split")
_PARTS: Final = {"train": "train", "validation": "val", "test": "test"}


class BigEarthNetV2(LabelledDataset[Pair]):
    """Bands on native grids, radar and optical, flags of 19 classes, and the land cover map.

    The parts and labels are those of `metadata.parquet`. Dates are those in the patches' names.

    Args:
        root: Folder of `metadata.parquet` and the images.
        split: "train", "val" or "test"; None for all.
        modalities: Of "s2l2a" and "s1grd".
        maps: Reads the reference map into the mask: the 19 classes, `IGNORE` for other land cover.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: A folder or the metadata is missing or damaged, or pyarrow is not installed.
    """

    task: Task = "multilabel"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("s2l2a", "s1grd"),
        maps: bool = False,
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        chosen = choose(MODALITIES, modalities)
        self._s2 = find_folder(root, ("BigEarthNet-S2",), "BigEarthNet v2")
        s1 = "s1grd" in modalities
        self._s1 = find_folder(root, ("BigEarthNet-S1",), "radar patches") if s1 else None
        self._maps = find_folder(root, ("Reference_Maps",), "maps") if maps else None
        self._metadata = root / "metadata.parquet"
        entries = [self._pair(row, self._metadata) for row in read_table(self._metadata, _COLUMNS)]
        super().__init__(chosen, CLASSES_19, entries, split, on_bad)

    def _pair(self, row: Sequence[Any], path: Path) -> Pair:
        patch, radar, labels, part = row
        if not isinstance(labels, list) or part not in _PARTS:
            raise DataError(f"{path}: {patch} has labels {labels} and split {part!r}")
        patch, radar = (check_name(str(name), path) for name in (patch, radar))
        s1 = self._s1 / radar.rsplit("_", 3)[0] / radar if self._s1 else None
        folders = {"s2l2a": self._s2 / _scene(patch) / patch, "s1grd": s1}
        return Pair(patch, _PARTS[part], folders, tuple(labels))

    def _paths(self, entry: Pair) -> list[Path]:
        return pair_paths(entry, self.modalities)

    def _images(self, entry: Pair) -> Contents:
        return read_pair(entry, self.modalities)

    def _read(self, entry: Pair) -> Contents:
        contents = read_pair(entry, self.modalities, self._label_of(entry))
        if self._maps is None:
            return contents
        side = EXTENT // 10
        path = self._maps / _scene(entry.id) / entry.id / f"{entry.id}_reference_map.tif"
        codes = read_mask(path, (1, side, side))
        known = (codes >= 0) & (codes < len(CODES_TO_19))
        return replace(contents, mask=CODES_TO_19[np.where(known, codes, 0)])

    def _label_of(self, entry: Pair) -> np.ndarray:
        return flags(entry.labels, CLASSES_19, f"{self._metadata}: {entry.id}")


def _scene(patch: str) -> str:
    return patch.rsplit("_", 2)[0]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns the rows of some columns of a Parquet file.

    Raises:
        DataError: It cannot be read or lacks a column, or pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"reading {path.name} needs pyarrow; install it with `pip install 'seamo_fast[geo]'`"
        ) from None
    if not path.is_file():
        raise DataError(f"{path} is missing; it comes with BigEarthNet v2")
    try:
        with parquet.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path} has no columns {', '.join(missing)}")
            table = file.read(list(columns))
        return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
    except DataError:
        raise
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
