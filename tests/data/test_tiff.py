"""The header probe says what tifffile says, and damaged headers are only ever an error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data.tiff import encode_plain, probe, why_not_dali


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
