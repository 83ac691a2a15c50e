"""BigEarthNet: land cover of 120 x 120 pixel patches, several classes each.

v1 (Sumbul et al., 2019; with Sentinel-1, BigEarthNet-MM, 2021):

    ROOT/{BigEarthNet-v1.0,S2}/<patch>/<patch>_{B01..B12,labels_metadata.json}
    ROOT/{BigEarthNet-S1-v1.0,S1}/<radar patch>/<radar patch>_{VV,VH}.tif, _labels_metadata.json

v2 (Clasen et al., "reBEN", 2024): see `bigearthnet_v2`. In both, a band is a GeoTIFF: Sentinel-2
L2A DN without offset as uint16 on 120, 60 and 20 pixels, Sentinel-1 dB as float32 on 120.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.base import list_folders
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.files import open_regular
from seamo_fast.modalities import S1GRD, S2L2A, Modality
from seamo_fast.tasks.datasets.bigearthnet.classes import CLASSES_19, CLASSES_43, TO_19
from seamo_fast.tasks.datasets.reading.base import Contents, LabelledDataset, OnBad, Task, choose
from seamo_fast.tasks.datasets.reading.lists import (
    check_name,
    check_parts,
    find_file,
    find_folder,
    read_lines,
    stamp_date,
)

EXTENT: Final = 1200  # metres
BIGEARTHNET_S2: Final = replace(S2L2A, mean=None, std=None, release="bigearthnet")
BIGEARTHNET_S1: Final = replace(S1GRD, mean=None, std=None, nodata=None, release="bigearthnet")
MODALITIES: Final = {each.name: each for each in (BIGEARTHNET_S2, BIGEARTHNET_S1)}
_PARTS: Final = ("train", "val", "test")
_FILES: Final = {"s2l2a": "B{:0>2}", "s1grd": "{}"}
_DTYPES: Final = {"s2l2a": "uint16", "s1grd": "float32"}
_MAX_JSON: Final = 2**20


class Pair(NamedTuple):
    """A patch.

    Attributes:
        id: Name of the optical patch.
        split: Its part, or "".
        folders: Folder of each modality, None without.
        labels: Names of its classes, where a list gives them.
    """

    id: str
    split: str
    folders: dict[str, Path | None]
    labels: tuple[str, ...] = ()


class BigEarthNet(LabelledDataset[Pair]):
    """Version 1: bands on native grids, radar and optical, and flags of 19 or 43 classes.

    The parts are those of `bigearthnet-{train,val,test}.csv` (torchgeo's names) or
    `{train,val,test}.csv` (the authors'), in ROOT or ROOT/splits: a row is a patch and, in the
    lists of BigEarthNet-MM, its radar patch. Without lists every patch is read, and radar is
    paired by the radar patches' metadata; a patch without radar has an invalid group, and is left
    out where radar alone is read. Of 19
    classes, a patch may have none: the official lists leave such patches out.

    Args:
        root: Folder of the images.
        split: "train", "val" or "test"; None for all.
        num_classes: 19 or 43.
        modalities: Of "s2l2a" and "s1grd".
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: A folder or list is missing or damaged.
    """

    task: Task = "multilabel"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        num_classes: Literal[19, 43] = 19,
        modalities: Sequence[str] = ("s2l2a", "s1grd"),
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        chosen = choose(MODALITIES, modalities)
        if num_classes not in (19, 43):
            raise ValueError(f"BigEarthNet has 19 or 43 classes, but got {num_classes}")
        self._s2 = find_folder(root, ("BigEarthNet-v1.0", "S2"), "BigEarthNet v1")
        s1 = "s1grd" in modalities
        self._s1 = find_folder(root, ("BigEarthNet-S1-v1.0", "S1"), "radar patches") if s1 else None
        remarks: list[str] = []
        entries = self._listed(root) or self._found("s2l2a" in modalities, on_bad, remarks)
        classes = CLASSES_19 if num_classes == 19 else CLASSES_43
        super().__init__(chosen, classes, entries, split, on_bad, remarks)

    def _listed(self, root: Path) -> list[Pair]:
        lists = {
            part: find_file((root, root / "splits"), (f"bigearthnet-{part}.csv", f"{part}.csv"))
            for part in _PARTS
        }
        rows: dict[str, str] = {}
        parts: dict[str, list[str]] = {}
        for part, path in lists.items():
            if path is not None:
                found = dict(self._row(line, path) for line in read_lines(path))
                parts[part] = list(found)
                rows.update(found)
        return [
            self._pair(name, rows[name], part) for name, part in check_parts(parts, root).items()
        ]

    def _row(self, line: str, path: Path) -> tuple[str, str]:
        names = [check_name(value.strip(), path) for value in line.split(",")]
        if len(names) == 1 and self._s1 is None:
            return names[0], ""
        if len(names) != 2:
            raise DataError(f"{path} must name a patch and its radar patch a row, not {line[:80]}")
        if names[0].split("_")[-2:] != names[1].split("_")[-2:]:
            raise DataError(f"{path}: the radar patch of {names[0]} is not {names[1]}")
        return names[0], names[1]

    def _found(self, optical: bool, on_bad: OnBad, remarks: list[str]) -> list[Pair]:
        """Pairs all patches by the metadata of the radar ones, which name their partner."""
        radar: dict[str, str] = {}
        for folder in list_folders(self._s1) if self._s1 else []:
            try:
                metadata = _read_metadata(folder)
            except DataError as error:
                if on_bad == "stop":
                    raise
                remarks.append(f"{error}; its patch is read without radar")
                continue
            patch = str(metadata.get("corresponding_s2_patch") or folder.name)
            if patch in radar:
                raise DataError(
                    f"{radar[patch]} and {folder.name} in {self._s1} are both the radar patch of "
                    f"{patch}; keep one",
                    "name",
                )
            radar[patch] = folder.name
        patches = [folder.name for folder in list_folders(self._s2)]
        if not optical:  # of a patch without radar nothing is left
            bare = [name for name in patches if name not in radar]
            patches = [name for name in patches if name in radar]
            remarks += [f"{name} has no radar patch and is left out" for name in bare]
        return [self._pair(name, radar.get(name, ""), "") for name in patches]

    def _pair(self, name: str, radar: str, part: str) -> Pair:
        s1 = self._s1 / radar if self._s1 and radar else None
        return Pair(name, part, {"s2l2a": self._s2 / name, "s1grd": s1})

    def _paths(self, entry: Pair) -> list[Path]:
        return pair_paths(entry, self.modalities)

    def _images(self, entry: Pair) -> Contents:
        return read_pair(entry, self.modalities)

    def _read(self, entry: Pair) -> Contents:
        return read_pair(entry, self.modalities, self._label_of(entry))

    def _label_of(self, entry: Pair) -> np.ndarray:
        folder = self._s2 / entry.id
        labels = _read_metadata(folder).get("labels")
        if not isinstance(labels, list):
            raise DataError(f"{_metadata_file(folder)} has no list of labels")
        return flags(labels, self.classes, str(_metadata_file(folder)))


def flags(labels: Sequence[object], classes: tuple[str, ...], where: str) -> np.ndarray:
    """Returns int64 [classes], 1 where a patch has the class.

    Args:
        labels: Names among the 43, or among `classes`.
        classes: The 19 or the 43.
        where: File that the labels are from, for the error.

    Raises:
        DataError: A label is unknown.
    """
    found = np.zeros(len(classes), np.int64)
    for label in labels:
        if label in classes:
            found[classes.index(label)] = 1
        elif classes is CLASSES_19 and isinstance(label, str) and label in TO_19:
            number = TO_19[label]
            found[[] if number is None else [number]] = 1
        else:
            raise DataError(f"{where} has the unknown label {str(label)[:80]!r}")
    return found


def pair_paths(entry: Pair, modalities: Sequence[Modality]) -> list[Path]:
    """Returns the folders of a patch."""
    folders = (entry.folders[modality.name] for modality in modalities)
    return [folder for folder in folders if folder is not None]


def read_pair(
    entry: Pair, modalities: Sequence[Modality], label: np.ndarray | None = None
) -> Contents:
    """Reads the bands of a patch; dates are those in the names of its folders.

    Raises:
        DataError: A file is missing or damaged.
    """
    contents = Contents({}, {}, label)
    for modality in modalities:
        folder = entry.folders[modality.name]
        contents.valid[modality.name] = [folder is not None]
        contents.bands[modality.name] = [
            _read_grid(modality, grid.bands, round(EXTENT / grid.gsd), folder)
            for grid in modality.grids
        ]
        contents.dates[modality.name] = [None if folder is None else stamp_date(folder.name)]
    return contents


def _read_grid(
    modality: Modality, channels: Sequence[int], side: int, folder: Path | None
) -> np.ndarray:
    """Returns [1, Cg, side, side]; zeros without a folder."""
    dtype = _DTYPES[modality.name]
    grid = np.zeros((1, len(channels), side, side), dtype)
    if folder is None:
        return grid
    for place, channel in enumerate(channels):
        code = _FILES[modality.name].format(modality.band_names[channel].removeprefix("B"))
        path = folder / f"{folder.name}_{code}.tif"
        grid[0, place] = read_image(path, (dtype,), (1, side, side), modality)[0]
    return grid


def _metadata_file(folder: Path) -> Path:
    return folder / f"{folder.name}_labels_metadata.json"


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = _metadata_file(folder)
    try:
        with open_regular(path) as file:
            metadata = json.loads(file.read(_MAX_JSON))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path} holds no metadata")
    return metadata
