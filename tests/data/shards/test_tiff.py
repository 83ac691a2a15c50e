"""The header probe says what tifffile says, and damaged headers are only ever an error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data.shards.tiff import encode_plain, probe, read_plain, why_not_dali


def encode(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **{"photometric": "minisblack", "metadata": None, **options})
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
def test_probe_says_what_tifffile_says(
    dtype: str, bands: int, planar: str, compression: str | None
) -> None:
    shape = {"contig": (5, 7, bands), "separate": (bands, 5, 7)}[planar] if bands > 1 else (5, 7)
    data = encode(
        np.ones(shape, dtype),
        planarconfig=planar if bands > 1 else None,
        compression=compression,
    )
    header = probe(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert header.shape == (page.imagelength, page.imagewidth, page.samplesperpixel)
        assert (header.dtype, header.compression) == (page.dtype, page.compression)
        assert header.planar == (page.planarconfig == 2)
        assert header.photometric == page.photometric
    readable = dtype in ("uint8", "uint16", "float32") and compression != "zstd"
    expected = readable and not (bands > 1 and planar == "separate")
    assert (why_not_dali(data, dtype, (bands, 5, 7)) == "") == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"byteorder": ">"}, "is no little-endian classic TIFF"),
        ({"bigtiff": True}, "is no little-endian classic TIFF"),
        ({"photometric": "miniswhite"}, "has the photometric 0"),
        ({"extratags": [(274, 3, 1, 6, True)]}, "is turned"),
    ],
)
def test_odd_files(options: dict[str, Any], reason: str) -> None:
    assert why_not_dali(encode(np.ones((5, 7), np.uint8), **options), "uint8", (1, 5, 7)) == reason


def test_unexpected_content() -> None:
    data = encode(np.ones((5, 7), np.uint8))
    assert why_not_dali(data, "uint16", (1, 5, 7)) == "is uint8"
    assert why_not_dali(data, "uint8", (1, 7, 5)) == "has the shape [5, 7, 1]"
    stack = encode(np.ones((2, 5, 7), np.uint8))
    assert why_not_dali(stack, "uint8", (1, 5, 7)) == "holds several images"


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_plain_files_are_read_back(bands: int) -> None:
    values = np.random.default_rng(0).integers(0, 60000, (bands, 5, 7)).astype(np.uint16)
    data = encode_plain(values)
    assert why_not_dali(data.tobytes(), "uint16", values.shape) == ""
    image = tifffile.imread(io.BytesIO(data.tobytes())).reshape(5, 7, bands)
    np.testing.assert_array_equal(np.moveaxis(image, -1, 0), values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_plain_files_of_gdal_are_read(tmp_path: Path, dtype: str, rows: int) -> None:
    values = np.random.default_rng(0).integers(0, 200, (50, 31)).astype(dtype)
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=50,
        width=31,
        count=1,
        dtype=dtype,
        blockysize=rows,
        crs="EPSG:4326",
        transform=rasterio.Affine(1e-4, 0, 7, 0, -1e-4, 50),
        nodata=0,
    ) as file:
        file.write(values, 1)
    plain = read_plain(path, 10000 + values.nbytes)
    assert plain is not None
    found, texts = plain
    assert texts == {42113: "0"}
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)
    assert read_plain(path, values.nbytes) is None


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 7), {"byteorder": ">"}),
        ((5, 7), {"bigtiff": True}),
        ((5, 7), {"compression": "zlib"}),
        ((5, 7), {"predictor": 2, "compression": "lzw"}),
        ((5, 7), {"description": "a"}),
        ((5, 7), {"tile": (16, 16)}),
        ((5, 7), {"subfiletype": 1}),
        ((5, 7), {"photometric": "miniswhite"}),
        ((5, 7), {"extratags": [(274, 3, 1, 6, True)]}),
        ((5, 7), {"extratags": [(42113, 12, 1, 5.0, True)]}),
        ((2, 5, 7), {}),
        ((2, 5, 7), {"planarconfig": "separate"}),
        ((5, 7, 3), {"planarconfig": "contig"}),
    ],
    ids=str,
)
def test_other_files_are_left_to_tifffile(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(encode(np.ones(shape, np.uint16), **options))
    assert read_plain(path, 10**6) is None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 1000),
)
def test_damaged_plain_files_are_what_tifffile_reads(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(encode(np.arange(300, dtype=np.uint16).reshape(20, 15), rowsperstrip=6))
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    path.write_bytes(data[: length + 400])
    found = read_plain(path, 10**6)
    if found is None:
        return
    try:
        expected = tifffile.imread(path)
    except Exception:  # noqa: BLE001 (it raises whatever it meets)
        return
    np.testing.assert_array_equal(found[0], expected)


SOUND = encode(np.ones((5, 7, 3), np.uint16), planarconfig="contig", compression="zlib")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SOUND)),
)
def test_damaged_headers_are_errors(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SOUND)
    for place, value in changes:
        data[place] = value
    assert isinstance(why_not_dali(bytes(data[:length]), "uint16", (3, 5, 7)), str)
