"""What NetCDF, zarr and labelled images say of their numbers is used, or reported by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.formats.metadata import (
    Said,
    said_by_attributes,
    said_by_tags,
)
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality
from seamo_fast.tasks.datasets import ClassFolder
from tests.data.packing.saying import (
    counts,
    decibels,
    item,
    noted,
    packed,
    tile,
    with_rows,
    write_netcdf,
    write_tiff,
    write_zarr_zip,
)

CUBE = {"format": "netcdf"}
VV = {"s1": {"unit": "db", "gsd": 10, "bands": {"VV": "VV"}}}
B2 = {"s2": {"unit": "dn", "gsd": 10, "bands": {"B2": "B2"}}}


class TestCubes:
    """The attributes of NetCDF variables."""

    def test_fill_value_is_used(self, tmp_path: Path) -> None:
        written = with_rows(decibels(bands=3), -9999)
        said = {"VV": {"_FillValue": np.float32(-9999)}}
        write_netcdf(tmp_path / "in/a.nc", {"VV": written}, said)
        shards = packed(tmp_path, VV, **CUBE)
        assert shards.modalities[0].nodata == -9999
        np.testing.assert_array_equal(tile(shards, 2)[0], written[2])
        assert noted(shards) == [("s1", "nodata is -9999, as the files say", "metadata")]

    def test_missing_value_beside_it_becomes_it(self, tmp_path: Path) -> None:
        written = with_rows(counts(bands=1), 65535)
        written[0, -1] = 65534
        said = {"B2": {"_FillValue": np.uint16(65535), "missing_value": np.uint16([65534])}}
        write_netcdf(tmp_path / "in/a.nc", {"B2": written}, said)
        shards = packed(tmp_path, B2, **CUBE)
        assert shards.modalities[0].nodata == 65535
        written[0, -1] = 65535
        np.testing.assert_array_equal(tile(shards)[0], written[0])

    def test_fill_value_of_unsigned_numbers(self, tmp_path: Path) -> None:
        written = with_rows(counts(bands=1), 65535)
        said = {"B2": {"_FillValue": np.int16(-1), "_Unsigned": np.bytes_("true")}}
        write_netcdf(tmp_path / "in/a.nc", {"B2": written.view(np.int16)}, said)
        shards = packed(tmp_path, B2, **CUBE)
        assert shards.modalities[0].nodata == 65535
        assert tile(shards).dtype == np.uint16

    def test_what_was_never_written_is_not_measured(self, tmp_path: Path) -> None:
        netcdf = pytest.importorskip("netCDF4", reason="the library that fills")
        (tmp_path / "in").mkdir()
        with netcdf.Dataset(tmp_path / "in/a.nc", "w") as file:
            for name, size in (("t", 1), ("y", 8), ("x", 8)):
                file.createDimension(name, size)
            time = file.createVariable("t", "f8", ("t",))
            time[:], time.units = [0], "days since 2020-01-01"
            file.createVariable("VV", "f4", ("t", "y", "x"))[0, 2:] = decibels()[0, 2:]
        shards = packed(tmp_path, VV, **CUBE)
        assert shards.modalities[0].nodata == float(np.float32(9.969209968386869e36))
        assert shards.modalities[0].mean == pytest.approx([decibels()[0, 2:].mean()], rel=1e-6)

    def test_scale_of_float32_is_exact(self, tmp_path: Path) -> None:
        said = {"B2": {"scale_factor": np.float32(1e-4), "add_offset": np.float32(-0.1)}}
        write_netcdf(tmp_path / "in/a.nc", {"B2": counts(bands=1)}, said)
        (modality,) = packed(tmp_path, B2, **CUBE).modalities
        assert (modality.scale, modality.offset) == (10000, 1000)

    @pytest.mark.parametrize(
        "said",
        [
            {"valid_range": np.uint16([1000, 5000])},
            {"valid_min": np.uint16(1000), "valid_max": np.uint16(5000)},
            {"valid_range": [0.1, 0.5], "scale_factor": 1e-4},
        ],
    )
    def test_values_outside_of_the_valid_range(self, tmp_path: Path, said: dict[str, Any]) -> None:
        written = counts(bands=1)
        write_netcdf(tmp_path / "in/a.nc", {"B2": written}, {"B2": said})
        bands = {"s2": {**B2["s2"], "nodata": 0, "scale": 10000}}
        shards = packed(tmp_path, bands, **CUBE)
        expected = np.where((written < 1000) | (written > 5000), 0, written)
        np.testing.assert_array_equal(tile(shards)[0], expected[0])
        why = "values outside of the valid range 1000..5000 that files say are not measured"
        assert noted(shards) == [("s2", why, "metadata")]

    @pytest.mark.parametrize(
        ("mapping", "said", "why"),
        [
            (VV, {"units": "1"}, "files say unit '1', the mapping 'db', which is used"),
            (VV, {"units": "K"}, "files say unit 'K', the mapping 'db', which is used"),
            (B2, {"units": "dB"}, "files say unit 'dB', the mapping 'dn', which is used"),
        ],
    )
    def test_units(
        self, tmp_path: Path, mapping: dict[str, Any], said: dict[str, str], why: str
    ) -> None:
        (name,) = (band for each in mapping.values() for band in each["bands"])
        write_netcdf(tmp_path / "in/a.nc", {name: decibels(bands=1)}, {name: said})
        shards = packed(tmp_path, mapping, **CUBE)
        assert [each[1:] for each in noted(shards)] == [(why, "override")]

    def test_an_attribute_that_is_no_number_names_variable_and_file(self, tmp_path: Path) -> None:
        write_netcdf(tmp_path / "in/a.nc", {"B2": counts(bands=1)}, {"B2": {"_FillValue": "none"}})
        with pytest.raises(DataError, match=r"a.nc: variable B2 says _FillValue 'none', which is"):
            packed(tmp_path, B2, **CUBE)


class TestZarr:
    """SSL4EO-S12 v1.1."""

    def test_fill_value_is_used_where_the_modality_has_none(self, tmp_path: Path) -> None:
        values = with_rows(decibels(bands=2).astype(np.float16)[None], -999)
        write_zarr_zip(tmp_path / "in/S1GRD/a.zarr.zip", values, fill=-999.0)
        pack(open_source(tmp_path / "in", "ssl4eo-v1.1", seasons=1), tmp_path / "out")
        shards = ShardSet(tmp_path / "out")
        assert shards.modalities[0].nodata == -999
        np.testing.assert_array_equal(tile(shards), values[0])
        assert noted(shards) == [("s1grd", "nodata is -999, as the files say", "metadata")]

    def test_a_time_of_nothing_but_fill_values_is_missing(self, tmp_path: Path) -> None:
        values = np.stack([decibels(bands=2), np.full((2, 8, 8), -999)]).astype(np.float16)
        write_zarr_zip(tmp_path / "in/S1GRD/a.zarr.zip", values, fill=-999.0)
        (reading,) = open_source(tmp_path / "in", "ssl4eo-v1.1", seasons=2).read("a.zarr.zip")
        assert reading.valid == {"s1grd": [True, False]}
        assert [each.kind for each in reading.skipped] == ["unmeasured"]

    def test_fill_value_and_scale_beside_those_of_the_modality(self, tmp_path: Path) -> None:
        values = with_rows(counts(bands=12).astype(np.int16)[None], -1)
        said = {"_FillValue": -1, "scale_factor": 0.5}
        write_zarr_zip(tmp_path / "in/S2L2A/a.zarr.zip", values, said)
        pack(open_source(tmp_path / "in", "ssl4eo-v1.1", seasons=1), tmp_path / "out")
        shards = ShardSet(tmp_path / "out")
        np.testing.assert_array_equal(tile(shards), with_rows(values[0], 0))
        assert noted(shards) == [
            (
                "s2l2a",
                "files say value = stored * 0.5, the modality (stored - 1000) / 10000, which is "
                "used",
                "override",
            ),
            (
                "s2l2a",
                "files say nodata -1, the modality 0, which is used; pixels of either are not "
                "measured",
                "override",
            ),
        ]

    def test_the_fill_value_that_zarr_writes_by_itself_says_nothing(self, tmp_path: Path) -> None:
        values = with_rows(decibels(bands=2).astype(np.float16)[None], 0)
        write_zarr_zip(tmp_path / "in/S1GRD/a.zarr.zip", values, fill=0.0)
        source = open_source(tmp_path / "in", "ssl4eo-v1.1", seasons=1)
        assert source.modalities == (get_modality("s1grd", "ssl4eo-s12-v1.1"),)
        assert set(source.settings) == {"layout", "seasons", "modalities"}


def test_a_tag_in_the_folders_of_ssl4eo(tmp_path: Path, write_tile: Callable[..., Path]) -> None:
    for location in ("a", "b"):
        folder = write_tile(tmp_path / "in", "s1grd", location, "20200604")
    written = with_rows(decibels(bands=1), 0)
    written = np.pad(written, ((0, 0), (0, 256), (0, 256)), constant_values=-12)
    write_tiff(folder / "VV.tif", np.where(written == 0, -9999, written), "-9999")
    pack(open_source(tmp_path / "in", seasons=1), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    np.testing.assert_array_equal(tile(shards, 1)[0], written[0])
    why = "files say nodata -9999, the modality 0, which is used; pixels of either are not measured"
    assert noted(shards) == [("s1grd", why, "override")]


class TestLabelled:
    """Images with labels read the same tags."""

    def test_other_nodata_becomes_that_of_the_modality_and_is_logged_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        modality = get_modality("s2l2a").on_one_grid(10).subset(["B2", "B3"])
        for name in ("1", "2"):
            write_tiff(tmp_path / f"a/{name}.tif", with_rows(counts(), 54321), "54321")
        with caplog.at_level(logging.WARNING):
            dataset = ClassFolder(tmp_path, modality)
            for number in range(2):
                found = dataset.read(number).image.numpy()
                np.testing.assert_array_equal(found, with_rows(counts(), 0))
        why = "files say nodata 54321, the modality 0, which is used; pixels of either are not meas"
        assert [message.count(why) for message in caplog.messages] == [1]

    def test_nodata_that_cannot_be_marked_stays_and_is_logged_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        image = with_rows(counts(bands=3), 7).astype(np.uint8)
        write_tiff(tmp_path / "a.tif", image, "7")
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                found = read_image(tmp_path / "a.tif", modality=get_modality("rgb"))
                np.testing.assert_array_equal(found, image)
        assert caplog.messages == [
            "rgb: files say of some pixels that they are not measured; they count as measured "
            "here, where uint8 has no nodata"
        ]

    def test_nodata_of_floats_becomes_nan(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "a.tif", with_rows(decibels(), -9999), "-9999")
        modality = get_modality("s1grd", "ssl4eo-s12-v1.1")
        found = read_image(tmp_path / "a.tif", modality=modality)
        np.testing.assert_array_equal(found, with_rows(decibels(), np.nan))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Said()),
        ({"_FillValue": np.nan, "scale_factor": 1.0, "add_offset": 0}, Said()),
        ({"_FillValue": [-1], "missing_value": -2}, Said(nodata=(-1, -2))),
        ({"missing_value": "-1, -2"}, Said(nodata=(-1, -2))),
        ({"units": np.bytes_("m ")}, Said(unit="m")),
        ({"add_offset": 5}, Said(offset=5)),
        ({"valid_min": 1}, Said(low=1)),
        ({"valid_range": np.int16([1, 9]), "valid_max": 8}, Said(low=1, high=8)),
        (
            {"valid_range": [-0.5, 1.0], "scale_factor": -0.5},
            Said(scale=-0.5, low=-2, high=1),
        ),
    ],
)
def test_attributes(said: Mapping[str, Any], expected: Said) -> None:
    assert said_by_attributes(said, np.dtype("i2")) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"scale_factor": 0}, r"says that value = stored \* 0 \+ 0"),
        ({"valid_range": [5, 1]}, r"says the valid range 5..1"),
        ({"valid_range": [1, 2, 3]}, "says valid_range with 3 numbers"),
        ({"valid_range": []}, "says valid_range with 0 numbers"),
        ({"_FillValue": b"x"}, "says _FillValue 'x', which is no number"),
    ],
)
def test_attributes_that_say_nothing_sensible(said: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        said_by_attributes(said, np.dtype("i2"))


def test_limits_of_unsigned_numbers() -> None:
    said = {"valid_range": np.int16([0, -2]), "_FillValue": np.int16(-1)}
    found = said_by_attributes(said, np.dtype("i2"), unsigned=True)
    assert found == Said(nodata=(65535,), low=0, high=65534)


def test_tags() -> None:
    items = item("scale", 1, "0.5") + item("unittype", 0, "W/m&#178;") + item("description", 5, "x")
    assert said_by_tags("255", items, 2) == (
        Said(nodata=(255,), unit="W/m²"),
        Said(nodata=(255,), scale=0.5),
    )
