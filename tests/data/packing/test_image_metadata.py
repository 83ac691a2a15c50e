"""What GeoTIFFs say of their numbers is used, or reported by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seamo_fast.data.packing.packer import Plan, pack, pack_splits
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from seamo_fast.pack import main
from tests.data.packing.saying import (
    S1,
    S2,
    counts,
    decibels,
    item,
    noted,
    packed,
    tile,
    with_rows,
    write_mapping,
    write_tiff,
)


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

    def test_in_one_band_leaves_out_the_pixel_where_0_in_one_band_is_a_value(
        self, tmp_path: Path
    ) -> None:
        written = counts()
        written[0, :2], written[1, -1] = 65535, 0
        write_tiff(tmp_path / "in/p/20200301.tif", written, "65535")
        shards = packed(tmp_path, {"s2": {**S2, "like": "s2l2a"}})
        assert shards.modalities[0].nodata_rule == "pixel"
        np.testing.assert_array_equal(tile(shards), with_rows(written, 0))

    def test_in_one_band_of_several_grids_is_refused(self, tmp_path: Path) -> None:
        for band, size in (("B4", 8), ("B8A", 4)):
            image = with_rows(counts(bands=1)[:, :size, :size], 65535, size // 2)
            write_tiff(tmp_path / f"in/p/2020-03-01/{band}.tif", image, "65535")
            image[image == 65535] = 5
            write_tiff(tmp_path / f"in/q/2020-03-01/{band}.tif", image, "5" * (size == 4))
        s2 = {
            "like": "s2l2a",
            "unit": "dn",
            "gsd": {"B4": 10, "B8A": 20},
            "files": r"(?P<place>\w+)/(?P<date>[\d-]+)/(?P<band>\w+)\.tif",
            "bands": {"B4": "B4", "B8A": "B8A"},
        }
        shards = packed(tmp_path, {"s2": s2})
        assert [(each.what, each.kind) for each in shards.manifest.skipped[:1]] == [
            ("q s2 2020-03-01", "metadata")
        ]
        assert shards.manifest.skipped[0].why == (
            "the files leave out pixels of some bands of s2 alone, but by its nodata_rule a pixel "
            "is missing in all; give the mapping the rule band"
        )
        found = packed(tmp_path, {"s2": {**s2, "nodata_rule": "band"}})
        assert len(found) == 2

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
