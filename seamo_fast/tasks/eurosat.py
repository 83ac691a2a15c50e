"""EuroSAT: land use of 64 x 64 pixel Sentinel-2 images (Helber et al., 2019).

RGB: class folders of JPEGs. MS: class folders of GeoTIFFs of 13 bands, Sentinel-2 L1C DN without
offset, whose files hold B8A last. Both are read in the layout that their archives unpack to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, get_args

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seamo_fast.data.sources.base import TileError, check_tile, read_tiff
from seamo_fast.errors import DataError
from seamo_fast.modalities import S2L1C, Modality
from seamo_fast.tasks.splits import Split, stratified_split

Kind = Literal["eurosat_rgb", "eurosat_ms"]
# File order: torchgeo's EuroSAT dataset. EuroSAT has no nodata; dark B10 reaches 0.
EUROSAT_MS: Final = replace(
    S2L1C.on_one_grid(10).subset(
        ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A")
    ),
    name="eurosat_ms",
    mean=None,
    std=None,
    nodata=None,
    release="eurosat",
)
EUROSAT_RGB: Final = replace(
    EUROSAT_MS.subset(("B4", "B3", "B2")), name="eurosat_rgb", unit="uint8", scale=255.0
)
MODALITIES: Final[dict[Kind, Modality]] = {"eurosat_rgb": EUROSAT_RGB, "eurosat_ms": EUROSAT_MS}
_SUFFIXES: Final[dict[Kind, tuple[str, ...]]] = {
    "eurosat_rgb": (".jpg", ".jpeg"),
    "eurosat_ms": (".tif", ".tiff"),
}
SIDE: Final = 64
_NESTED: Final = (
    ".",
    "2750",
    "EuroSAT_RGB",
    "EuroSAT_MS",
    "ds/images/remote_sensing/otherDatasets/sentinel_2/tif",
)
_LISTS: Final = tuple(f"eurosat-{part}.txt" for part in ("train", "val", "test"))


class EuroSAT(Dataset[tuple[Tensor, int]]):
    """Images and labels of EuroSAT, stored values as in the files.

    Item i is (image [C, 64, 64] uint8 or uint16, number of its class).

    Attributes:
        kind: `eurosat_rgb` or `eurosat_ms`.
        modality: The bands that items have, without statistics.
        classes: Names of the classes, sorted.
        files: Every image, sorted by class and name.
        labels: Class of every file.

    Args:
        root: The folder of the class folders, or one that an archive was unpacked in.
        kind: What it holds; None looks.
        bands: Those to return, in this order; None for all in the order of the files.

    Raises:
        DataError: There are no class folders with such images, or those of both kinds.
        ValueError: A band is unknown.
    """

    def __init__(
        self, root: Path | str, kind: Kind | None = None, bands: Sequence[str] | None = None
    ) -> None:
        self.root = Path(root)
        folder, self.kind = _find(self.root, kind)
        self._stored = MODALITIES[self.kind]
        self.modality = self._stored if bands is None else self._stored.subset(bands)
        self._channels = [self._stored.band_names.index(name) for name in self.modality.band_names]
        found = _images(folder, self.kind)
        self.classes = tuple(found)
        self.files = tuple(path for paths in found.values() for path in paths)
        self.labels = tuple(
            label for label, paths in enumerate(found.values()) for _ in range(len(paths))
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Reads one image.

        Raises:
            DataError: The file is damaged, or is not what EuroSAT holds.
        """
        path = self.files[index]
        expected = (len(self._stored.bands), SIDE, SIDE)
        try:
            if self.kind == "eurosat_rgb":
                image, dtype = _read_jpeg(path), "uint8"
            else:
                image, dtype = read_tiff(path), "uint16"
            check_tile(path.name, image, dtype, expected)
        except TileError as error:
            raise DataError(f"{error} (in {path.parent})") from error
        return torch.from_numpy(np.ascontiguousarray(image[self._channels])), self.labels[index]

    def split(self) -> Split:
        """Returns the official split where its lists lie beside the data, else a fixed one.

        The lists are `eurosat-{train,val,test}.txt`, one file name a line; suffixes are ignored,
        and so are images that no list names.

        Raises:
            DataError: A list is missing, or names no image of the data, or the classes are small.
        """
        for folder in (self.root, self.root.parent):
            present = [folder / name for name in _LISTS if (folder / name).is_file()]
            if present:
                return self._listed_split(folder, len(present))
        return stratified_split([self.classes[label] for label in self.labels])

    def _listed_split(self, folder: Path, present: int) -> Split:
        if present < len(_LISTS):
            raise DataError(f"{folder} must hold {', '.join(_LISTS)} or none of them")
        numbers = {path.stem: number for number, path in enumerate(self.files)}
        parts = []
        for name in _LISTS:
            stems = {Path(line.strip()).stem for line in (folder / name).read_text().splitlines()}
            parts.append(sorted(numbers[stem] for stem in stems if stem in numbers))
            if not parts[-1]:
                raise DataError(f"{folder / name} names no image below {self.root}")
        if len(set().union(*parts)) < sum(map(len, parts)):
            raise DataError(f"the lists {', '.join(_LISTS)} in {folder} share images")
        return Split(*parts)


def _find(root: Path, kind: Kind | None) -> tuple[Path, Kind]:
    """Returns the folder of the class folders, and what they hold."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of EuroSAT's class folders")
    wanted = get_args(Kind) if kind is None else (kind,)
    for folder in (root / nested for nested in _NESTED):
        held = [candidate for candidate in wanted if folder.is_dir() and _images(folder, candidate)]
        if len(held) > 1:
            raise DataError(f"{folder} holds JPEGs and GeoTIFFs; say which: {' or '.join(held)}")
        if held:
            return folder, held[0]
    suffixes = " or ".join(suffix for candidate in wanted for suffix in _SUFFIXES[candidate][:1])
    raise DataError(f"{root} holds no class folders with {suffixes} images")


def _images(folder: Path, kind: Kind) -> dict[str, list[Path]]:
    """Returns the sorted images of every class that has any."""
    found = {}
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = sorted(path for path in below.iterdir() if path.suffix.lower() in _SUFFIXES[kind])
        if images:
            found[below.name] = images
    return found


def _read_jpeg(path: Path) -> np.ndarray:
    """Returns [C, H, W], or [H, W] of a grey image."""
    try:
        data = path.read_bytes()
        image: np.ndarray = imagecodecs.jpeg8_decode(data)
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise TileError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error
    # libjpeg fills what a cut file lacks with grey, and says nothing
    if b"\xff\xd9" not in data[-1024:]:
        raise TileError(f"{path.name} was cut short: it has no JPEG end marker")
    return np.moveaxis(image, -1, 0) if image.ndim == 3 else image
