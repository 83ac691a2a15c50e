"""PNG, JPEG and TIFF against Pillow, and headers that lie."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.duplicates import first_of_same
from seamo_fast.tasks.datasets.reading.georeference import read_georeference
from seamo_fast.tasks.datasets.reading.images import read_mask
from seamo_fast.tasks.datasets.reading.lists import read_lines
from tests.tasks.datasets.layouts import values, write_tif

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_equals_pillow(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    array = values(mode, (6, 5), "uint16" if mode == "I;16" else "uint8")
    if mode == "P":
        image = Image.fromarray(array % 7, "P")
        image.putpalette([*range(100, 121)])
    elif mode == "I;16":
        image = Image.fromarray(array)
    else:
        image = Image.fromarray(values(mode, (6, 5, 3), "uint8")).convert(mode)
    image.save(path, **({"bits": 4, "transparency": 2} if mode == "P" else {}))
    expected = np.asarray(Image.open(path))
    expected = expected.astype(np.uint8) if mode == "1" else expected
    expected = np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected[None]
    found = read_image(path)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_jpeg_equals_pillow(options: dict[str, int], tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    Image.fromarray(values(1, (16, 24, 3), "uint8")).save(path, **options)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)).transpose(2, 0, 1))


def claim(path: Path, width: int, height: int) -> None:
    """Changes the size that a picture's header states."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".png":
        struct.pack_into(">II", data, 16, width, height)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    else:
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_absurd_sizes_are_refused_before_decoding(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values(1, (16, 16, 3), "uint8")).save(path)
    claim(path, 65500, 65500)
    with pytest.raises(DataError, match=f"a{suffix} says that it holds 12870750000 values"):
        read_image(path)
    if suffix == ".png":  # a kind of colour that there is not
        data = bytearray(path.read_bytes())
        data[25] = 5
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        (tmp_path / "b.png").write_bytes(data)
        with pytest.raises(DataError, match=r"b.png says that it holds 0 values"):
            read_image(tmp_path / "b.png")
    claim(path, 0, 16)
    with pytest.raises(DataError, match=f"a{suffix} says that it holds 0 values"):
        read_image(path)
    with pytest.raises(DataError, match=rf"a{suffix} has shape \[3, 16, 0\], expected"):
        read_image(path, shape=(3, 16, 16))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=f"a{suffix} cannot be read.*in {tmp_path}"):
        read_image(path)


def test_tiffs_as_stored(tmp_path: Path) -> None:
    image = values(1, (3, 7, 5), "float32")
    variants: tuple[dict[str, Any], ...] = (
        *({}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"byteorder": ">"}),
    )
    for number, options in enumerate(variants):
        for planar in ("contig", "separate"):
            path = tmp_path / f"{number}{planar}.tif"
            write_tif(path, image, planar, **options)
            found = read_image(path, ("float32",), (3, None, 5))
            np.testing.assert_array_equal(found, image)
            assert found.dtype == np.dtype("=f4")
    path = tmp_path / "m.tif"
    mask = write_tif(path, image[0].astype(np.int16))
    np.testing.assert_array_equal(read_mask(path), mask)
    write_tif(path, image[0])
    with pytest.raises(DataError, match="dtype float32, expected uint8 or"):
        read_mask(path)
    stack = np.zeros((2, 3, 4, 5), np.uint8)
    tifffile.imwrite(path, stack, metadata={"axes": "TZYX"}, photometric="minisblack")
    with pytest.raises(DataError, match=r"m.tif has axes TZYX"):
        read_image(path)


def test_georeferences_equal_rasterio(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    place = rasterio.transform.from_origin(13.07, 42.8, 1.1e-4, 1.2e-4)
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", height=4, width=5, transform=place, **options) as file:
        file.write(np.zeros((4, 5), np.uint8), 1)
    assert read_georeference(path) == pytest.approx((13.07, 42.8, 1.1e-4, 1.2e-4))
    path.write_bytes(b"II")
    with pytest.raises(DataError, match=r"a.tif cannot be read"):
        read_georeference(path)
    write_tif(path, np.zeros((4, 5), np.uint8))
    assert read_georeference(path) is None


@pytest.mark.parametrize(
    ("suffix", "size"), [(".png", (9000, 4000)), (".jpg", (9000, 4000)), (".jpg", (600, 600))]
)
def test_headers_that_claim_more_than_a_file_can_hold(
    suffix: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """JPEG decoders fill what is not there with grey, and say nothing."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values(1, (16, 16, 3), "uint8")).save(path)
    claim(path, *size)
    with pytest.raises(DataError, match=f"a{suffix} was cut short: its header claims more pixels"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_of_one_colour_are_no_claim(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(np.full((4000, 4000, 3), 7, "uint8"))
    image.save(path, **({"progressive": True, "quality": 1} if suffix == ".jpg" else {}))
    assert read_image(path).shape == (3, 4000, 4000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_pipe_is_no_image(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(DataError, match="it is a named pipe; expected a regular file"):
        read_image(tmp_path / f"a{suffix}")
    os.mkfifo(tmp_path / "b.tif")
    with pytest.raises(DataError, match="it is a named pipe; expected a regular file"):
        read_georeference(tmp_path / "b.tif")
    with pytest.raises(DataError, match="it is a named pipe; expected a regular file"):
        read_lines(tmp_path / "b.tif")
    assert first_of_same([tmp_path / "b.tif"] * 2, read_image) == {}
