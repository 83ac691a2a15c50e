"""Shards of TIFF files: equal to the bit to those of .npy files, and readable by others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards.array_files import decode_tiff, encode_tiff, tiff_name
from seamo_fast.data.shards.manifest import DTYPES, ArraySpec
from seamo_fast.errors import DataError
from tests.data.conftest import (
    OPTICAL,
    RADAR,
    SEASONS,
    sample_arrays,
    sample_dates,
    sample_valid,
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Six samples in shards of four."""
    writer = ShardWriter(
        tmp_path / "tiff", (OPTICAL, RADAR), SEASONS, shard_size=4, encoding="tiff"
    )
    for index in range(6):
        writer.add(f"place-{index}", sample_arrays(index), sample_dates(index), sample_valid(index))
    writer.finish()
    return tmp_path / "tiff"


def test_equal_to_npy_to_the_bit(written: Path, write_shards: Callable[..., Path]) -> None:
    tiff, npy = ShardSet(written), ShardSet(write_shards(6))
    assert (tiff.manifest.encoding, npy.manifest.encoding) == ("tiff", "npy")
    assert tiff.modalities == npy.modalities
    for index in range(6):
        for chosen in ({}, {"modalities": ["s1grd"], "seasons": [2, 0]}, {"seasons": []}):
            a, b = tiff.read(index, **chosen), npy.read(index, **chosen)
            assert a.bands.keys() == b.bands.keys()
            for name in a.bands:
                for x, y in zip(a.bands[name], b.bands[name], strict=True):
                    assert (x.dtype, x.shape) == (y.dtype, y.shape)
                    assert x.tobytes() == y.tobytes()
                    assert not x.flags.writeable
            np.testing.assert_array_equal(a.valid, b.valid)
            np.testing.assert_array_equal(a.dates, b.dates)
    assert tiff.verify() == npy.verify() == []
    assert tiff.verify(1) == []


def test_files_are_what_the_docstring_says(written: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the independent reader is rasterio")
    arrays = sample_arrays(5)
    for season in range(SEASONS):
        file = written / "shard-00001" / "optic_10m" / f"00001_{season}.tif"
        with tifffile.TiffFile(file) as opened:
            page = opened.pages.first
            assert (page.compression, page.planarconfig, page.predictor) == (8, 1, 2)
            assert (page.photometric, page.axes) == (1, "YXS")
        with rasterio.open(file) as image:
            expected = arrays["optic"][0][season]
            if not sample_valid(5)["optic"][season]:
                expected = np.zeros_like(expected)
            np.testing.assert_array_equal(image.read(), expected)
    assert len(list((written / "shard-00000" / "s1grd_10m").iterdir())) == 4 * SEASONS


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_number_of_bands(dtype: str, bands: int) -> None:
    rng = np.random.default_rng(bands)
    raw = rng.integers(0, 256, (bands, 9, 7 * np.dtype(dtype).itemsize), np.uint8)
    values = raw.view(dtype)  # every bit pattern, NaN included
    data = encode_tiff(values)
    spec = ArraySpec(dtype, (1, *values.shape))
    assert decode_tiff(data, spec).tobytes() == values.tobytes()
    assert encode_tiff(values) == data
    with pytest.raises(DataError, match="but the manifest says"):
        decode_tiff(data, ArraySpec(dtype, (1, bands + 1, *values.shape[1:])))


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damaged_file(written: Path, how: str) -> None:
    file = written / "shard-00000" / "s1grd_10m" / tiff_name(2, 1)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(data if how == "flip" else data[:-9])
    shards = ShardSet(written)
    assert shards.read(1)
    assert shards.read(2, seasons=[0, 2])
    message = r"00002_1\.tif cannot be read" if how == "remove" else (
        r"record 2 \(place-2\) fails the checksum of s1grd_10m/00002_1\.tif"
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"{message}.*delete .* run the same pack command again"):
        shards.read(2)
    assert len(shards.verify()) == 1


def test_real_location(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(data_dir / "ssl4eo_s12_v1")
    pack(source, tmp_path / "npy")
    pack(source, tmp_path / "tiff", encoding="tiff")
    a, b = (ShardSet(tmp_path / name).read(0) for name in ("npy", "tiff"))
    for name in a.bands:
        for x, y in zip(a.bands[name], b.bands[name], strict=True):
            assert x.tobytes() == y.tobytes()
