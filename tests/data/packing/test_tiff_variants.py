"""TIFF files in every usual form hold what was written; what is cut short names itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from tests.data.packing.saying import S2, packed, tile

SIDE = 48


def numbers(dtype: str, bands: int = 3) -> np.ndarray:
    """[bands, SIDE, SIDE] of a dtype, with negative numbers where it has any."""
    rng = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        return rng.normal(-15, 40, (bands, SIDE, SIDE)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -9000), min(limits.max, 60000), (bands, SIDE, SIDE), dtype)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "planar": ("uint16", {"planarconfig": "separate"}),
    "planar deflate": ("float32", {"planarconfig": "separate", "compression": "zlib"}),
    "BigTIFF": ("uint16", {"bigtiff": True}),
    "BigTIFF tiles": ("int16", {"bigtiff": True, "tile": (16, 16), "compression": "lzw"}),
    "big-endian": ("uint16", {"byteorder": ">"}),
    "big-endian floats": ("float32", {"byteorder": ">", "compression": "zlib"}),
    "zstd, predictor 2": ("uint16", {"compression": "zstd", "predictor": 2}),
    "deflate, predictor 2, big-endian": (
        "int16",
        {"compression": "zlib", "predictor": 2, "byteorder": ">"},
    ),
    "predictor 3": ("float32", {"compression": "zlib", "predictor": 3}),
    "predictor 3, float64": ("float64", {"compression": "zstd", "predictor": 3}),
    "LERC": ("float32", {"compression": "lerc"}),
    "LERC of integers": ("uint16", {"compression": "lerc"}),
    "packbits": ("uint8", {"compression": "packbits"}),
    "LZMA": ("uint16", {"compression": "lzma"}),
    "negative int16": ("int16", {}),
    "float16": ("float16", {}),
    "int32": ("int32", {"compression": "lzw"}),
    "tiles of another size": ("uint16", {"tile": (32, 16)}),
    "strips": ("float64", {"rowsperstrip": 5, "compression": "zlib"}),
}


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_holds_what_was_written(tmp_path: Path, form: str, bands: int) -> None:
    dtype, options = FORMS[form]
    values = numbers(dtype, bands)
    options = {"planarconfig": "contig", "photometric": "minisblack", "metadata": None, **options}
    separate = options["planarconfig"] == "separate"
    if bands == 1:
        del options["planarconfig"]
    pixels = values[0] if bands == 1 else values if separate else np.moveaxis(values, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(pixels), **options)
    found = read_tiff(tmp_path / "a.tif").values
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values[0] if bands == 1 else values)


def test_jpeg_2000_without_loss(tmp_path: Path) -> None:
    values = numbers("uint16", 1)[0]
    options = {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}}
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **options)
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif").values, values)


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [("uint16", 0, 0), ("int16", -9999, -9999), ("float32", -9999.5, -9999.5)],
)
def test_missing_tiles_of_sparse_files_are_nodata(
    tmp_path: Path, dtype: str, nodata: float, expected: float
) -> None:
    values = numbers(dtype)
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        height=SIDE,
        width=SIDE,
        count=3,
        dtype=dtype,
        tiled=True,
        blockxsize=16,
        blockysize=16,
        nodata=nodata,
        sparse_ok=True,
    ) as file:
        file.write(values[:, :16, :16], window=((0, 16), (0, 16)))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert 0 in tiff.pages.first.databytecounts
    written = np.full_like(values, expected)
    written[:, :16, :16] = values[:, :16, :16]
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif").values, written)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        if nodata == -9999:  # in a spelling that tifffile does not take for an integer
            tiff.pages.first.tags[42113].overwrite("-9999.0")
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif").values, written)
    if dtype == "float32":
        return
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[42113].overwrite("-99999")  # which no such integer can be
    with pytest.raises(TileError, match=r"a.tif lacks \d+ of its 9 pieces, and has no nodata valu"):
        read_tiff(tmp_path / "a.tif")


def test_a_mask_of_one_bit_is_read_as_such(tmp_path: Path) -> None:
    mask = numbers("uint16", 1)[0] > 30000
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack", metadata=None)
    found = read_tiff(tmp_path / "a.tif").values
    assert found.dtype == bool
    np.testing.assert_array_equal(found, mask)


def write_plain(path: Path) -> None:
    tifffile.imwrite(path, numbers("uint16", 1)[0], metadata=None)


def write_deflated(path: Path) -> None:
    pixels = np.moveaxis(numbers("uint16"), 0, -1).copy()
    options = {"planarconfig": "contig", "photometric": "minisblack", "compression": "zlib"}
    tifffile.imwrite(path, pixels, rowsperstrip=8, **options)


@pytest.mark.parametrize("write", [write_plain, write_deflated])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_files_that_are_cut_short_name_themselves(
    tmp_path: Path, write: Callable[[Path], None], share: float
) -> None:
    path = tmp_path / "cut.tif"
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(TileError, match=r"^cut.tif "):
        read_tiff(path)


def test_reflectance_that_is_cast_to_integers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in/p").mkdir(parents=True)
    pixels = (np.moveaxis(numbers("uint16", 2), 0, -1) / 60000).astype(np.float32)
    options = {"planarconfig": "contig", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "in/p/20200301.tif", pixels, **options)
    with pytest.raises(Exception, match=r"cannot be stored as uint16"):
        packed(tmp_path, {"s2": {**S2, "dtype": "uint16"}})
    found = tile(packed(tmp_path, {"s2": S2}))
    np.testing.assert_array_equal(found, np.moveaxis(pixels, -1, 0))
