"""Pages, samples and sides: told apart, or refused with what was found."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality
from seamo_fast.pack import main
from seamo_fast.tasks.datasets import ClassFolder, SegMunich
from seamo_fast.tasks.datasets.reading.images import read_mask
from tests.data.packing.saying import (
    S1,
    S2,
    counts,
    decibels,
    packed,
    tile,
    write_mapping,
    write_netcdf,
    write_tiff,
    write_zarr_zip,
)
from tests.tasks.datasets.layouts import write_segmunich

BANDS = {"B2": 2, "B3": 3, "B4": 4, "B8": 8}
CONTIG = {"planarconfig": "contig", "photometric": "minisblack"}


def write_pages(path: Path, pages: Sequence[np.ndarray], kinds: Sequence[int] = ()) -> None:
    """Writes a page each, of these kinds by tag 254."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            kind = kinds[number] if kinds else 0
            file.write(page, photometric="minisblack", metadata=None, subfiletype=kind)


class TestStacks:
    """Files of several pages."""

    def test_an_array_of_rows_columns_bands_is_refused_by_the_command(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "in/p").mkdir(parents=True)
        array = np.random.default_rng(0).integers(200, 4000, (64, 64, 13), np.uint16)
        tifffile.imwrite(tmp_path / "in/p/20200301.tif", array)
        mapping = write_mapping(tmp_path, {"s2": {**S2, "bands": BANDS}})
        out = str(tmp_path / "out")
        assert main([str(tmp_path / "in"), out, "--mapping", mapping]) == 2
        error = capsys.readouterr().err
        assert (
            "20200301.tif holds 64 pages x 64 rows x 13 columns: which are the bands? only 4 or 8 "
            "pages, and not as many rows, are bands; save all bands as samples of one page "
            "(planarconfig='contig' and photometric='minisblack' of tifffile)"
        ) in error
        tifffile.imwrite(tmp_path / "in/p/20200301.tif", array, **CONTIG)
        found = tile(packed(tmp_path, {"s2": {**S2, "bands": BANDS}}))
        np.testing.assert_array_equal(found, np.moveaxis(array[..., [1, 2, 3, 7]], -1, 0))

    @pytest.mark.parametrize("shape", [(8, 8, 13), (13, 13, 13), (8, 8, 8)])
    def test_as_many_pages_as_rows_are_refused(
        self, tmp_path: Path, shape: tuple[int, ...]
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint16))
        with pytest.raises(TileError, match="which are the bands") as caught:
            read_tiff(tmp_path / "a.tif", stacked={8, 13})
        assert caught.value.kind == "axes"

    @pytest.mark.parametrize(
        "options",
        [{}, {"metadata": None}, {"truncate": True}, {"imagej": True}, {"compression": "zlib"}],
        ids=str,
    )
    def test_as_many_pages_as_bands_are_bands(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        (tmp_path / "in/p").mkdir(parents=True)
        array = counts(bands=13)
        tifffile.imwrite(tmp_path / "in/p/20200301.tif", array, photometric="minisblack", **options)
        s2 = {**S2, "bands": {"B2": 2, "B12": 13}}
        np.testing.assert_array_equal(tile(packed(tmp_path, {"s2": s2})), array[[1, 12]])
        with pytest.raises(TileError, match=r"a.tif holds 13 pages x 8 rows x 8 columns: which ar"):
            read_tiff((tmp_path / "in/p/20200301.tif").rename(tmp_path / "a.tif"), stacked={4, 9})

    def test_overviews_masks_and_thumbnails_are_no_bands(self, tmp_path: Path) -> None:
        image = counts(bands=1)[0]
        others = [image + 1, image[::2, ::2], np.ones((8, 8), bool), np.ones((4, 4), bool)]
        write_pages(tmp_path / "a.tif", [image, *others], [0, 1, 1, 4, 5])
        np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif").values, image)
        write_pages(tmp_path / "b.tif", [image[::2, ::2], image], [1, 0])
        np.testing.assert_array_equal(read_tiff(tmp_path / "b.tif").values, image)

    def test_overviews_and_masks_of_gdal(self, tmp_path: Path) -> None:
        image = np.random.default_rng(0).integers(1, 9000, (3, 64, 64)).astype(np.uint16)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            profile = {"height": 64, "width": 64, "count": 3, "dtype": "uint16"}
            with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **profile) as file:
                file.write(image)
                file.write_mask(np.arange(64 * 64).reshape(64, 64) % 3 != 0)
                file.build_overviews([2, 4])
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert len(file.pages) > 3
        found = read_tiff(tmp_path / "a.tif")
        np.testing.assert_array_equal(found.values, image)
        np.testing.assert_array_equal(found.measured, np.arange(64 * 64).reshape(64, 64) % 3 != 0)

    def test_images_of_two_kinds_are_refused(self, tmp_path: Path) -> None:
        write_pages(tmp_path / "a.tif", [counts(bands=1)[0], decibels(bands=1)[0][:4]])
        with pytest.raises(
            TileError,
            match=r"a.tif holds 2 images of different kinds \(8 x 8 uint16, 4 x 8 float32\); save",
        ):
            read_tiff(tmp_path / "a.tif", stacked={2})

    def test_pages_of_several_samples_are_refused(self, tmp_path: Path) -> None:
        array = np.zeros((2, 8, 8, 3), np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, **CONTIG)
        with pytest.raises(TileError, match=r"a.tif holds 2 pages of 8 x 8 x 3: which are the ban"):
            read_tiff(tmp_path / "a.tif", stacked={2, 3, 6})

    def test_a_file_of_one_band_has_one_page(
        self, tmp_path: Path, write_tile: Callable[..., Path]
    ) -> None:
        write_tile(tmp_path, "s1grd", "a", "20200604")
        folder = write_tile(tmp_path, "s1grd", "a", "20200904")
        write_pages(folder / "VV.tif", [decibels(bands=1)[0]] * 2)
        (reading,) = open_source(tmp_path, seasons=2).read("a")
        (remark,) = reading.skipped
        assert (remark.what, remark.kind) == (str(folder.relative_to(tmp_path)), "axes")
        assert remark.why.startswith("VV.tif holds 2 pages x 8 rows x 8 columns: which are the ba")

    def test_an_absurd_number_of_pages_is_refused(self, tmp_path: Path) -> None:
        write_pages(tmp_path / "a.tif", [np.zeros((2, 3), np.uint8)] * 1100)
        with pytest.raises(TileError, match=r"^a.tif holds more than 1024 pages$"):
            read_tiff(tmp_path / "a.tif", stacked={1100})

    def test_a_ring_of_pages_is_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", counts(bands=3), photometric="minisblack")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            first, last = file.pages[0].offset, file.pages[2].offset
        data = bytearray((tmp_path / "a.tif").read_bytes())
        (entries,) = struct.unpack_from("<H", data, last)
        struct.pack_into("<I", data, last + 2 + 12 * entries, first)
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(TileError, match=r"^a.tif holds more than 1024 pages$"):
            read_tiff(tmp_path / "a.tif", stacked={3})


MEANING = {
    2: "top, right",
    3: "bottom, right",
    4: "bottom, left",
    5: "left, top",
    6: "right, top",
    7: "right, bottom",
    8: "left, bottom",
    9: "unknown",
}


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_turned_images_are_refused(tmp_path: Path, orientation: int, bands: int) -> None:
    tags = [(274, 3, 1, orientation, True)]
    write_tiff(tmp_path / "a.tif", counts(bands=bands), extratags=tags)
    if orientation == 1:
        np.testing.assert_array_equal(
            read_tiff(tmp_path / "a.tif").values, np.squeeze(counts(bands=bands))
        )
        return
    with pytest.raises(
        TileError,
        match=rf"^a.tif is stored turned \(orientation {orientation}: its first row and column are "
        rf"{MEANING[orientation]}\); save it with the first row at the top and the first column",
    ):
        read_tiff(tmp_path / "a.tif")


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize(
    ("photometric", "meaning"), [(0, "minimum is white"), (3, "palette"), (6, "YCbCr"), (9, "unkn")]
)
def test_numbers_that_mean_colours_are_refused(
    tmp_path: Path, photometric: int, meaning: str, bands: int
) -> None:
    write_tiff(tmp_path / "a.tif", counts(bands=bands))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags[262].overwrite(photometric)
    with pytest.raises(
        TileError, match=rf"^a.tif has the photometric interpretation {photometric} \({meaning}"
    ):
        read_tiff(tmp_path / "a.tif")


def test_classes_may_have_a_palette_and_jpeg_may_be_ycbcr(tmp_path: Path) -> None:
    codes = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", codes, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), codes)
    with pytest.raises(DataError, match=r"a.tif has the photometric interpretation 3 \(palette\)"):
        read_image(tmp_path / "a.tif", modality=get_modality("rgb"))
    grey = np.full((16, 16, 3), 77, np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", grey, photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.photometric == 6
    np.testing.assert_array_equal(read_tiff(tmp_path / "b.tif").values, 77)


def test_sides_that_do_not_fit_the_ground_sampling_distances(tmp_path: Path) -> None:
    for band, size in (("B4", 8), ("B8A", 8)):
        write_tiff(tmp_path / f"in/p/2020-03-01/{band}.tif", counts(bands=1)[:, :size, :size])
    files = r"(?P<place>\w+)/(?P<date>[\d-]+)/(?P<band>\w+)\.tif"
    s2 = {"unit": "dn", "gsd": {"B4": 10, "B8A": 20}, "files": files}
    s2["bands"] = {"B4": "B4", "B8A": "B8A"}
    with pytest.raises(
        DataError,
        match=r"s2_20m has 8 x 8 pixels of 20 m, but s2_10m 8 x 8 of 10 m: they do not show the sa",
    ):
        packed(tmp_path, {"s2": s2})
    write_tiff(tmp_path / "in/p/2020-03-01/B8A.tif", counts(bands=1)[:, :4, :4])
    assert len(packed(tmp_path, {"s2": s2})) == 1


def test_sides_of_two_modalities(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in/p/20200301.tif", counts())
    write_tiff(tmp_path / "in/p/S1_20200301.tif", decibels()[:, :6, :5])
    s1 = {**S1, "files": r"S1_(\d{8})\.tif"}
    with pytest.raises(DataError, match="s1_10m has 6 x 5 pixels of 10 m, but s2_10m 8 x 8 of 10"):
        packed(tmp_path, {"s2": S2, "s1": s1})


class TestNamedAxes:
    """Dimensions of NetCDF variables and of zarr arrays."""

    def write(self, path: Path, names: Sequence[str]) -> np.ndarray:
        """Writes a variable [8, 8, 8] whose dimensions have these names."""
        import h5py

        values = decibels(bands=8)
        write_netcdf(path, {"VV": values})
        with h5py.File(path, "a") as file:
            file["t"].make_scale("t")
            for axis, name in enumerate(names):
                if name not in file:
                    file[name] = np.arange(8.0)
                    file[name].make_scale(name)
                file["VV"].dims[axis].attach_scale(file[name])
        return values

    @pytest.mark.parametrize("names", ["tyx", ("t", "lat", "lon"), ("t", "northing", "a")])
    def test_in_order(self, tmp_path: Path, names: Sequence[str]) -> None:
        values = self.write(tmp_path / "in/a.nc", names)
        s1 = {"unit": "db", "gsd": 10, "bands": {"VV": "VV"}}
        shards = packed(tmp_path, {"s1": s1}, format="netcdf")
        np.testing.assert_array_equal(tile(shards, 3)[0], values[3])

    @pytest.mark.parametrize(
        "names", ["yxt", "txy", "ytx", ("t", "lon", "lat"), ("a", "b", "t"), ("x", "b", "c")]
    )
    def test_in_another_order(self, tmp_path: Path, names: Sequence[str]) -> None:
        self.write(tmp_path / "in/a.nc", names)
        s1 = {"unit": "db", "gsd": 10, "bands": {"VV": "VV"}}
        found = re.escape(", ".join(names))
        with pytest.raises(
            DataError,
            match=rf"a.nc: variable VV has the axes \[{found}\]; expected \[time, y, x\]: store it",
        ):
            packed(tmp_path, {"s1": s1}, format="netcdf")

    @pytest.mark.parametrize(
        "names",
        [("sample", "band", "time", "y", "x"), ("sample", "time", "band", "x", "y")],
    )
    def test_of_zarr(self, tmp_path: Path, names: Sequence[str]) -> None:
        values = decibels(bands=2)[None].astype(np.float16)
        path = tmp_path / "S1GRD/a.zarr.zip"
        write_zarr_zip(path, values, {"_ARRAY_DIMENSIONS": names})
        with pytest.raises(DataError, match=r"array bands has the axes \[sample, .*\]; expected"):
            open_source(tmp_path, "ssl4eo-v1.1", seasons=1)
        right = ["sample", "time", "band", "y", "x"]
        write_zarr_zip(path, values, {"_ARRAY_DIMENSIONS": right})
        (reading,) = open_source(tmp_path, "ssl4eo-v1.1", seasons=1).read("a.zarr.zip")
        np.testing.assert_array_equal(reading.arrays["s1grd"][0][0], values[0])


def test_labelled_images_of_several_pages(tmp_path: Path) -> None:
    modality = get_modality("s2l2a").on_one_grid(10).subset(["B2", "B3", "B4", "B5", "B6"])
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a/1.tif", counts(bands=5), photometric="minisblack")
    tifffile.imwrite(tmp_path / "a/2.tif", np.moveaxis(counts(bands=5), 0, -1).copy())
    tifffile.imwrite(tmp_path / "a/3.tif", counts(bands=6), photometric="minisblack")
    dataset = ClassFolder(tmp_path, modality)
    np.testing.assert_array_equal(dataset.read(0).image.numpy(), counts(bands=5))
    with pytest.raises(DataError, match=r"2.tif holds 8 pages x 8 rows x 5 columns: which are the"):
        dataset.read(1)
    with pytest.raises(DataError, match=r"3.tif holds 6 pages x 8 rows x 8 columns: which are the"):
        dataset.read(2)


def test_pages_of_segmunich_are_rows(tmp_path: Path) -> None:
    write_segmunich(tmp_path)
    expected = SegMunich(tmp_path)[0].image.numpy()
    path = tmp_path / "train/img/1.tif"
    tifffile.imwrite(path, np.moveaxis(expected, 0, -1).copy())
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 128
    np.testing.assert_array_equal(SegMunich(tmp_path)[0].image.numpy(), expected)
