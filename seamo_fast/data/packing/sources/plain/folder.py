"""Plain folders of images: TIFF, PNG and JPEG files of all bands, in folders of any depth.

    SOURCE/[<part>/][<folders>/]<image>

A part is a folder right below SOURCE called train, val, valid, validation or test. Names of other
folders, such as classes, mean nothing. Hidden files and folders and those of other suffixes are
ignored, and counted.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from seamo_fast.data.packing.sources.base import Reading
from seamo_fast.data.packing.sources.formats.names import (
    has_ending,
    is_hidden,
    twins,
    walk,
)
from seamo_fast.data.packing.sources.plain.image_file import SUFFIXES, read_image
from seamo_fast.data.packing.sources.plain.source import WholeImages
from seamo_fast.data.shards import DTYPES
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality, get_modality

PARTS: Final = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
ALL: Final = "all"


class _Listing(NamedTuple):
    """What a folder holds: images and their parts ("" for none), and ignored files by suffix."""

    images: dict[str, str]
    ignored: Counter[str]


class ImageFolder(WholeImages):
    """Reads the images of a folder; an item is an image, without date.

    Args:
        path: The folder.
        modality: What each image holds, all bands in one file and on one grid.
        size: See `WholeImages`.
        part: "train", "val", "test" or "all"; by default train where there are folders of parts.

    Raises:
        ConfigError: There is no such modality or part.
        DataError: There are no images, none can be read, or they differ in size.
    """

    layout: ClassVar[str] = "images"
    looked_for: ClassVar[str] = "images (.tif, .png or .jpg) in folders of any depth"

    def __init__(
        self, path: Path, modality: str = "rgb", size: int | None = None, part: str | None = None
    ) -> None:
        _list.cache_clear()  # files may have come since
        _twins.cache_clear()
        listing = _list(path)
        if not listing.images:
            raise DataError(f"{path} holds no images; looked for {self.looked_for}")
        parts = {each for each in listing.images.values() if each}
        self._part = part or ("train" if parts else ALL)
        if self._part != ALL and self._part not in parts:
            known = ", ".join(sorted(parts)) or "none"
            raise ConfigError(
                f"{path} has no images in {self._part!r}; its folders of parts: {known}"
            )
        self.remarks = (*_remarks(listing, self._part, bool(parts)),)
        self._modality = plain_modality(modality)
        self._dtypes = ("uint8",) if self._modality.unit == "uint8" else DTYPES
        super().__init__(
            path,
            self._modality.release or path.resolve().name,
            [self._modality],
            size,
            {"modality": modality, "part": self._part},
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether there is an image anywhere in a folder."""
        return any(has_ending(name, SUFFIXES) for _, _, names in walk(path) for name in names)

    def items(self) -> list[str]:
        """Returns the names of the images of the part, below the folder."""
        images = _list(self.path).images
        return [name for name, part in images.items() if self._part in (part, ALL)]

    def files(self, item: str) -> list[Path]:
        """Returns the file of an image."""
        return [self.path / item]

    def whole(self, item: str) -> Reading:
        """Returns an image in its own size."""
        other = _twins(self.path).get(item)
        if other is not None:
            raise DataError(
                f"{item} and {other} have one name but for upper and lower case; rename one", "name"
            )
        modality, shape = self._modality, (len(self._modality.bands), None, None)
        image = read_image(self.path / item, self._dtypes, shape, modality)
        reading = Reading(item, {modality.name: [image[None]]}, {}, {}, place=item)
        reading.dates[modality.name], reading.valid[modality.name] = [None], [True]
        return reading


def plain_modality(name: str) -> Modality:
    """Returns a registered modality on one grid, its finest: a file of all bands has no other.

    Raises:
        ConfigError: There is none of this name.
    """
    try:
        modality = get_modality(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return modality.on_one_grid(modality.grids[0].gsd)


def has_parts(root: Path) -> bool:
    """Whether a folder has folders of parts with images."""
    return any(_list(root).images.values())


@lru_cache(maxsize=8)
def _list(root: Path) -> _Listing:
    listing = _Listing({}, Counter())
    for prefix, _, files in walk(root):
        part = PARTS.get(prefix.partition("/")[0], "")
        for name in files:
            if has_ending(name, SUFFIXES):
                listing.images[prefix + name] = part
            else:
                kind = "hidden" if is_hidden(name) else Path(name).suffix.lower()
                listing.ignored[kind or "without suffix"] += 1
    return listing


@lru_cache(maxsize=8)
def _twins(root: Path) -> dict[str, str]:
    return twins(_list(root).images)


def _remarks(listing: _Listing, part: str, parts: bool) -> list[str]:
    """Returns what is packed and what is left out, for the log."""
    found = [f"taking all {len(listing.images)} images, without labels"]
    if part != ALL:
        count = sum(each == part for each in listing.images.values())
        found = [
            f"taking the {count} images of part {part!r} (of {len(listing.images)}), without labels"
        ]
    elif parts:
        found[0] += ", of the test part too"
    if listing.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in listing.ignored.most_common(5))
        found.append(f"ignored {listing.ignored.total()} files that are no images: {kinds}")
    return found
