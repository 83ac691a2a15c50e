"""So2Sat LCZ42: local climate zones of 32 x 32 pixel patches of 52 cities (Zhu et al., 2020).

    ROOT/{training,validation,testing}.h5       version 2; of version 3, the folder of one split

`sen1` [N, 32, 32, 8], `sen2` [N, 32, 32, 10] and one-hot `label` [N, 17]. Sentinel-2 is reflectance
already; Sentinel-1 is linear: single-look complex, Lee-filtered intensities and covariance.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.formats.hdf5 import open_hdf5, own_variable
from seamo_fast.data.packing.sources.formats.names import on_disk
from seamo_fast.errors import DataError
from seamo_fast.files import brief
from seamo_fast.modalities import S2L2A, Band, Modality
from seamo_fast.tasks.datasets.reading.base import Contents, LabelledDataset, OnBad, Task, choose

SIDE: Final = 32
SO2SAT_S2: Final = replace(
    S2L2A.on_one_grid(10).subset(("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")),
    name="so2sat_s2",
    unit="reflectance",
    scale=1.0,
    mean=None,
    std=None,
    nodata=None,
    release="so2sat",
)
SO2SAT_S1: Final = Modality(
    name="so2sat_s1",
    bands=tuple(
        Band(name, 10)
        for name in (
            *("VH_REAL", "VH_IMAGINARY", "VV_REAL", "VV_IMAGINARY", "VH_LEE", "VV_LEE"),
            *("COVARIANCE_REAL", "COVARIANCE_IMAGINARY"),
        )
    ),
    unit="dn",
    release="so2sat",
    composite=("VV_LEE",),
)
MODALITIES: Final = {each.name: each for each in (SO2SAT_S2, SO2SAT_S1)}
CLASSES: Final = (
    "Compact high rise",
    "Compact mid rise",
    "Compact low rise",
    "Open high rise",
    "Open mid rise",
    "Open low rise",
    "Lightweight low rise",
    "Large low rise",
    "Sparsely built",
    "Heavy industry",
    "Dense trees",
    "Scattered trees",
    "Bush, scrub",
    "Low plants",
    "Bare rock or paved",
    "Bare soil or sand",
    "Water",
)
_FILES: Final = {"train": "training.h5", "val": "validation.h5", "test": "testing.h5"}
_VARIABLES: Final = {"so2sat_s2": "sen2", "so2sat_s1": "sen1"}
_MAX_CHUNK: Final = 2**28  # bytes


class Row(NamedTuple):
    """A patch: its name, its part, its file, and where it stands in there."""

    id: str
    split: str
    path: Path
    number: int


class So2Sat(LabelledDataset[Row]):
    """One date of optical and radar images [1, C, 32, 32] float64, without its date, and a class.

    Args:
        root: Folder of the HDF5 files.
        split: "train", "val" or "test"; None for all files that are there.
        modalities: Of "so2sat_s2" and "so2sat_s1".
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: A file is missing or damaged, or h5py is not installed.
    """

    task: Task = "classes"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("so2sat_s2", "so2sat_s1"),
        on_bad: OnBad = "stop",
    ) -> None:
        chosen = choose(MODALITIES, modalities)
        self._files: dict[tuple[int, Path], Any] = {}
        self._lock = threading.Lock()
        paths = {part: on_disk(Path(root) / name) for part, name in _FILES.items()}
        wanted = [split] if split in paths else [part for part in paths if paths[part].is_file()]
        entries = [
            Row(f"{paths[part].stem}_{number}", part, paths[part], number)
            for part in wanted
            for number in range(self._count(paths[part], chosen))
        ]
        if not entries:
            raise DataError(f"{root} holds no {', '.join(_FILES.values())}")
        super().__init__(chosen, CLASSES, entries, split, on_bad)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _count(self, path: Path, modalities: Sequence[Modality]) -> int:
        """Checks what a file holds; returns its number of patches."""
        file = self._open(path)
        expected = {_VARIABLES[each.name]: (SIDE, SIDE, len(each.bands)) for each in modalities}
        counts = []
        for name, shape in {**expected, "label": (len(CLASSES),)}.items():
            try:
                found = own_variable(file, path, name)
                size, kind = tuple(found.shape), found.dtype.kind
                chunk = np.prod(found.chunks or (0,), dtype=np.float64) * found.dtype.itemsize
            except DataError:
                raise
            except Exception as error:  # damaged files raise whatever HDF5 meets
                raise DataError(f"{path} has no readable {name!r}: {error}") from error
            if size[1:] != shape or kind not in "fiu" or chunk > _MAX_CHUNK:
                raise DataError(
                    f"{path}: {name} is {found.dtype} {list(size)} in chunks {found.chunks}; "
                    f"expected numbers [N, {', '.join(map(str, shape))}]"
                )
            counts.append(size[0])
        if len(set(counts)) != 1 or counts[0] > path.stat().st_size:
            raise DataError(f"{path} is damaged: its variables have {counts} patches")
        return counts[0]

    def _open(self, path: Path) -> Any:
        """Returns the open file; each process opens its own."""
        with self._lock:
            key = (os.getpid(), path)
            if key not in self._files:
                try:
                    self._files[key] = open_hdf5(path)
                except DataError:
                    raise
                except Exception as error:  # damaged files raise whatever HDF5 meets
                    raise DataError(f"{path} cannot be read: {error}") from error
            return self._files[key]

    def _images(self, entry: Row) -> Contents:
        file = self._open(entry.path)
        contents = Contents({}, {})
        try:
            for modality in self.modalities:
                image = np.asarray(file[_VARIABLES[modality.name]][entry.number])
                image = image.astype(image.dtype.newbyteorder("="), copy=False)
                contents.bands[modality.name] = [np.moveaxis(image, -1, 0)[None]]
        except Exception as error:  # damaged files raise whatever HDF5 meets
            raise DataError(f"{entry.path}: {entry.id} cannot be read: {error}") from error
        return contents

    def _read(self, entry: Row) -> Contents:
        return replace(self._images(entry), label=self._label_of(entry))

    def _label_of(self, entry: Row) -> int:
        try:
            flags = np.asarray(self._open(entry.path)["label"][entry.number])
        except Exception as error:  # damaged files raise whatever HDF5 meets
            raise DataError(f"{entry.path}: {entry.id} cannot be read: {error}") from error
        if np.count_nonzero(flags) != 1 or flags.max() != 1:
            found = brief(flags.tolist())
            raise DataError(f"{entry.path}: the label of {entry.id} is not one-hot: {found}")
        return int(flags.argmax())
