"""OSCD: urban change between two Sentinel-2 images of 24 cities (Caye Daudt et al., 2018).

    ROOT/Onera Satellite Change Detection dataset - Images/{train.txt,test.txt}
        <city>/{imgs_1,imgs_2}/*_B01.tif ... *_B8A.tif      native grids
        <city>/{imgs_1_rect,imgs_2_rect}/B01.tif ...        registered, all at 10 m
        <city>/dates.txt
    ROOT/Onera Satellite Change Detection dataset - {Train,Test} Labels/<city>/cm/
        cm.png (0, 255) or <city>-cm.tif (1, 2; by the dataset's text 0, 1)

Sentinel-2 L1C DN as uint16 without offset. Dates in file names are those of processing; the true
ones are in dates.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.base import list_folders
from seamo_fast.data.packing.sources.formats.names import list_files, on_disk
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import S2L1C, Modality
from seamo_fast.tasks.datasets.reading.base import Contents, LabelledDataset, OnBad, Task
from seamo_fast.tasks.datasets.reading.georeference import Georeference, read_georeference
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.reading.lists import read_lines

OSCD_S2: Final = replace(S2L1C, mean=None, std=None, nodata=None, release="oscd")
_PREFIX: Final = "Onera Satellite Change Detection dataset - "
# Written as in train.txt and test.txt, which are read where they are.
_CITIES: Final = {
    "train": "aguasclaras,bercy,bordeaux,nantes,paris,rennes,saclay_e,abudhabi,cupertino,pisa,"
    "beihai,hongkong,beirut,mumbai",
    "test": "brasilia,montpellier,norcia,rio,saclay_w,valencia,dubai,lasvegas,milano,chongqing",
}
# Which value means change, by the values in the file. Ones alone are no change: the files have 1
# and 2, whatever the dataset's text says.
_CODINGS: Final = {
    (0,): 1,
    (1,): 2,
    (2,): 2,
    (255,): 255,
    (0, 1): 1,
    (1, 2): 2,
    (0, 255): 255,
}
_TOLERANCE: Final = 0.01  # pixels
_REACH: Final = 0.1  # of the size that the other date may lack; its edge is repeated


class City(NamedTuple):
    """A city: its name, its part, and the folders of its images and its change map."""

    id: str
    split: str
    images: Path
    labels: Path | None


class OSCD(LabelledDataset[City]):
    """Two optical images of a city, T = 2, and which pixels at 10 m changed (1) or did not (0).

    Every band of a grid has the size and place of the first date's first band of that grid; where
    one lies elsewhere (the two dates of some cities differ by a few pixels) it is resampled
    bilinearly. All others are as stored. Cities have different sizes: crop before batching. Where
    the folder of labels of a part is missing, its cities have no mask, and a remark says so.

    Args:
        root: Folder of the three folders that the archives unpack to.
        split: "train" (14 cities) or "test" (10); None for all.
        images: The native grids, or the registered images of which all bands are at 10 m.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no cities.
    """

    task: Task = "change"

    def __init__(
        self,
        root: Path | str,
        split: str | None = None,
        images: Literal["native", "rect"] = "native",
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        if images not in ("native", "rect"):
            raise ValueError(f"images must be native or rect, but got {images!r}")
        self._suffix = "_rect" if images == "rect" else ""
        found = {folder.name: folder for folder in list_folders(root / f"{_PREFIX}Images")}
        entries = []
        missing = []
        for part, official in _CITIES.items():
            path = root / f"{_PREFIX}Images" / f"{part}.txt"
            lines = read_lines(path) if path.is_file() else [official]
            names = [name.strip() for line in lines for name in line.split(",") if name.strip()]
            labels = root / f"{_PREFIX}{part.capitalize()} Labels"
            folder = labels if labels.is_dir() else None
            entries += [
                City(name, part, found[name], folder and folder / name / "cm")
                for name in names
                if name in found
            ]
            if folder is None and any(name in found for name in names):
                missing.append(f"no folder '{labels.name}': the cities of {part} have no mask")
            missing += [f"no images of {name} ({part})" for name in names if name not in found]
        if not entries:
            raise DataError(f"{root} has no folder '{_PREFIX}Images' with the official cities")
        modality = OSCD_S2.on_one_grid(10) if self._suffix else OSCD_S2
        super().__init__([modality], ("No change", "Change"), entries, split, on_bad, missing)

    def has_label(self, entry: City) -> bool:
        """Returns whether the labels of the city's part are there."""
        return entry.labels is not None

    def _paths(self, entry: City) -> list[Path]:
        return [entry.images]

    def _images(self, entry: City) -> Contents:
        (modality,) = self.modalities
        folders = [entry.images / f"imgs_{number}{self._suffix}" for number in (1, 2)]
        grids = []
        for grid in modality.grids:
            names = [modality.band_names[channel] for channel in grid.bands]
            files = [[_find(folder, name) for name in names] for folder in folders]
            grids.append(_read_grid(files, modality))
        dates = {modality.name: _read_dates(entry.images / "dates.txt")}
        return Contents({modality.name: grids}, dates)

    def _read(self, entry: City) -> Contents:
        contents = self._images(entry)
        if entry.labels is None:
            return contents
        size = contents.bands[self.modalities[0].name][0].shape[-2:]
        return replace(contents, mask=_read_change(entry.labels, entry.id, size))


def _find(folder: Path, band: str) -> Path:
    """Returns the file of a band, whose code ends the name."""
    code = f"B{band.removeprefix('B'):0>2}.tif"
    files = list_files(folder, code.lower())
    found = [file for file in files if file.name[: -len(code)][-1:] in "_"]
    if len(found) != 1:
        held = f" ({', '.join(file.name for file in found)})" if found else ""
        raise DataError(
            f"{folder} must hold one file *_{code}, but has {len(found)}{held}",
            "name" if found else "missing",
        )
    return found[0]


def _read_grid(files: Sequence[Sequence[Path]], modality: Modality) -> np.ndarray:
    """Returns [T, Cg, Hg, Wg] of files[t][c], on the grid of the first one."""
    first = read_image(files[0][0], ("uint16",), (1, None, None), modality)[0]
    target = read_georeference(files[0][0])
    grid = np.empty((len(files), len(files[0]), *first.shape), first.dtype)
    for t, paths in enumerate(files):
        for place, path in enumerate(paths):
            values = read_image(path, ("uint16",), (1, None, None), modality)[0]
            grid[t, place] = _onto(path, values, read_georeference(path), first.shape, target)
    return grid


def _onto(
    path: Path,
    values: np.ndarray,
    source: Georeference | None,
    size: tuple[int, ...],
    target: Georeference | None,
) -> np.ndarray:
    """Returns an image [h, w] resampled bilinearly to another grid, itself if it is there.

    Without georeferences both are taken to cover the same place.
    """
    rows, columns = (np.arange(length) + 0.5 for length in size)
    if source is None or target is None:
        rows *= values.shape[0] / size[0]
        columns *= values.shape[1] / size[1]
    else:
        rows = (source.top - target.top + rows * target.height) / source.height
        columns = (target.left - source.left + columns * target.width) / source.width
    places = tuple(zip((rows, columns), values.shape, strict=True))
    if not all(-at.min() < _REACH * length > at.max() - length for at, length in places):
        raise DataError(
            f"{path} does not show the same place as the first date: {source} and {target}"
        )
    moved = max(np.abs(at - 0.5 - np.arange(len(at))).max() for at in (rows, columns))
    if values.shape == size and moved < _TOLERANCE:
        return values
    found = _interpolate(_interpolate(values.astype(np.float64), rows).T, columns).T
    return np.rint(found).astype(values.dtype)


def _interpolate(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns rows of [n, m] at fractional places, pixel i reaching from i to i + 1."""
    at = np.clip(at - 0.5, 0, len(values) - 1)
    low = np.floor(at).astype(np.int64)
    share = (at - low)[:, None]
    return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share


def _read_change(folder: Path, city: str, size: tuple[int, ...]) -> np.ndarray:
    """Returns 1 where a pixel changed, else 0, int64 [H, W], of a change map in either coding."""
    picture = on_disk(folder / "cm.png")
    path = picture if picture.is_file() else folder / f"{city}-cm.tif"
    codes = read_mask(path, (None, size[-2], size[-1]))
    values = tuple(np.unique(codes).tolist())
    if values not in _CODINGS:
        raise DataError(f"{path} has values {list(values[:8])}; expected 0/255, 1/2 or 0/1")
    return (codes == _CODINGS[values]).astype(np.int64)


def _read_dates(path: Path) -> list[date | None]:
    """Returns the two dates of a file of lines such as `date_1: 20161130`."""
    lines = read_lines(path)
    try:
        dates = [datetime.strptime(line.split(":")[1].strip(), "%Y%m%d").date() for line in lines]
    except (IndexError, ValueError):
        dates = []
    if len(dates) != 2:
        raise DataError(f"{path} must have two lines like 'date_1: 20161130'")
    return list(dates)
