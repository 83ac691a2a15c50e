"""TerraMesh and WorldCereal against rasterio and netCDF4, and against what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.tasks.datasets import IGNORE, LabelledTile, TerraMesh, WorldCereal
from seamo_fast.tasks.datasets.open import DatasetOptions, open_dataset, within_training
from tests.tasks.datasets.layouts import values, write_terramesh, write_tif, write_worldcereal

PLACES = ("38D_378R_2_3", "433D_629L_3_1", "609U_541L_3_0")
S2 = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12")
MAPS = ("TEMPORARYCROPS", "WINTERCEREALS", "SPRINGCEREALS", "MAIZE-MAIN", "MAIZE-SECOND")


def real(data_dir: Path, name: str) -> Path:
    root = data_dir / name
    if not root.is_dir():
        pytest.skip(f"real tiles: no folder {root}")
    return root


def test_terramesh_equals_rasterio(data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    root = real(data_dir, "terramesh")
    dataset = TerraMesh(root)
    assert [entry.id for entry in dataset.entries] == list(PLACES)
    assert [each.name for each in dataset.modalities] == ["s2l2a", "s2l1c", "s1rtc"]
    for number, place in enumerate(PLACES):
        item = dataset.read(number)
        for modality in dataset.modalities:
            with rasterio.open(root / modality.name.upper() / f"{place}.tif") as file:
                np.testing.assert_array_equal(item.bands[modality.name][0][0], file.read())
        with rasterio.open(root / "LULC" / f"{place}.tif") as file:
            np.testing.assert_array_equal(item.mask, file.read(1).astype(int) - 1)
    # what the places look like: snow in Ontario in January, and water is dark in the infrared
    names = [[dataset.classes[n] for n in dataset.read(k).mask.unique()] for k in range(3)]
    assert names[2] == ["Snow/ice"]
    assert names[0] == ["Crops", "Rangeland"]
    coast = dataset.read(1)
    infrared = coast.bands["s2l2a"][0][0, 7].double()
    means = {name: infrared[coast.mask == n].mean() for n, name in enumerate(dataset.classes)}
    assert means["Water"] < min(means[name] for name in ("Trees", "Crops", "Built area"))


def test_terramesh_has_one_radar_version_a_place(tmp_path: Path) -> None:
    write_terramesh(tmp_path / "train", PLACES[:2])
    write_terramesh(tmp_path / "val", PLACES[2:])
    dataset = TerraMesh(tmp_path)
    assert dataset.parts == ("train", "val")
    assert [each.name for each in dataset.modalities] == ["s2l2a", "s2l1c", "s1rtc", "s1grd"]
    first, second, third = (dataset.read(number) for number in range(3))
    assert (first.id, third.id) == (f"train/{PLACES[0]}", f"val/{PLACES[2]}")
    for item, name, other in ((first, "s1rtc", "s1grd"), (second, "s1grd", "s1rtc")):
        assert (item.valid[name], item.valid[other]) == ([True], [False])
        stored = values(f"{name.upper()} {item.id[6:]}", (2, 24, 20), "float64").astype(np.float32)
        np.testing.assert_array_equal(item.bands[name][0][0], stored)
        assert item.bands[other][0].shape == (1, 2, 24, 20)
        assert not item.bands[other][0].any()
        assert item.bands[name][0].dtype == item.bands[other][0].dtype == torch.float32
    codes = values(f"LULC {PLACES[0]}", (24, 20), "uint8") % 10
    np.testing.assert_array_equal(first.mask == IGNORE, codes == 0)
    np.testing.assert_array_equal(first.mask, codes.astype(int) - 1)
    assert len(TerraMesh(tmp_path, "val", ["s1grd"])[0].bands) == 1
    with pytest.raises(DataError, match=rf"{PLACES[0]}.tif has no image of s1grd"):
        TerraMesh(tmp_path, modalities=["s1grd"])[0]
    split = open_dataset(tmp_path).split  # the published validation part is the test
    assert ({*split.train, *split.val}, split.test) == ({0, 1}, [2])


def test_tiles_of_one_cell_of_terramesh_are_in_one_part(tmp_path: Path) -> None:
    cells = [f"{cell}D_629L_0_{part}" for cell in range(5) for part in range(3)]
    write_terramesh(tmp_path, cells, (8, 8))
    opened = open_dataset(tmp_path)
    parts = [{cells[number].split("D")[0] for number in part} for part in opened.split]
    assert all(parts)
    assert sum(map(len, parts)) == 5
    assert sorted(chain(*opened.split)) == list(range(15))
    training = replace(opened, split=opened.split._replace(train=list(range(15))))
    held = within_training(training).split
    assert {cells[n].split("D")[0] for n in held.train}.isdisjoint(
        cells[n].split("D")[0] for n in held.val
    )
    for path in (path for cell in cells[6:] for path in tmp_path.glob(f"*/{cell}.tif")):
        path.unlink()
    with pytest.raises(DataError, match=r"terramesh has no published parts.*of 2 place\(s\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: write_tif(r / "LULC/1.tif", np.full((24, 20), 11, np.uint8)), "code 11; exp"),
        (lambda r: write_tif(r / "LULC/1.tif", np.full((24, 20), -1, np.int8)), "code -1; exp"),
        (
            lambda r: write_tif(r / "LULC/1.tif", np.ones((20, 24), np.uint8)),
            r"1.tif has shape \[1, 20, 24\], expected \[1, 24",
        ),
        (lambda r: (r / "S2L2A/1.tif").unlink(), "1.tif is missing"),
        (lambda r: (r / "S1RTC/1.tif").unlink(), "1.tif is missing"),
        (lambda r: (r / "S2L1C/1.tif").write_bytes(b"II*"), "1.tif cannot be read"),
        (lambda r: write_tif(r / "S2L2A/1.tif", np.ones((12, 24, 20), np.float32)), "dtype float"),
    ],
)
def test_what_is_wrong_with_terramesh_is_named(
    change: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    write_terramesh(tmp_path, ["1", "2"])
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        TerraMesh(tmp_path).read(0)
    assert isinstance(TerraMesh(tmp_path)[1], LabelledTile)


def test_shards_of_terramesh_are_refused(tmp_path: Path) -> None:
    (tmp_path / "val/LULC").mkdir(parents=True)
    (tmp_path / "val/LULC/majortom_shard_000001.tar").touch()
    with pytest.raises(DataError, match=r"holds no maps LULC/\*.tif.*shards .* must be written"):
        open_dataset(tmp_path)


def test_worldcereal_equals_netcdf4(data_dir: Path) -> None:
    netcdf4 = pytest.importorskip("netCDF4")
    root = real(data_dir, "worldcereal_belgium")
    with netcdf4.Dataset(root / "belgium_20_months.nc") as file:
        file.set_auto_maskandscale(False)
        optical = np.stack([file[name][:].view(np.uint16) for name in S2], axis=1)
        radar = np.stack([file[name][:].view(np.uint16) for name in ("VV", "VH")], axis=1)
        maps = [file[f"WORLDCEREAL_{name}_2021"][:] for name in MAPS]
        days = netcdf4.num2date(file["t"][:], file["t"].units, file["t"].calendar)
    months = [date(day.year, day.month, day.day) for day in days]
    dataset = WorldCereal(root)
    found = np.full((101, 101), -9)
    edges = [0, 20, 40, 60, 80, 101]
    for number, entry in enumerate(dataset.entries):
        item = dataset.read(number)
        row, column = entry.at
        assert item.split == ("train", "train", "train", "val", "test")[column]
        rows, columns = (slice(edges[n], edges[n + 1]) for n in (row, column))
        wanted = [5, 8, 11, 14]
        expected = optical[wanted][:, :, rows, columns]
        assert item.dates == {name: [months[n] for n in wanted] for name in ("s2", "s1")}
        assert item.valid == {"s2": [False, True, True, True], "s1": [True] * 4}
        assert not item.bands["s2"][0][0].any()
        np.testing.assert_array_equal(item.bands["s2"][0][1:], expected[1:])
        np.testing.assert_array_equal(item.bands["s1"][0], radar[wanted][:, :, rows, columns])
        found[rows, columns] = item.mask
    np.testing.assert_array_equal(found, np.vectorize(crop)(*maps))
    assert months[5] == date(2021, 1, 1)
    everything = WorldCereal(root, "test", seasons=range(20)).read(0)
    known = (optical[:, :, :20, 80:] != 65535).all(axis=1).mean(axis=(1, 2))
    assert everything.valid["s2"] == (known >= 0.5).tolist()
    assert np.flatnonzero(known < 0.5).tolist() == [4, 5, 18]


def crop(cropland: int, winter: int, spring: int, first: int, second: int) -> int:
    """The class of one pixel, from its five maps, in the words of the documentation."""
    claims = (winter == 100, spring == 100, 100 in (first, second))
    kinds = [number for number, claim in enumerate(claims, 1) if claim]
    if cropland == 0:
        return IGNORE if kinds else 0
    if cropland != 100 or len(kinds) > 1:
        return IGNORE
    if kinds:
        return kinds[0]
    return IGNORE if 255 in (winter, spring, first, second) else 4


def test_three_cubes_of_worldcereal_are_three_items(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_worldcereal(tmp_path, ["a", "b", "c"])
    opened = open_dataset(tmp_path, options=DatasetOptions(seasons=[4, 0], modalities=["s2"]))
    assert sorted(chain(*opened.split)) == [0, 1, 2]
    assert opened.choices == {"seasons": [4, 0]}
    item = opened.dataset.read(1)
    assert (item.id, item.split, item.valid) == ("b", "", {"s2": [False, True]})
    assert item.dates == {"s2": [date(2020, 12, 30), date(2020, 9, 1)]}
    for number, band in enumerate(S2):
        stored = values(f"b {band}", (12, 27, 25), "uint16").astype(np.uint16)[0]
        np.testing.assert_array_equal(item.bands["s2"][0][1, number], stored)
    with h5py.File(tmp_path / "b.nc") as file:
        maps = [file[f"WORLDCEREAL_{name}_2021"][:] for name in MAPS]
    np.testing.assert_array_equal(item.mask, np.vectorize(crop)(*maps))
    assert set(item.mask.unique().tolist()) == {IGNORE, 0, 1, 2, 3, 4}


def test_a_month_counts_where_half_of_the_block_is_measured(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_worldcereal(tmp_path)
    with h5py.File(tmp_path / "p.nc", "a") as file:  # the first block is 5 x 5 pixels
        file["B8"][0, :3, :5] = -1
        file["B2"][1, :2, :5] = -1
    item = WorldCereal(tmp_path, modalities=["s2"], seasons=[0, 1]).read(0)
    assert item.valid == {"s2": [False, True]}
    assert (item.bands["s2"][0][1, 0] == 65535).sum() == 10
    assert WorldCereal(tmp_path, seasons=[0]).read(1).valid == {"s2": [True], "s1": [True]}
    with pytest.raises(DataError, match="no month of p_0_0 was measured"):
        WorldCereal(tmp_path, modalities=["s2"], seasons=[0, 4])[0]


def test_months_that_a_cube_lacks_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    write_worldcereal(tmp_path, months=9)
    with pytest.raises(DataError, match=r"9 months, but 0, 3, 6, 9 are wanted.*0 to 8 with --seas"):
        WorldCereal(tmp_path)[0]
    with pytest.raises(DataError, match=r"9 months, but 9 are wanted"):
        WorldCereal(tmp_path, seasons=[9])[0]
    assert WorldCereal(tmp_path, seasons=[8]).read(0).dates["s1"] == [date(2021, 4, 29)]
    for seasons in ([], [-1]):
        with pytest.raises(ConfigError, match="worldcereal: seasons must be numbers of months fro"):
            open_dataset(tmp_path, options=DatasetOptions(seasons=seasons))


def _replace(name: str, array: np.ndarray | None) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        import h5py

        with h5py.File(path, "a") as file:
            del file[name]
            if array is not None:
                file[name] = array

    return change


WINTER = "WORLDCEREAL_WINTERCEREALS_2021"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace(WINTER, np.full((27, 25), 7, np.uint8)), f"{WINTER} has the value 7; expected 0"),
        (_replace(WINTER, np.zeros((27, 25))), rf"{WINTER} is float64 \[27, 25\]; expected int"),
        (_replace(WINTER, np.zeros((3, 27, 25), np.uint8)), r"is uint8 \[3, 27, 25\]; expected"),
        (_replace(WINTER, np.zeros((25, 27), np.uint8)), "p.nc: the maps of crops differ in size"),
        (_replace(WINTER, None), f"p.nc has no map {WINTER}; it holds B11, B12"),
        (_replace("B3", None), "p.nc has no variable 'B3'"),
        (_replace("B3", np.zeros((12, 27, 24), np.int16)), "p.nc: s2 of month 1 cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "p.nc cannot be read"),
        (lambda path: path.write_bytes(b"CDF\x01" + bytes(100)), "p.nc is a classic NetCDF file"),
    ],
)
def test_what_is_wrong_with_a_cube_is_named(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    write_worldcereal(tmp_path)
    change(tmp_path / "p.nc")
    with pytest.raises(DataError, match=message):
        WorldCereal(tmp_path).read(0)


def test_cubes_too_small_for_blocks_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    write_worldcereal(tmp_path, sides=(9, 4))
    with pytest.raises(DataError, match=r"p.nc is 9 x 4 pixels; blocks need 5"):
        WorldCereal(tmp_path).read(0)
    with pytest.raises(DataError, match="holds no cubes"):
        WorldCereal(tmp_path / "none")
