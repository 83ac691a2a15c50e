"""Labelled images in ordinary folders.

Classes, as torchvision's ImageFolder reads them:

    ROOT/<class>/<image>    or    ROOT/{train,val,test}/<class>/<image>

Images and masks of the same name:

    ROOT/{train,val,test}/{images,masks}/<name>
    ROOT/{images,masks}/<name>, and ROOT/{train,val,test}.txt with a name a line

Images are TIFF, PNG or JPEG, all bands in one file; a class folder may hold further folders. Hidden
files and folders and other suffixes are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.packing.sources.base import list_folders
from seamo_fast.data.packing.sources.formats.names import list_files, twins
from seamo_fast.data.packing.sources.plain.image_file import SUFFIXES, read_image
from seamo_fast.data.shards.manifest import DTYPES
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    Contents,
    FileEntry,
    LabelledDataset,
    OnBad,
    Task,
)
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.reading.lists import check_parts, read_lines

_PARTS: Final = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_UINT8: Final = ("uint8",)


class ClassFolder(LabelledDataset[FileEntry]):
    """One image a place and its class, the name of its folder.

    Args:
        root: Folder of the class folders, or of the folders of parts.
        modality: What the images hold, all bands on one grid; "rgb" if None.
        split: "train", "val" or "test"; None for all.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no images, or two images or classes differ in case alone.
        ValueError: The modality has more than one grid.
    """

    task: Task = "classes"

    def __init__(
        self,
        root: Path | str,
        modality: Modality | None = None,
        split: str | None = None,
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        modality = check_modality(modality)
        folders = [
            (part, folder) for part, place in _find_parts(root) for folder in list_folders(place)
        ]
        images = {folder: _below(folder) for _, folder in folders}
        found = [(part, folder.name, path) for part, folder in folders for path in images[folder]]
        classes = sorted({name for _, name, _ in found})
        for name, other in twins(classes).items():
            raise DataError(f"{root} has two folders of one class: {other} and {name}", "name")
        if not found:
            raise DataError(
                f"{root} has no class folders with images ({', '.join(SUFFIXES)}) in them"
            )
        entries = [
            FileEntry(path.relative_to(root).as_posix(), part, path, classes.index(name))
            for part, name, path in found
        ]
        remarks = [f"{folder} holds no images" for folder, paths in images.items() if not paths]
        super().__init__([modality], classes, entries, split, on_bad, remarks)

    def _read(self, entry: FileEntry) -> Contents:
        return Contents(read_bands(entry.path, self.modalities[0]), {}, entry.label)

    def _label_of(self, entry: FileEntry) -> int:
        return entry.label


class MaskFolder(LabelledDataset[FileEntry]):
    """One image a place, and a mask of the same size.

    Args:
        root: Folder of images and masks, or of the folders of parts.
        classes: Names of the classes.
        modality: What the images hold, all bands on one grid; "rgb" if None.
        values: Value in the masks of each class; 0, 1, ... if None.
        ignore: Values in the masks that stand for no class.
        images: Name of the folder of images.
        masks: Name of the folder of masks.
        image_suffix: End of the images' names, before the file suffix, that masks do not have.
        mask_suffix: End of the masks' names that images do not have.
        split: "train", "val" or "test"; None for all.
        on_bad: See `LabelledDataset`.

    Raises:
        DataError: There are no images, or two have one name.
        ValueError: The modality has more than one grid, or values and classes do not fit.
    """

    task: Task = "mask"

    def __init__(
        self,
        root: Path | str,
        classes: Sequence[str],
        modality: Modality | None = None,
        values: Sequence[int] | None = None,
        ignore: Sequence[int] | int = (255,),
        images: str = "images",
        masks: str = "masks",
        image_suffix: str = "",
        mask_suffix: str = "",
        split: str | None = None,
        on_bad: OnBad = "stop",
    ) -> None:
        root = Path(root)
        values = range(len(classes)) if values is None else values
        if len(values) != len(classes) or len(set(values)) != len(values):
            raise ValueError(f"values must be {len(classes)} different ones, but got {values}")
        self._numbers = {value: number for number, value in enumerate(values)}
        ignore = (ignore,) if isinstance(ignore, int) else ignore
        self._numbers.update({value: IGNORE for value in ignore if value not in self._numbers})
        self._masks: dict[str, Path] = {}
        parts = _read_parts(root, image_suffix)
        entries = []
        listed = set(parts)
        for part, place in _find_parts(root):
            found = _by_name(place / images, image_suffix)
            partners = _by_name(place / masks, mask_suffix)
            listed -= found.keys()
            for name, path in found.items():
                id = path.relative_to(root).as_posix()
                entries.append(FileEntry(id, part or parts.get(name, ""), path))
                self._masks[id] = partners.get(name, place / masks / f"{name}{mask_suffix}.*")
        if not entries:
            raise DataError(f"{root} has no folder {images!r} with images ({', '.join(SUFFIXES)})")
        remarks = [f"{root} lists {name}, but has no such image" for name in sorted(listed)]
        super().__init__([check_modality(modality)], classes, entries, split, on_bad, remarks)

    def _images(self, entry: FileEntry) -> Contents:
        return Contents(read_bands(entry.path, self.modalities[0]), {})

    def _read(self, entry: FileEntry) -> Contents:
        contents = self._images(entry)
        size = contents.bands[self.modalities[0].name][0].shape[-2:]
        path = self._masks[entry.id]
        stored, inverse = np.unique(read_mask(path, (1, *size)), return_inverse=True)
        unknown = [value for value in stored.tolist() if value not in self._numbers]
        if unknown:
            raise DataError(
                f"{path} has the values {unknown[:5]}, which are no class; classes are "
                f"{list(self._numbers)[:5]} ...; give `values`, or list them in `ignore`"
            )
        numbers = np.array([self._numbers[value] for value in stored.tolist()], np.int64)
        return replace(contents, mask=numbers[inverse].reshape(size))


def check_modality(modality: Modality | None) -> Modality:
    """Returns the modality of images that hold all bands in one file.

    Raises:
        ValueError: It has more than one grid.
    """
    modality = get_modality("rgb") if modality is None else modality
    if len(modality.grids) != 1:
        raise ValueError(
            f"modality {modality.name!r} has {len(modality.grids)} grids, but one file holds one: "
            "use Modality.on_one_grid()"
        )
    return modality


def read_bands(path: Path, modality: Modality) -> dict[str, list[np.ndarray]]:
    """Returns the bands of an image of any size.

    Raises:
        DataError: The file is missing or damaged, or does not hold these bands.
    """
    dtypes = _UINT8 if modality.unit == "uint8" else (*DTYPES, "float64")
    image = read_image(path, dtypes, (len(modality.bands), None, None), modality)
    return {modality.name: [image[None]]}


def _find_parts(root: Path) -> Iterator[tuple[str, Path]]:
    """Yields the folders of parts, or the root itself as no part."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    found = [(_PARTS[each.name], each) for each in list_folders(root) if each.name in _PARTS]
    yield from found or [("", root)]


def _below(folder: Path) -> list[Path]:
    """Returns the images of a folder and of the folders in it."""
    below = [path for each in list_folders(folder) for path in _below(each)]
    return list_files(folder, SUFFIXES) + below


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Returns the images of a folder by their names without suffixes."""
    found: dict[str, Path] = {}
    names: dict[str, Path] = {}
    for path in list_files(folder, SUFFIXES):
        if path.stem.endswith(suffix):
            name = path.stem.removesuffix(suffix)
            other = names.setdefault(name.casefold(), path)
            if other is not path:
                raise DataError(
                    f"{folder} has two images of one name: {other.name}, {path.name}", "name"
                )
            found[name] = path
    return found


def _read_parts(root: Path, suffix: str) -> dict[str, str]:
    """Returns the part of each name that a list has, with or without file suffix and `suffix`."""
    parts = {}
    for part in dict.fromkeys(_PARTS.values()):
        path = root / f"{part}.txt"
        if path.is_file():
            parts[part] = [_listed_name(line, suffix) for line in read_lines(path)]
    return check_parts(parts, root)


def _listed_name(line: str, suffix: str) -> str:
    path = Path(line)
    name = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return name.removesuffix(suffix)
