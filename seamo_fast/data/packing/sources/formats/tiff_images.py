"""Images of TIFF files: which of a file's pages they are, and what its tags say of the numbers.

A page is told by its tags 254 and 255: overviews and thumbnails (reduced resolution) and masks are
no bands. Of the pages that are left there is one, whose samples are the bands; or several of one
sample each, and then a page is a band only where their number is one that the caller expects.

An array [H, W, C] that was written without saying so is H pages of W rows and C columns. Where as
many pages as rows could mean that, they are refused whatever their number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from tifffile import TiffFile, TiffPage

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.metadata import SILENT, Said, said_by_tags, stored_as
from seamo_fast.data.shards.tiff import GDAL_METADATA, GDAL_NODATA, open_tiff, read_plain

_MASK: Final = 0b100  # of tag 254
_BESIDE: Final = _MASK | 0b1  # or of reduced resolution
_MOST_PAGES: Final = 1024
_AXES: Final = ("YX", "YXS", "SYX")
_PALETTE: Final = 3
_YCBCR, _JPEG = 6, 7  # decoding gives red, green and blue
_PHOTOMETRIC: Final = {
    0: "minimum is white",
    _PALETTE: "palette",
    4: "transparency mask",
    5: "CMYK",
    _YCBCR: "YCbCr",
    8: "CIELab",
}
# Tag 274: where the first row and the first column of the stored image are.
_ORIENTATIONS: Final = {
    1: "top, left",
    2: "top, right",
    3: "bottom, right",
    4: "bottom, left",
    5: "left, top",
    6: "right, top",
    7: "right, bottom",
    8: "left, bottom",
}


class TiffImage(NamedTuple):
    """An image as stored, and what its file says of the numbers.

    Attributes:
        values: [H, W] or [bands, H, W].
        said: One for each band.
        measured: Which pixels [H, W] a mask in the file keeps, None without one.
    """

    values: np.ndarray
    said: tuple[Said, ...]
    measured: np.ndarray | None = None


def read_tiff(
    path: Path,
    most: int = 2**28,
    *,
    stacked: Collection[int] | None = (),
    classes: bool = False,
) -> TiffImage:
    """Returns the image of a TIFF file.

    Args:
        path: The file.
        most: Bytes of an image beyond which the file counts as damaged.
        stacked: Numbers of pages that are read as bands; None for any, whatever their sides.
        classes: The numbers are classes, which a palette may colour.

    Raises:
        TileError: The file cannot be read or is no such image.
    """
    try:
        plain = read_plain(path, most)
        if plain is not None:
            values, texts = plain
            return TiffImage(values, _said(path, texts, 1))
        with open_tiff(path) as file:
            pages = _pages(file, path.name)
            values, texts = _read(file, pages, path.name, most, stacked, classes)
            measured = _mask(pages, values.shape[-2:])
    except FileNotFoundError:
        raise TileError(f"{path.name} is missing", "missing") from None
    except TileError:
        raise
    except Exception as error:  # damaged files raise whatever their decoder meets
        raise TileError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    bands = 1 if values.ndim == 2 else len(values)
    return TiffImage(values, _said(path, texts, bands), measured)


def _pages(file: TiffFile, name: str) -> list[TiffPage]:
    """Returns the pages of the main chain, which damage may have closed to a ring."""
    pages = list(islice(file.pages, _MOST_PAGES + 1))
    if len(pages) > _MOST_PAGES:
        raise TileError(f"{name} holds more than {_MOST_PAGES} pages", "axes")
    return [page for page in pages if isinstance(page, TiffPage)]


def _mask(pages: Sequence[TiffPage], shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the pixels [H, W] that the first mask of an image keeps."""
    for page in pages:
        if int(page.subfiletype) & _BESIDE == _MASK and page.shape == shape:
            return page.asarray() != 0
    return None


def _said(path: Path, texts: dict[int, str], bands: int) -> tuple[Said, ...]:
    if not texts:
        return (SILENT,) * bands
    try:
        return said_by_tags(texts.get(GDAL_NODATA, ""), texts.get(GDAL_METADATA, ""), bands)
    except ValueError as error:
        raise TileError(f"{path.name} {error}", "metadata") from error


def _read(
    file: TiffFile,
    pages: Sequence[TiffPage],
    name: str,
    most: int,
    stacked: Collection[int] | None,
    classes: bool,
) -> tuple[np.ndarray, dict[int, str]]:
    """Returns [H, W] or [bands, H, W] in the file's byte order, and the texts of GDAL's tags."""
    main = [page for page in pages if not int(page.subfiletype) & _BESIDE] or pages[:1]
    first = main[0]
    whole = file.series[0] if first.description else None
    count = len(main)
    if whole is not None and count == 1 and first.size:  # may stand for many by its description
        count = max(1, whole.size // first.size)
    if not 0 < count * first.nbytes <= most:
        raise TileError(f"{name} says that it holds {count * first.nbytes} bytes of pixels")
    _check_meaning(first, name, classes)
    axes = first.axes
    if count > 1 and whole is not None and sum(size > 1 for size in whole.shape) > len("SYX"):
        axes = whole.axes
    if axes not in _AXES:
        raise TileError(f"{name} has axes {axes}; expected rows, columns and bands", "axes")
    if count > 1:
        _check_stack(main, count, name, stacked)
    texts = _texts(first)
    _fill_gaps(main, name, texts)
    if whole is not None and count > len(main):
        return whole.asarray().reshape(count, *first.shape), texts
    if count > 1:
        return np.stack([page.asarray() for page in main]), texts
    values = first.asarray()
    return (np.moveaxis(values, -1, 0) if first.axes == "YXS" else values), texts


def _check_meaning(page: TiffPage, name: str, classes: bool) -> None:
    """Raises TileError unless an image is upright and its numbers are what they seem."""
    orientation = int(page.tags.valueof(274, 1))
    if orientation != 1:
        where = _ORIENTATIONS.get(orientation, "unknown")
        raise TileError(
            f"{name} is stored turned (orientation {orientation}: its first row and column are "
            f"{where}); save it with the first row at the top and the first column on the left",
            "axes",
        )
    photometric = int(page.tags.valueof(262, 1))
    decoded = photometric == _YCBCR and int(page.compression) == _JPEG
    if photometric in (1, 2) or decoded or (classes and photometric == _PALETTE):
        return
    meaning = _PHOTOMETRIC.get(photometric, "unknown")
    raise TileError(
        f"{name} has the photometric interpretation {photometric} ({meaning}), so its numbers are "
        "no measurements as they are; save it as minisblack or RGB",
        "metadata",
    )


def _check_stack(
    pages: Sequence[TiffPage], count: int, name: str, stacked: Collection[int] | None
) -> None:
    """Raises TileError unless so many pages are bands."""
    first = pages[0]
    kinds = dict.fromkeys((page.shape, str(page.dtype)) for page in pages)
    if len(kinds) > 1:
        found = ", ".join(f"{' x '.join(map(str, shape))} {dtype}" for shape, dtype in kinds)
        raise TileError(
            f"{name} holds {count} images of different kinds ({found}); save the one that is meant "
            "as a file of its own",
            "axes",
        )
    if first.axes == "YX":
        rows, columns = first.shape
        if stacked is None or (count in stacked and count != rows):
            return
        found = f"{count} pages x {rows} rows x {columns} columns"
    else:
        found = f"{count} pages of {' x '.join(map(str, first.shape))}"
    expected = " or ".join(map(str, sorted(stacked or ())))
    rule = f"only {expected} pages, and not as many rows, are bands; " if expected else ""
    raise TileError(
        f"{name} holds {found}: which are the bands? {rule}save all bands as samples of one page "
        "(planarconfig='contig' and photometric='minisblack' of tifffile)",
        "axes",
    )


def _texts(page: TiffPage) -> dict[int, str]:
    found: dict[int, str] = {}
    for tag in (GDAL_NODATA, GDAL_METADATA):
        value: Any = page.tags.valueof(tag)
        if value is not None:
            value = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            found[tag] = value.strip()
    return found


def _fill_gaps(pages: Sequence[TiffPage], name: str, texts: dict[int, str]) -> None:
    """Makes the missing pieces of a sparse file (GDAL's SPARSE_OK) nodata.

    Raises:
        TileError: It has no nodata value that its dtype holds.
    """
    for page in pages:
        if 0 not in page.databytecounts:
            continue
        nodata = _nodata(page, texts.get(GDAL_NODATA, ""))
        if nodata is None:
            lost, count = page.databytecounts.count(0), len(page.databytecounts)
            raise TileError(
                f"{name} lacks {lost} of its {count} pieces, and has no nodata value that they "
                "could stand for",
                "missing",
            )
        page.nodata = nodata  # tifffile finds none in -9999.0 for integers


def _nodata(page: TiffPage, text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    if page.dtype is None or page.dtype.kind == "f":
        return value
    return stored_as(value, page.dtype)
