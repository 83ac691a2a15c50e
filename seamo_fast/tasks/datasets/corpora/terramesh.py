"""TerraMesh: land cover of co-registered tiles of one date (Blumenstiel et al., 2025).

    ROOT/[{train,val}/]{S2L2A,S2L1C,S1RTC,S1GRD,LULC}/<place>.tif

GeoTIFFs on one grid of 10 m: Sentinel-2 DN, Sentinel-1 dB (VV, VH), and codes 0 to 9 of ESRI's land
cover, in which clouds and snow are those of the date. A place has one version of Sentinel-1. By the
paper all Sentinel-2 numbers have an offset of 1000, but some tiles lack it, and no file says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.formats.names import list_files, on_disk
from seamo_fast.data.packing.sources.mapping_files import load_mapping
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.corpora.bands import mapped_modalities
from seamo_fast.tasks.datasets.reading.base import (
    Contents,
    FileEntry,
    LabelledDataset,
    OnBad,
    Task,
    choose,
)
from seamo_fast.tasks.datasets.reading.images import read_mask

CLASSES: Final = (
    *("Water", "Trees", "Flooded vegetation", "Crops", "Built area", "Bare ground", "Snow/ice"),
    *("Clouds", "Rangeland"),
)
_DTYPES: Final = {"S2": ("int16", "uint16"), "S1": ("float32", "float64")}
_CELL: Final = re.compile(r"(\d+[UD]_\d+[LR])_\d+_\d+")
_RADAR: Final = ("s1rtc", "s1grd")


class TerraMesh(LabelledDataset[FileEntry]):
    """One date of optical and radar images on one grid, and the land cover of every pixel.

    Radar backscatter becomes float32, which holds all of its float64 numbers here. The version of
    Sentinel-1 that a place does not have is not valid. Pixels of code 0 are `IGNORE`. Dates are
    unknown: files of Sentinel-2 have none.

    Args:
        root: Folder of the parts, or of the modalities where there are no parts.
        split: "train" or "val"; None for all.
        modalities: Of "s2l2a", "s2l1c", "s1rtc" and "s1grd"; None for those that have a folder.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no land cover maps as GeoTIFFs.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        modalities: Sequence[str] | None = None,
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        folders = {part: root / part for part in ("train", "val", "")}
        found = list(_places(folders))
        if not found:
            raise DataError(
                f"{root} holds no maps LULC/*.tif, also not in train or val; shards (.tar) of "
                "zarr files, as they are published, must be written as GeoTIFFs first"
            )
        known = mapped_modalities(load_mapping("terramesh"))
        if modalities is None:
            parts = {folders[entry.split] for entry in found}
            modalities = [
                name for name in known if any((part / name.upper()).is_dir() for part in parts)
            ]
        super().__init__(choose(known, modalities), CLASSES, found, split, on_bad)

    def place_of(self, entry: FileEntry) -> str:
        """Returns the cell of the Major TOM grid, whose tiles are neighbours."""
        cell = _CELL.fullmatch(entry.path.stem)
        return cell[1] if cell else entry.id

    def _paths(self, entry: FileEntry) -> Iterator[Path]:
        paths = (on_disk(_partner(entry.path, modality.name)) for modality in self.modalities)
        return (path for path in paths if path.is_file())

    def _images(self, entry: FileEntry) -> Contents:
        size: tuple[int | None, int | None] = (None, None)
        found: dict[str, np.ndarray] = {}
        for modality in self.modalities:
            image = _read_image(entry, modality, size)
            if image is not None:
                found[modality.name], size = image[None], (image.shape[1], image.shape[2])
        if not found:
            names = " or ".join(modality.name for modality in self.modalities)
            raise DataError(f"{entry.path.name} has no image of {names}", "missing")
        contents = Contents({}, {})
        shape = next(iter(found.values())).shape
        for modality in self.modalities:
            name = modality.name
            contents.valid[name] = [name in found]
            none = np.zeros((1, len(modality.bands), shape[2], shape[3]), np.float32)
            contents.bands[name] = [found.get(name, none)]
        return contents

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        height, width = next(iter(contents.bands.values()))[0].shape[-2:]
        codes = read_mask(entry.path, (1, height, width))
        if codes.min() < 0 or codes.max() > len(CLASSES):
            wrong = codes.min() if codes.min() < 0 else codes.max()
            raise DataError(
                f"{entry.path} has the code {wrong}; expected 1 to {len(CLASSES)} of TerraMesh's "
                "land cover, or 0 for no data (ESRI's own maps have other codes)"
            )
        return replace(contents, mask=codes.astype(np.int64) - 1)  # IGNORE is -1


def _read_image(
    entry: FileEntry, modality: Modality, size: tuple[int | None, int | None]
) -> np.ndarray | None:
    """Returns an image [C, H, W], None of the version of Sentinel-1 that a place lacks."""
    path = _partner(entry.path, modality.name)
    if modality.name in _RADAR and not on_disk(path).is_file():
        others = (_partner(entry.path, name) for name in _RADAR if name != modality.name)
        if any(on_disk(other).is_file() for other in others):
            return None
    sensor = modality.name[:2].upper()
    image = read_image(path, _DTYPES[sensor], (len(modality.bands), *size), modality)
    return image.astype(np.float32) if sensor == "S1" else image


def _partner(label: Path, name: str) -> Path:
    return label.parents[1] / name.upper() / label.name


def _places(folders: dict[str, Path]) -> Iterator[FileEntry]:
    for part, folder in folders.items():
        for path in list_files(folder / "LULC", (".tif", ".tiff")):
            yield FileEntry(f"{part}/{path.stem}" if part else path.stem, part, path)
