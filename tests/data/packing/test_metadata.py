"""What files say of their numbers is used, or reported by name; values are known from writing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import Plan, pack, pack_splits
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.formats.metadata import (
    Said,
    said_by_attributes,
    said_by_tags,
)
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality
from seamo_fast.pack import main
from seamo_fast.tasks.datasets import ClassFolder
from seamo_fast.tasks.datasets.reading.images import read_image
from tests.data.packing.saying import (
    S1,
    S2,
    counts,
    decibels,
    item,
    packed,
    write_mapping,
    write_netcdf,
    write_tiff,
    write_zarr_zip,
)

CUBE = {"format": "netcdf"}
VV = {"s1": {"unit": "db", "gsd": 10, "bands": {"VV": "VV"}}}
B2 = {"s2": {"unit": "dn", "gsd": 10, "bands": {"B2": "B2"}}}


def with_rows(values: np.ndarray, value: float, rows: int = 2) -> np.ndarray:
    """Returns a copy whose first rows hold a value."""
    changed = values.copy()
    changed[..., :rows, :] = value
    return changed


def tile(shards: ShardSet, number: int = 0) -> np.ndarray:
    """Returns the first grid of the first modality in the first season."""
    (grid, *_) = shards.read(number).bands[shards.modalities[0].name]
    return grid[0]


def noted(shards: ShardSet) -> list[tuple[str, ...]]:
    """Returns what is said of what files say."""
    kinds = ("metadata", "override")
    return [tuple(each) for each in shards.manifest.noted if each.kind in kinds]


class TestNodataOfImages:
    """Tag 42113."""

    @pytest.mark.parametrize("text", ["-9999", "-9999.0", "-9999,0", " -9.999e3 "])
    def test_is_used_where_the_mapping_is_silent(self, tmp_path: Path, text: str) -> None:
        written = with_rows(decibels(), -9999)
        write_tiff(tmp_path / "in/p/20200301.tif", written, text)
        shards = packed(tmp_path, {"s1": S1})
        (modality,) = shards.modalities
        assert modality.nodata == -9999
        assert modality.mean == pytest.approx(written[:, 2:].mean((1, 2), np.float64), rel=1e-6)
        np.testing.assert_array_equal(tile(shards), written)
        assert noted(shards) == [("s1", "nodata is -9999, as the files say", "metadata")]

    def test_of_the_mapping_holds_and_stops(self, tmp_path: Path) -> None:
        written = with_rows(decibels(), -9999)
        write_tiff(tmp_path / "in/p/20200301.tif", written, "-9999")
        shards = packed(tmp_path, {"s1": {**S1, "nodata": 0}})
        np.testing.assert_array_equal(tile(shards), with_rows(written, 0))
        assert shards.modalities[0].nodata == 0
        why = (
            "files say nodata -9999, the mapping 0, which is used; "
            "pixels of either are not measured"
        )
        assert noted(shards) == [("s1", why, "override")]
        source = open_source(tmp_path / "in", mapping=str(tmp_path / "mapping.yaml"))
        with pytest.raises(DataError, match=f"^s1: {why}$"):
            pack_splits(source, Plan(tmp_path / "stopped", on_metadata="stop"))

    def test_of_a_modality_that_is_named_holds(self, tmp_path: Path) -> None:
        written = with_rows(counts(), 65535)
        write_tiff(tmp_path / "in/p/20200301.tif", written, "65535")
        shards = packed(tmp_path, {"s2": {**S2, "like": "s2l2a"}})
        np.testing.assert_array_equal(tile(shards), with_rows(written, 0))
        assert [each[2] for each in noted(shards)] == ["override"]

    @pytest.mark.parametrize("text", ["-9999", "1.5", "70000", "nan", "inf", "", "65535"])
    def test_that_cannot_occur_or_does_not_is_no_conflict(self, tmp_path: Path, text: str) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), text)
        shards = packed(tmp_path, {"s2": {**S2, "nodata": 0}})
        np.testing.assert_array_equal(tile(shards), counts())
        assert noted(shards) == []

    @pytest.mark.parametrize("text", ["-9999", "1.5", "nan", "-inf"])
    def test_that_cannot_occur_is_not_adopted(self, tmp_path: Path, text: str) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), text)
        shards = packed(tmp_path, {"s2": S2})
        assert shards.modalities[0].nodata is None
        assert noted(shards) == []

    def test_of_a_later_file_becomes_that_of_the_set(self, tmp_path: Path) -> None:
        for place, value in enumerate((-9999, -32768)):
            image = with_rows(decibels(place), value)
            write_tiff(tmp_path / f"in/p{place}/20200301.tif", image, str(value))
        shards = packed(tmp_path, {"s1": S1})
        np.testing.assert_array_equal(tile(shards, 1), with_rows(decibels(1), -9999))
        assert noted(shards) == [
            ("s1", "nodata is -9999, as the files say", "metadata"),
            (
                "s1",
                "some files say nodata -32768, which is stored as -9999, that of the first",
                "metadata",
            ),
        ]

    def test_of_a_later_file_becomes_nan_where_the_set_has_none(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p0/20200301.tif", decibels())
        write_tiff(tmp_path / "in/p1/20200301.tif", with_rows(decibels(1), -9999), "-9999")
        shards = packed(tmp_path, {"s1": S1})
        assert shards.modalities[0].nodata is None
        np.testing.assert_array_equal(tile(shards, 1), with_rows(decibels(1), np.nan))

    def test_that_no_integer_can_stand_for_leaves_the_tile_out(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p0/20200301.tif", counts())
        write_tiff(tmp_path / "in/p1/20200301.tif", with_rows(counts(1), 65535), "65535")
        shards = packed(tmp_path, {"s2": S2})
        assert len(shards) == 1
        assert tuple(shards.manifest.skipped[0]) == (
            "p1 s2 2020-03-01",
            "16 pixels are not measured by the file's nodata 65535, but s2 has no nodata in "
            "uint16 to mark them with; give the mapping one",
            "metadata",
        )

    def test_that_is_no_number_is_refused(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), "none at all")
        with pytest.raises(DataError, match=r"20200301.tif says nodata 'none at all', which is no"):
            packed(tmp_path, {"s2": S2})

    def test_decides_before_the_dtype_of_the_mapping(self, tmp_path: Path) -> None:
        written = with_rows(counts().astype(np.int32), -(2**31))
        write_tiff(tmp_path / "in/p/20200301.tif", written, str(-(2**31)))
        shards = packed(tmp_path, {"s2": {**S2, "dtype": "float32"}})
        assert shards.modalities[0].nodata == -(2.0**31)
        assert tile(shards).dtype == np.float32
        np.testing.assert_array_equal(tile(shards), written.astype(np.float32))

    def test_by_the_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for place in range(3):
            image = with_rows(decibels(place), -9999)
            write_tiff(tmp_path / f"in/p{place}/20200301.tif", image, "-9999")
        mapping = write_mapping(tmp_path, {"s1": S1})
        out = str(tmp_path / "out")
        assert main([str(tmp_path / "in"), out, "--mapping", mapping, "--workers", "2"]) == 0
        assert "s1: nodata is -9999, as the files say" in capsys.readouterr().out
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert -20 < manifest["modalities"][0]["mean"][0] < -5
        report = json.loads((tmp_path / "out/shard-00000/report.json").read_text())
        assert len(report["noted"]) == 1

    def test_of_other_files_is_not_resumed(self, tmp_path: Path) -> None:
        for value in ("-9999", "-32768"):
            write_tiff(tmp_path / "in/p/20200301.tif", decibels(), value)
            source = open_source(tmp_path / "in", mapping=write_mapping(tmp_path, {"s1": S1}))
            if value == "-9999":
                pack(source, tmp_path / "out")
        (tmp_path / "out/manifest.json").unlink()
        with pytest.raises(DataError, match="was packed from other items or with other settings"):
            pack(source, tmp_path / "out")
        silent = open_source(
            tmp_path / "in", mapping=write_mapping(tmp_path, {"s1": {**S1, "nodata": 5}})
        )
        assert set(silent.settings) == {"layout", "mapping"}


class TestScaleOfImages:
    """Items of tag 42112."""

    ITEMS = "".join(item("scale", n, 0.0001) + item("offset", n, -0.1) for n in range(2))

    def test_is_used_where_the_mapping_is_silent(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=self.ITEMS)
        shards = packed(tmp_path, {"s2": S2})
        (modality,) = shards.modalities
        assert (modality.scale, modality.offset) == (10000, 1000)
        np.testing.assert_array_equal(tile(shards), counts())
        why = "value = stored * 0.0001 - 0.1, as the files say: scale 10000, offset 1000"
        assert noted(shards) == [("s2", why, "metadata")]

    def test_that_the_mapping_has_too_is_not_said_again(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=self.ITEMS)
        shards = packed(tmp_path, {"s2": {**S2, "scale": 10000, "offset": 1000}})
        assert noted(shards) == []

    def test_of_the_mapping_holds(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=self.ITEMS)
        shards = packed(tmp_path, {"s2": {**S2, "like": "s2l2a"}})
        assert (shards.modalities[0].scale, shards.modalities[0].offset) == (10000, 0)
        why = (
            "files say value = stored * 0.0001 - 0.1, the mapping (stored - 0) / 10000, which is "
            "used"
        )
        assert noted(shards) == [("s2", why, "override")]

    def test_that_bands_do_not_share_is_refused(self, tmp_path: Path) -> None:
        items = item("scale", 0, 0.0001) + item("scale", 1, 0.001)
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=items)
        with pytest.raises(
            DataError,
            match=r"bands of s2 differ in scale \(B2: value = stored \* 0.0001, B3: value = stored "
            r"\* 0.001\); give scale and offset in the mapping, or make modalities of bands that d",
        ):
            packed(tmp_path, {"s2": S2})
        assert len(packed(tmp_path, {"s2": {**S2, "scale": 10000}})) == 1

    def test_of_a_later_file_is_another(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "in/p0/20200301.tif", counts(), items=self.ITEMS)
        items = self.ITEMS.replace("0.0001", "0.001")
        write_tiff(tmp_path / "in/p1/20200301.tif", counts(), items=items)
        skipped = packed(tmp_path, {"s2": S2}).manifest.skipped
        assert tuple(skipped[0]) == (
            "p1 s2 2020-03-01",
            "the file says value = stored * 0.001 - 0.1, but the data set has (stored - 1000) / "
            "10000; give scale and offset in the mapping if they hold for all",
            "mismatch",
        )

    def test_of_reflectance_makes_digital_numbers_whose_statistics_are_measured(
        self, tmp_path: Path
    ) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=self.ITEMS)
        settings = {**S2, "unit": "reflectance", "mean": [0.1, 0.1], "std": [1, 1]}
        (modality,) = packed(tmp_path, {"s2": settings}).modalities
        assert (modality.unit, modality.scale) == ("dn", 10000)
        assert modality.mean == pytest.approx(counts().mean((1, 2)))

    @pytest.mark.parametrize("text", ["0", "nan", "1e999", "one"])
    def test_that_is_no_factor_is_refused(self, tmp_path: Path, text: str) -> None:
        write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=item("scale", 0, text))
        with pytest.raises(DataError, match=r"20200301.tif says (that value|scale 'one', which)"):
            packed(tmp_path, {"s2": S2})


@pytest.mark.parametrize(
    ("settings", "items", "why"),
    [
        (S2, item("unittype", 0, "dB"), "files say unit 'dB', the mapping 'dn', which is used"),
        (
            {**S2, "unit": "db"},
            item("unittype", 0, "DN"),
            "files say unit 'DN', the mapping 'db', which is used",
        ),
        (
            {**S2, "unit": "db"},
            item("unittype", 1, "1"),
            "files say unit '1', the mapping 'db', which is used",
        ),
        (
            S2,
            item("unittype", 0, "reflectance"),
            "files say unit 'reflectance', the mapping 'dn', which is used",
        ),
        (
            S2,
            item("description", 0, "B03") + item("description", 1, "b2"),
            "files call the bands B2, B3 of the mapping B03, b2; those of the mapping are used",
        ),
    ],
)
def test_contradictions_of_images_are_overrides(
    tmp_path: Path, settings: dict[str, Any], items: str, why: str
) -> None:
    write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=items)
    assert noted(packed(tmp_path, {"s2": settings})) == [("s2", why, "override")]


@pytest.mark.parametrize(
    "items",
    [
        item("unittype", 0, "DN") + item("unittype", 1, "counts"),
        item("unittype", 0, "1"),
        item("unittype", 0, "m"),
        item("description", 0, "B02") + item("description", 1, "green"),
        item("description", 0, "Blue, 490 nm"),
        item("scale", 0, 1) + item("offset", 0, 0.0),
        '<Item name="STATISTICS_MEAN" sample="0">12</Item>',
        '<Item name="SCALE" role="scale">7</Item>',
        "<Item broken",
    ],
)
def test_what_contradicts_nothing_is_not_said(tmp_path: Path, items: str) -> None:
    write_tiff(tmp_path / "in/p/20200301.tif", counts(), items=items)
    assert noted(packed(tmp_path, {"s2": S2})) == []


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


def test_pixels_that_a_mask_leaves_out_are_not_measured(tmp_path: Path) -> None:
    image = decibels(bands=1)
    write_tiff(tmp_path / "in/p/20200301.tif", image)
    mask = image[0] > -12
    tifffile.imwrite(tmp_path / "in/p/20200301.tif", mask, append=True, subfiletype=4)
    s1 = {**S1, "bands": {"VV": 1}}
    shards = packed(tmp_path, {"s1": s1})
    np.testing.assert_array_equal(tile(shards), np.where(mask, image, np.nan))
    why = "pixels that masks in the files leave out are not measured"
    assert noted(shards) == [("s1", why, "metadata")]
    found = packed(tmp_path / "again", {"s1": {**s1, "nodata": 7}}, source=tmp_path / "in")
    np.testing.assert_array_equal(tile(found), np.where(mask, image, 7))


def test_remarks_of_a_set_are_few(tmp_path: Path) -> None:
    """One of each cause, however many samples and shards there are."""
    for place in range(5):
        write_tiff(tmp_path / f"in/p{place}/20200301.tif", with_rows(decibels(place), -9), "-9")
    shards = packed(tmp_path, {"s1": {**S1, "nodata": 0}}, {"shard_size": 2})
    assert len(shards.manifest.noted) == 1
    assert isinstance(shards.manifest.noted[0], Remark)
