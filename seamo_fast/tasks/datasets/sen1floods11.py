"""Sen1Floods11: water in 512 x 512 pixel hand-labelled chips of 11 floods (Bonafilia et al., 2020).

    ROOT/v1.1/data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand}/<place>_<n>_<folder>.tif
    ROOT/v1.1/splits/flood_handlabeled/flood_{train,valid,test,bolivia}_data.csv
    ROOT/v1.1/Sen1Floods11_Metadata.geojson

Sentinel-1 dB (VV, VH; NaN is nodata), Sentinel-2 L1C DN as int16 (13 bands; 0 is nodata), labels
-1 nodata, 0 no water, 1 water. The files of the repository's sample (S1, S2, Labels) are read too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast.data.packing.sources.formats.names import list_files, lower_ending
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.files import open_regular
from seamo_fast.modalities import S1GRD, S2L1C
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
from seamo_fast.tasks.datasets.reading.lists import (
    check_name,
    check_parts,
    find_file,
    find_folder,
    read_rows,
)

SIDE: Final = 512
SEN1FLOODS11_S2: Final = replace(S2L1C.on_one_grid(10), mean=None, std=None, release="sen1floods11")
SEN1FLOODS11_S1: Final = replace(S1GRD, mean=None, std=None, nodata=None, release="sen1floods11")
MODALITIES: Final = {each.name: each for each in (SEN1FLOODS11_S2, SEN1FLOODS11_S1)}
_DTYPES: Final = {"s2l1c": "int16", "s1grd": "float32"}
_FOLDERS: Final = {"s2l1c": ("S2Hand", "S2"), "s1grd": ("S1Hand", "S1")}
_PARTS: Final = {"train": "train", "val": "valid", "test": "test", "bolivia": "bolivia"}
_CHIPS: Final = ("v1.1/data/flood_events/HandLabeled", "data/flood_events/HandLabeled", ".")
_MAX_JSON: Final = 2**26

_RENAMED: Final = {"Mekong": "Cambodia"}  # the name of the chips, and of their flood


class Sen1Floods11(LabelledDataset[FileEntry]):
    """One radar and one optical image on one grid, and whether there is water in every pixel.

    Dates are those of the flood in `Sen1Floods11_Metadata.geojson`, unknown without that file; a
    place that it lacks is among the remarks.

    Args:
        root: Folder of `v1.1`, or what is in it.
        split: "train", "val", "test" or "bolivia"; None for all chips on disk.
        modalities: Of "s2l1c" and "s1grd".
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no chips, or no list of this part.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("s2l1c", "s1grd"),
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        chosen = choose(MODALITIES, modalities)
        chips = find_folder(root, _CHIPS, "hand-labelled chips")
        labels = find_folder(chips, ("LabelHand", "Labels"), "labels")
        self._folders = {name: find_folder(chips, _FOLDERS[name], "images") for name in modalities}
        places = (root / "v1.1", root, root.parent)
        parts = _listed(places)
        found = [lower_ending(path.name) for path in list_files(labels, "_labelhand.tif")]
        names = parts if split else found
        if not names:
            raise DataError(f"{root} holds no chips, or no lists flood_{split or '*'}_data.csv")
        entries = [
            FileEntry(name.removesuffix("_LabelHand.tif"), parts.get(name, ""), labels / name)
            for name in names
        ]
        metadata = find_file(places, ("Sen1Floods11_Metadata.geojson",))
        self._days = _read_days(metadata)
        dateless = sorted({_place(entry.id) for entry in entries} - self._days.keys())
        remarks = [f"{metadata} has no dates of {place}" for place in dateless if metadata]
        super().__init__(chosen, ("No water", "Water"), entries, split, on_bad, remarks)

    def _paths(self, entry: FileEntry) -> list[Path]:
        return [self._path(entry, modality.name) for modality in self.modalities]

    def _path(self, entry: FileEntry, modality: str) -> Path:
        return self._folders[modality] / f"{entry.id}_{_FOLDERS[modality][0]}.tif"

    def _images(self, entry: FileEntry) -> Contents:
        contents = Contents({}, {})
        days = self._days.get(_place(entry.id), {})
        for modality in self.modalities:
            name = modality.name
            shape = (len(modality.bands), SIDE, SIDE)
            image = read_image(self._path(entry, name), (_DTYPES[name],), shape, modality)
            contents.bands[name] = [image[None]]
            contents.dates[name] = [days.get(name)]
        return contents

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        mask = read_mask(entry.path, (1, SIDE, SIDE))
        known = (mask == 0) | (mask == 1)
        return replace(contents, mask=np.where(known, mask, IGNORE))


def _place(chip: str) -> str:
    """Returns the place of a chip by its name in the metadata."""
    name = chip.rsplit("_", 1)[0]
    return _RENAMED.get(name, name)


def _listed(folders: Sequence[Path]) -> dict[str, str]:
    """Returns the part of each label file that the lists name."""
    parts: dict[str, Sequence[str]] = {}
    for part, code in _PARTS.items():
        name = f"splits/flood_handlabeled/flood_{code}_data.csv"
        path = find_file(folders, (name, Path(name).name))
        if path is not None:
            parts[part] = [check_name(label, path) for _, label in read_rows(path, 2)]
    return check_parts(parts, folders[0])


def _read_days(path: Path | None) -> dict[str, dict[str, date]]:
    """Returns the dates of each place and modality."""
    if path is None:
        return {}
    try:
        with open_regular(path) as file:
            features = json.loads(file.read(_MAX_JSON))["features"]
        return {
            each["properties"]["location"]: {
                name: _day(each["properties"][f"{sensor}_date"])
                for name, sensor in (("s1grd", "s1"), ("s2l1c", "s2"))
            }
            for each in features
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _day(text: Any) -> date:
    return datetime.strptime(text, "%Y/%m/%d").date()
