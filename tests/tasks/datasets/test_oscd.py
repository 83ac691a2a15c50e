"""OSCD against rasterio: bands, dates, change maps in either coding, and resampling."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import OSCD
from seamo_fast.tasks.datasets.oscd import OSCD_S2
from tests.tasks.datasets.layouts import PREFIX, S2_L1C, values, write_city, write_tif


def real(data_dir: Path) -> Path:
    if not (data_dir / "oscd").is_dir():
        pytest.skip(f"real tiles: no folder {data_dir / 'oscd'}")
    return data_dir / "oscd"


def test_bands_and_dates_equal_rasterio(data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    dataset = OSCD(real(data_dir))
    assert {entry.id: entry.split for entry in dataset.entries} == {
        **dict.fromkeys(("bercy", "bordeaux", "nantes", "paris", "rennes"), "train"),
        "norcia": "test",
    }
    assert len(dataset.remarks) == 19  # and no folder of the test labels
    days = {}
    for number, entry in enumerate(dataset.entries):
        item = dataset.read(number)
        days[entry.id] = item.dates["s2l1c"]
        for t in (0, 1):
            for grid, tensor in zip(OSCD_S2.grids, item.bands["s2l1c"], strict=True):
                for place, channel in enumerate(grid.bands):
                    code = f"B{OSCD_S2.band_names[channel][1:]:0>2}"
                    (path,) = (entry.images / f"imgs_{t + 1}").glob(f"*_{code}.tif")
                    with rasterio.open(path) as file:
                        np.testing.assert_array_equal(tensor[t, place], file.read(1))
    # dates.txt; the names of norcia's first files say 2016
    assert days["norcia"] == [date(2015, 7, 11), date(2017, 10, 18)]
    assert days["paris"] == [date(2016, 11, 30), date(2017, 11, 7)]


def test_change_maps_agree_in_both_codings(data_dir: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    root = real(data_dir)
    (tmp_path / f"{PREFIX}Images").symlink_to(root / f"{PREFIX}Images")
    for path in (root / f"{PREFIX}Train Labels").glob("*/cm/*-cm.tif"):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    pictures, codes = OSCD(root, "train"), OSCD(tmp_path, "train")
    assert len(pictures) == len(codes) == 5
    for number in range(5):
        item, mask = pictures.read(number), codes.read(number).mask
        assert item.mask is not None
        assert mask is not None
        assert torch.equal(item.mask, mask)
        path = tmp_path / f"{PREFIX}Train Labels" / item.id / "cm" / f"{item.id}-cm.tif"
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(item.mask, file.read(1) - 1)
        assert 0 < item.mask.double().mean() < 0.5
        assert item.mask.shape == item.bands["s2l1c"][0].shape[-2:]
    assert OSCD(root, "test").read(0).mask is None


@pytest.mark.parametrize("coding", [(0, 255), (1, 2), (0, 1)])
def test_codings(coding: tuple[int, int], tmp_path: Path) -> None:
    changed = write_city(tmp_path, "paris", "train", coding)
    np.testing.assert_array_equal(OSCD(tmp_path).read(0).mask, changed)


def test_maps_without_change(tmp_path: Path) -> None:
    write_city(tmp_path, "paris", "train", (1, 2))
    path = tmp_path / f"{PREFIX}Train Labels/paris/cm/paris-cm.tif"
    dataset = OSCD(tmp_path)
    for fill, change in ((1, 0), (0, 0), (2, 1), (255, 1)):
        write_tif(path, np.full((60, 61), fill, np.uint8))
        mask = dataset.read(0).mask
        assert mask is not None
        assert mask.unique().tolist() == [change]
    write_tif(path, np.full((60, 61), 7, np.uint8))
    with pytest.raises(DataError, match=r"paris-cm.tif has values \[7\]; expected 0/255"):
        dataset.read(0)
    write_tif(path, np.ones((60, 60), np.uint8))
    with pytest.raises(DataError, match=r"paris-cm.tif has shape \[1, 60, 60\], expected \[any"):
        dataset.read(0)


def test_registered_images(tmp_path: Path) -> None:
    write_city(tmp_path, "valencia", "test")
    dataset = OSCD(tmp_path, images="rect")
    item = dataset.read(0)
    assert item.split == "test"
    (grid,) = item.bands["s2l1c"]
    for t in (0, 1):
        for place, band in enumerate(S2_L1C):
            stored = values(f"{t + 1} {band} rect", (60, 61), "uint16")
            np.testing.assert_array_equal(grid[t, place], stored)
    assert dataset.modalities[0].grids[0].gsd == 10


def test_the_second_date_is_resampled_to_the_first(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin
    from rasterio.warp import Resampling, reproject

    write_city(tmp_path, "paris", "train")
    folder = tmp_path / f"{PREFIX}Images/paris"
    first, second = (next((folder / f"imgs_{t}").glob("*_B05.tif")) for t in (1, 2))
    images = (values("a", (40, 40), "uint16"), values("b", (38, 42), "uint16"))
    places = (from_origin(2.0, 48.0, 2e-4, 2e-4), from_origin(1.99993, 48.0001, 1.9e-4, 2.1e-4))
    for band in ("B05", "B06", "B07", "B8A", "B11", "B12"):
        for path, image, place in zip((first, second), images, places, strict=True):
            options = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": "EPSG:4326"}
            options.update(height=image.shape[0], width=image.shape[1], transform=place)
            with rasterio.open(
                path.with_name(path.name.replace("B05", band)), "w", **options
            ) as file:
                file.write(image, 1)
    expected = np.zeros((40, 40), np.float64)
    reproject(
        images[1].astype(np.float64),
        expected,
        src_transform=places[1],
        src_crs="EPSG:4326",
        dst_transform=places[0],
        dst_crs="EPSG:4326",
        resampling=Resampling.bilinear,
        tolerance=0,
    )
    grid = OSCD(tmp_path).read(0).bands["s2l1c"][1]
    np.testing.assert_array_equal(grid[0, 0], images[0])
    inner = (slice(2, -2), slice(2, -2))  # GDAL treats edges otherwise
    # half a step of rounding
    np.testing.assert_allclose(grid[1, 0].double().numpy()[inner], expected[inner], atol=0.51)
    # where the two do not overlap there is nothing to resample
    with rasterio.open(second, "r+") as file:
        file.transform = from_origin(3.0, 48.0, 2e-4, 2e-4)
    with pytest.raises(DataError, match=rf"{second} does not show the same place"):
        OSCD(tmp_path).read(0)


def test_sizes_without_georeference_cover_the_same_place(tmp_path: Path) -> None:
    write_city(tmp_path, "paris", "train")
    (path,) = (tmp_path / f"{PREFIX}Images/paris/imgs_2").glob("*_B02.tif")
    image = np.repeat(np.repeat(values("c", (60, 61), "uint16"), 2, 0), 2, 1)
    write_tif(path, image)
    grid = OSCD(tmp_path).read(0).bands["s2l1c"][0]
    # every pixel of the first lies in the middle of four equal ones
    np.testing.assert_array_equal(grid[1, 0], image[::2, ::2])


def test_bad_cities_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder .* with the official cities"):
        OSCD(tmp_path)
    write_city(tmp_path, "paris", "train")
    folder = tmp_path / f"{PREFIX}Images/paris"
    dataset = OSCD(tmp_path)
    (folder / "dates.txt").write_text("date_1: soon\n")
    with pytest.raises(DataError, match=r"dates.txt must have two lines"):
        dataset.read(0)
    (path,) = (folder / "imgs_1").glob("*_B8A.tif")
    path.rename(path.with_name("other.tif"))
    with pytest.raises(DataError, match=r"imgs_1 must hold one file \*_B8A.tif, but has 0"):
        dataset.read(0)
    (tmp_path / f"{PREFIX}Images/train.txt").write_text("atlantis")
    with pytest.raises(DataError, match="official cities"):
        OSCD(tmp_path)
