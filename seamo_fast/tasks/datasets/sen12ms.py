"""SEN12MS: land cover of 256 x 256 pixel radar and optical patches (Schmitt et al., 2019).

    ROOT/ROIs{1158_spring,1868_summer,1970_fall,2017_winter}/{s1,s2,lc}_<scene>/
        ROIs1158_spring_{s1,s2,lc}_<scene>_p<patch>.tif

Sentinel-1 dB (VV, VH), Sentinel-2 L1C DN (13 bands, B8A before B9), and MODIS land cover, whose
first band is the IGBP scheme. Seasons are different places; the files carry no dates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from seamo_fast.data.packing.sources.base import list_folders
from seamo_fast.data.packing.sources.formats.names import list_files
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import S1GRD, S2L1C, Modality
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
from seamo_fast.tasks.datasets.reading.lists import check_name, check_parts, find_file, read_lines

SIDE: Final = 256
# Neither has a nodata value but NaN; dark B10 reaches 0.
SEN12MS_S2: Final = replace(
    S2L1C.on_one_grid(10), mean=None, std=None, nodata=None, release="sen12ms"
)
SEN12MS_S1: Final = replace(S1GRD, mean=None, std=None, nodata=None, release="sen12ms")
MODALITIES: Final = {each.name: each for each in (SEN12MS_S2, SEN12MS_S1)}
_SENSORS: Final = {"s2l1c": "s2", "s1grd": "s1"}
_DTYPES: Final = {"s2l1c": ("uint16",), "s1grd": ("float32", "float64")}
IGBP: Final = (
    "Evergreen needleleaf forests",
    "Evergreen broadleaf forests",
    "Deciduous needleleaf forests",
    "Deciduous broadleaf forests",
    "Mixed forests",
    "Closed shrublands",
    "Open shrublands",
    "Woody savannas",
    "Savannas",
    "Grasslands",
    "Permanent wetlands",
    "Croplands",
    "Urban and built-up lands",
    "Cropland/natural vegetation mosaics",
    "Permanent snow and ice",
    "Barren",
    "Water bodies",
)
SIMPLIFIED: Final = (
    "Forest",
    "Shrubland",
    "Savanna",
    "Grassland",
    "Wetland",
    "Cropland",
    "Urban/built-up",
    "Snow/ice",
    "Barren",
    "Water",
)
# IEEE GRSS Data Fusion Contest 2020: simplified class of each IGBP class, both counted from 0.
_TO_SIMPLIFIED: Final = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 5, 7, 8, 9])


class SEN12MS(LabelledDataset[FileEntry]):
    """One date of radar and optical images on one grid, and the land cover of every pixel.

    The parts are those of `train_list.txt` and `test_list.txt` (names of S2 files), or of
    `SEN12MS_holdOutScenes.txt` (scenes of the test part), in ROOT or ROOT/splits.

    Args:
        root: Folder of the season folders.
        split: "train" or "test"; None for all patches on disk.
        modalities: Of "s2l1c" and "s1grd".
        scheme: The 17 classes of IGBP, or the 10 of the Data Fusion Contest 2020.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no patches, or no list of this part.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] = ("s2l1c", "s1grd"),
        scheme: Literal["igbp", "simplified"] = "igbp",
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        chosen = choose(MODALITIES, modalities)
        if scheme not in ("igbp", "simplified"):
            raise ValueError(f"scheme must be igbp or simplified, but got {scheme!r}")
        self._simplified = scheme == "simplified"
        entries = _listed(root) if split else []
        entries = entries or _found(root)
        if not entries:
            raise DataError(f"{root} holds no patches ROIs*_<season>/s2_*/*.tif")
        classes = SIMPLIFIED if self._simplified else IGBP
        super().__init__(chosen, classes, entries, split, on_bad)

    def _images(self, entry: FileEntry) -> Contents:
        return read_triplet(entry.path, self.modalities)

    def _paths(self, entry: FileEntry) -> list[Path]:
        return image_paths(entry.path, self.modalities)

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        codes = read_mask(partner(entry.path, "lc"), (None, SIDE, SIDE)).astype(np.int64)
        known = (codes >= 1) & (codes <= len(IGBP))
        mask = np.where(known, codes - 1, IGNORE)
        if self._simplified:
            mask = np.where(known, _TO_SIMPLIFIED[np.where(known, mask, 0)], IGNORE)
        return replace(contents, mask=mask)


def partner(path: Path, sensor: str) -> Path:
    """Returns the file of another sensor beside the S2 file of a patch.

    Raises:
        DataError: The name has no sensor to exchange.
    """
    if not path.parent.name.startswith("s2_") or path.name.count("_s2_") != 1:
        raise DataError(f"{path} is not named s2_<scene>/..._s2_<scene>_p<patch>.tif")
    folder = sensor + path.parent.name.removeprefix("s2")
    return path.parent.parent / folder / path.name.replace("_s2_", f"_{sensor}_")


def image_paths(path: Path, modalities: Sequence[Modality]) -> list[Path]:
    """Returns the images beside the S2 file of a patch; see `partner`."""
    return [partner(path, _SENSORS[modality.name]) for modality in modalities]


def read_triplet(path: Path, modalities: Sequence[Modality]) -> Contents:
    """Reads the images beside the S2 file of a patch.

    Raises:
        DataError: A file is missing or damaged.
    """
    bands = {}
    for modality, file in zip(modalities, image_paths(path, modalities), strict=True):
        name = modality.name
        shape = (len(modality.bands), SIDE, SIDE)
        image = read_image(file, _DTYPES[name], shape, modality)
        bands[name] = [image[None]]
    return Contents(bands, {})


def find_patches(root: Path, folder: str, split: str) -> list[FileEntry]:
    """Returns the patches below a season folder as items of one part."""
    return [FileEntry(path.stem, split, path) for path in _patches(root, folder)]


def _patches(root: Path, pattern: str) -> Iterator[Path]:
    """Yields the S2 files below the season folders, in a fixed order."""
    for season in sorted(root.glob(pattern)):
        for scene in list_folders(season):
            if scene.name.startswith("s2_"):
                yield from (each for each in list_files(scene, ".tif") if "_s2_" in each.name)


def _listed(root: Path) -> list[FileEntry]:
    names = {
        part: find_file((root, root / "splits"), (f"{part}_list.txt",))
        for part in ("train", "test")
    }
    parts = {part: read_lines(path) for part, path in names.items() if path is not None}
    entries = []
    for name, part in check_parts(parts, root).items():
        fields = check_name(name, root / f"{part}_list.txt").split("_")
        if len(fields) != 5 or fields[2] != "s2":
            raise DataError(
                f"{names[part]} names {name!r}; expected ROIs<n>_<season>_s2_<scene>_p<patch>.tif"
            )
        path = root / "_".join(fields[:2]) / "_".join(fields[2:4]) / name
        entries.append(FileEntry(path.stem, part, path))
    return entries


def _found(root: Path) -> list[FileEntry]:
    """Returns all patches on disk, with their part where lists tell it."""
    parts = {entry.id: entry.split for entry in _listed(root)}
    path = find_file((root, root / "splits"), ("SEN12MS_holdOutScenes.txt",))
    held_out = None if path is None else set(read_lines(path))
    entries = []
    for patch in _patches(root, "ROIs[0-9]*_[a-z]*"):
        scene = f"{patch.parent.parent.name}/s1_{patch.parent.name.removeprefix('s2_')}"
        by_scene = "" if held_out is None else "test" if scene in held_out else "train"
        entries.append(FileEntry(patch.stem, parts.get(patch.stem, by_scene), patch))
    return entries
