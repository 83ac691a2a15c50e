"""EuroSAT: land use of 64 x 64 pixel Sentinel-2 images (Helber et al., 2019).

RGB: class folders of JPEGs. MS: class folders of GeoTIFFs of 13 bands, Sentinel-2 L1C DN without
offset, whose files hold B8A last. Both are read in the layout that their archives unpack to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from seamo_fast.data.packing.sources.base import list_folders
from seamo_fast.data.packing.sources.formats.names import list_files
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import S2L1C, Modality
from seamo_fast.tasks.datasets.reading.base import Contents, FileEntry, LabelledDataset, OnBad, Task
from seamo_fast.tasks.datasets.reading.duplicates import first_of_same
from seamo_fast.tasks.datasets.reading.lists import read_lines
from seamo_fast.tasks.splits import Split, stratified_split

Kind = Literal["eurosat_rgb", "eurosat_ms"]
_LISTS: Final = ("eurosat", "eurosat-spatial")
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
_PARTS: Final = ("train", "val", "test")
_LOG = logging.getLogger(__name__)


class EuroSAT(LabelledDataset[FileEntry]):
    """One image a place: uint8 [1, 3, 64, 64] or uint16 [1, 13, 64, 64], and its class.

    The parts are those of `eurosat-{train,val,test}.txt` beside the data (torchgeo's split), one
    file name a line; suffixes are ignored, and so are images that no list names. Without lists
    they are a fixed stratified split in which images of the same pixels are in the same part. There
    are no dates.

    Attributes:
        kind: `eurosat_rgb` or `eurosat_ms`.

    Args:
        root: The folder of the class folders, or one that an archive was unpacked in.
        kind: What it holds; None looks.
        bands: Those to return, in this order; None for all in the order of the files.
        split: "train", "val" or "test"; None for all.
        on_bad: See `LabelledDataset`.
        lists: Which lists: torchgeo has a second split that keeps regions apart.

    Raises:
        DataError: There are no class folders with such images, or those of both kinds, or two
            images have one name.
        ValueError: A band is unknown.
    """

    task: Task = "classes"

    def __init__(
        self,
        root: Path | str,
        kind: Kind | None = None,
        bands: Sequence[str] | None = None,
        split: str | None = None,
        on_bad: OnBad = "stop",
        lists: Literal["eurosat", "eurosat-spatial"] = "eurosat",
    ) -> None:
        if lists not in _LISTS:
            raise ValueError(f"lists must be one of {', '.join(_LISTS)}, but got {lists!r}")
        self.root = Path(root)
        folder, self.kind = _find(self.root, kind)
        self._stored = MODALITIES[self.kind]
        modality = self._stored if bands is None else self._stored.subset(bands)
        self._channels = [self._stored.band_names.index(name) for name in modality.band_names]
        self._lists = tuple(f"{lists}-{part}.txt" for part in _PARTS)
        found = _images(folder, self.kind)
        entries = [
            FileEntry(path.stem, "", path, label)
            for label, paths in enumerate(found.values())
            for path in paths
        ]
        super().__init__([modality], tuple(found), entries, None, on_bad)
        if split is not None or self._folder_of_lists() is not None:
            parts = {
                number: part
                for part, numbers in zip(_PARTS, self.split(), strict=True)
                for number in numbers
            }
            self.entries = tuple(
                entry._replace(split=parts.get(number, "")) for number, entry in enumerate(entries)
            )
        if split is not None:
            self.entries = self.part(split).entries

    @property
    def modality(self) -> Modality:
        """The bands that items have, without statistics."""
        return self.modalities[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every image, sorted by class and name."""
        return tuple(entry.path for entry in self.entries)

    @property
    def labels(self) -> tuple[int, ...]:
        """Class of every image."""
        return tuple(entry.label for entry in self.entries)

    def _read(self, entry: FileEntry) -> Contents:
        image = self._image(entry.path)
        return Contents({self.modality.name: [image[None, self._channels]]}, {}, entry.label)

    def _label_of(self, entry: FileEntry) -> int:
        return entry.label

    def _image(self, path: Path) -> np.ndarray:
        dtype = "uint8" if self.kind == "eurosat_rgb" else "uint16"
        shape = (len(self._stored.bands), SIDE, SIDE)
        return read_image(path, (dtype,), shape, self._stored)

    def split(self) -> Split:
        """Returns the numbers of the images of each part.

        Raises:
            DataError: A list is missing, or names no image of the data, or the classes are small.
        """
        folder = self._folder_of_lists()
        if folder is None and self._lists[0].startswith("eurosat-spatial"):
            raise DataError(f"{self.root} holds no lists {', '.join(self._lists)}")
        if folder is None:
            same = first_of_same(self.files, self._image)
            _report_same(tuple(self.files[n] for pair in same.items() for n in pair))
            return stratified_split([self.classes[label] for label in self.labels], same)
        return self._listed_split(folder)

    def _folder_of_lists(self) -> Path | None:
        folders = (self.root, self.root.parent)
        return next((f for f in folders if any((f / name).is_file() for name in self._lists)), None)

    def _listed_split(self, folder: Path) -> Split:
        if not all((folder / name).is_file() for name in self._lists):
            raise DataError(f"{folder} must hold {', '.join(self._lists)} or none of them")
        numbers = {path.stem: number for number, path in enumerate(self.files)}
        parts = []
        for name in self._lists:
            stems = {Path(line).stem for line in read_lines(folder / name)}
            parts.append(sorted(numbers[stem] for stem in stems if stem in numbers))
            if not parts[-1]:
                raise DataError(f"{folder / name} names no image below {self.root}")
        if len(set().union(*parts)) < sum(map(len, parts)):
            raise DataError(f"the lists {', '.join(self._lists)} in {folder} share images")
        return Split(*parts)


@lru_cache(maxsize=8)  # a run opens the dataset for each part; what it is told once is enough
def _report_same(paths: tuple[Path, ...]) -> None:
    """Logs pairs of images of the same pixels."""
    if paths:
        _LOG.warning(
            f"EuroSAT: {len(paths) // 2} images hold the same pixels as an earlier one, and are in "
            f"the same part: {paths[0].name} and {paths[1].name}"
            + ("; ..." if len(paths) > 2 else "")
        )


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
    found = {below.name: list_files(below, _SUFFIXES[kind]) for below in list_folders(folder)}
    return {name: images for name, images in found.items() if images}
