"""What a mapping says of its modalities, and what it takes from a registered one."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.mapping_files import load_mapping, packaged_mappings
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.config import PRESETS
from seamo_fast.model.inputs import shared_bands

V11 = "s2l1c@ssl4eo-s12-v1.1"
BOTH = {"unit": "dn", "gsd": 10, "bands": {"B2": 1}}


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Modality]:
    """Returns a function that gives the modality `opt` that a mapping of these settings has."""

    def describe(**settings: Any) -> Modality:
        whole = {"name": "here", "format": "netcdf", "seasons": 1, "modalities": {"opt": settings}}
        file = tmp_path / "mapping.yaml"
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        return load_mapping(str(file)).modalities["opt"].modality("opt")

    return describe


def edited(folder: Path, group: str, **settings: Any) -> str:
    """Writes a mapping of GeoTIFFs with other settings, of itself or of its modality."""
    files = r"(?P<place>\w+)/(?P<date>\d{8})\.tif"
    opt = {"unit": "dn", "gsd": 10, "bands": {"A": 1, "B": 2}, "files": files}
    whole = {"name": "here", "format": "geotiff", "seasons": 1, "modalities": {"opt": opt}}
    (opt if group == "opt" else whole).update(settings)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(whole))
    return str(folder / "mapping.yaml")


IMPOSSIBLE: list[tuple[str, str, Any, str]] = [
    ("", "name", 7, "name must be text, but got 7"),
    ("", "name", "", "name must be text, but got ''"),
    ("", "seasons", True, "seasons must be a whole number above 0, but got True"),
    ("", "step", 10**30, "step must be at most 65536"),
    ("", "sample", "{place:>999999999}", "must name groups only, such as {place}"),
    ("", "place", "{place.__class__}", "must name groups only, such as {place}"),
    ("", "place", "{place!r}", "must name groups only, such as {place}"),
    ("", "place", ["a"], "place must be text"),
    ("", "recognise", "a", "recognise must be a list of patterns, but got 'a'"),
    ("", "recognise", [[1]], "recognise must be a list of patterns"),
    ("opt", "nodata", 10**400, "int too large"),
    ("opt", "gsd", "ten", "could not convert string to float: 'ten'"),
    ("opt", "scale", [1], "float() argument must be a string or a real number"),
    ("opt", "release", 7, "release must be a name, but got 7"),
    ("opt", "files", [7], "files must be a pattern, or a list of patterns"),
    ("opt", "files", "(", "files is no pattern"),
    ("opt", "composite", "A", "composite must be a list of bands, but got 'A'"),
]


@pytest.mark.parametrize(("group", "setting", "value", "message"), IMPOSSIBLE)
def test_settings_that_cannot_be_are_a_line(
    group: str, setting: str, value: Any, message: str, tmp_path: Path
) -> None:
    name = edited(tmp_path, group, **{setting: value})
    with pytest.raises(DataError, match=f"^mapping {re.escape(name)}: .*{re.escape(message)}"):
        load_mapping(name)


def test_a_mapping_that_is_no_text_or_no_tree_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    for text, message in (
        (b"\xff\xfe\xff", "^mapping .*m.yaml: "),
        (b"a: [1\nb: 2\n", "^mapping .*m.yaml: while parsing [^\n]*$"),
        (b"name: a\nname: b", "^mapping .*m.yaml: the key 'name' comes again in line 2$"),
    ):
        path.write_bytes(text)
        with pytest.raises(DataError, match=message):
            load_mapping(str(path))


def test_nodata_of_gdal_is_a_number(tmp_path: Path) -> None:
    lowest = float(np.finfo(np.float32).min)
    modality = load_mapping(edited(tmp_path, "opt", nodata=lowest)).modalities["opt"]
    assert modality.modality("opt").nodata == lowest


# of the settings that a shard's report.json holds, before mappings could name a modality
BEFORE = {
    "sen12ms": "6730520226f62eab78acb5f35e1dd3b1193ad5a686337bd47d988615933690bc",
    "sen12ms_cr": "a0fbff83ad9528b61c44679e3929de0c8c255074d8d0bf9215b5035a26882bfa",
    "terramesh": "65c7988bca8282369748b8749c4ed26789b11326f6bac8cc699c5da9d7987b3e",
    "worldcereal": "68802fb2d3c1546fa25276611c07f69a9bfa7609fededacc32c918cae2fe2634",
}


@pytest.mark.parametrize("name", packaged_mappings())
def test_sets_of_packaged_mappings_that_earlier_versions_began_are_resumed(name: str) -> None:
    text = json.dumps(load_mapping(name).settings)
    assert hashlib.sha256(text.encode()).hexdigest() == BEFORE[name]


@pytest.mark.parametrize("name", packaged_mappings())
def test_optical_bands_of_packaged_mappings_have_wavelengths_and_are_measured(name: str) -> None:
    known = {band.name: band.wavelength for band in get_modality("s2l1c").bands}
    for key, each in load_mapping(name).modalities.items():
        modality = each.modality(key)
        assert (modality.mean, modality.std, modality.release) == (None, None, "")
        for band in modality.bands:
            assert band.wavelength == known.get(band.name)


def test_all_that_is_not_given_is_that_of_the_modality(
    described: Callable[..., Modality],
) -> None:
    bands = {"B04": "red", "b3": "green", "B2": "blue", "B8A": "nir"}
    expected = get_modality("s2l1c").subset(["B4", "B3", "B2", "B8A"])
    found = described(like="s2l1c", bands=bands)
    assert found == Modality(**{**vars(expected), "name": "opt"})
    assert found.composite == ("B4", "B3", "B2")
    newer = described(like=V11, bands=bands)
    assert (newer.offset, newer.release) == (1000, "ssl4eo-s12-v1.1")
    assert {band.gsd for band in newer.bands} == {10}
    assert newer.mean is not None
    assert newer.mean != found.mean


def test_what_is_given_holds(described: Callable[..., Modality]) -> None:
    given = {"gsd": 30, "nodata": 65535, "composite": ["B8"], "wavelengths": {"B8": 830}}
    found = described(like="s2l2a", bands={"B8": "nir"}, **given)
    (band,) = found.bands
    assert (band.gsd, band.wavelength) == (30, 830)
    assert (found.nodata, found.composite, found.scale) == (65535, ("B8",), 10000)
    assert found.mean == (2517.76,)
    assert described(like="s2l2a", bands={"B8": "nir"}, nodata=None).nodata is None
    own = described(like="s2l2a", bands={"B8": "nir"}, mean=[5], std=[2], release="mine")
    assert (own.mean, own.std, own.release) == ((5.0,), (2.0,), "mine")


def test_rule_of_nodata(described: Callable[..., Modality]) -> None:
    def rule(**settings: Any) -> str:
        return described(bands={"B8": "nir"}, **settings).nodata_rule

    plain = {"unit": "dn", "gsd": 10, "nodata": 0}
    assert rule(**plain) == "band"
    assert rule(**plain, nodata_rule="pixel") == "pixel"
    assert rule(like="s2l2a") == rule(like="s2l2a", nodata=0.0) == "pixel"
    assert rule(like="s2l2a", nodata_rule="band") == "band"
    # of another value it is not known that bands may have it
    assert rule(like="s2l2a", nodata=65535) == rule(like="s2l2a", nodata=None) == "band"
    assert rule(like="s2l2a", nodata=65535, nodata_rule="pixel") == "pixel"
    assert described(like="s1grd", bands={"VV": "vv"}).nodata_rule == "band"
    with pytest.raises(DataError, match="'opt' has nodata_rule 'any'; expected one of band, pixel"):
        rule(**plain, nodata_rule="any")


def test_rules_of_nodata_of_packaged_mappings() -> None:
    found = {
        (name, key): each.modality(key).nodata_rule
        for name in packaged_mappings()
        for key, each in load_mapping(name).modalities.items()
    }
    assert {key for (_, key), rule in found.items() if rule == "pixel"} == {
        "s2l1c", "s2l1c_cloudy", "s2l2a"
    }  # fmt: skip
    assert found["worldcereal", "s2"] == "band"


@pytest.mark.parametrize("other", [{"offset": 1000}, {"scale": 1}, {"unit": "reflectance"}])
def test_statistics_of_other_numbers_are_not_taken(
    described: Callable[..., Modality], other: dict[str, Any]
) -> None:
    found = described(like="s2l2a", bands={"B8": "nir"}, **other)
    assert (found.mean, found.std, found.release) == (None, None, "")
    same = described(like="s2l2a", bands={"B8": "nir"}, offset=0, scale=10000.0)
    assert same.mean is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"like": "s2l1d"}, "unknown modality 's2l1d'; did you mean 's2l1c'"),
        ({"like": "s2l1c@x"}, "'s2l1c' has no release 'x'; known are ssl4eo-s12-v1.0, ssl4eo"),
        ({"like": "s2l2a", "bands": {"B10": "a"}}, "'s2l2a' has no band 'B10'; its bands are B1"),
        ({"like": "s2l2a", "bands": ["B8"]}, "'opt': bands must be `band: variable` pairs"),
        (BOTH | {"bands": {"B2": 1, "B3": 2, "B4": 1}}, "bands B2 and B4 are both 1; give each"),
        (BOTH | {"bands": {"B2": "b", "B3": "b"}}, "bands B2 and B3 are both b; give each band"),
        ({"like": "s2l2a", "bands": {"B2": "b", "B3": "b"}}, "bands B2 and B3 are both b"),
        (BOTH | {"scale": 0}, "'opt' has scale 0; expected stored steps per unit"),
        (BOTH | {"scale": math.inf}, "'opt': scale must be finite numbers, but got inf"),
        (BOTH | {"offset": math.nan}, "'opt': offset must be finite numbers, but got nan"),
        (
            BOTH | {"mean": [math.nan], "std": [1]},
            "'opt': mean must be finite numbers, but got nan",
        ),
        (BOTH | {"mean": [0], "std": [0]}, "'opt' has a standard deviation of 0 or less"),
        (BOTH | {"mean": [0], "std": [math.nan]}, "'opt': std must be finite numbers, but got nan"),
        (BOTH | {"gsd": 0}, "'opt': gsd must be above 0 metres, but got 0"),
        (BOTH | {"wavelengths": {"B2": -5}}, "wavelength of band 'B2' must be a number above 0"),
        ({"like": "s2l2a", "mean": None}, "'opt': give both mean and std, or none of them"),
        ({"like": "s2l2a", "mean": [1, 2]}, "has 1 bands but 2 values of mean"),
        ({"like": "s2l2a", "wavelengths": {"B4": 5}}, "'opt': wavelengths names no bands B4"),
        ({"like": "s2l2a", "unyt": "dn"}, "unknown setting 'unyt'; did you mean 'unit'"),
        ({"like": "s2l2a", "gsd": {"B4": 10}}, "'opt': gsd has no value for band B8"),
    ],
)
def test_what_cannot_be_alike_is_refused(
    described: Callable[..., Modality], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        described(**{"bands": {"B8": "nir"}, **settings})


def test_wavelengths_reach_the_manifest_and_stop_another_band_of_the_same_name(
    tmp_path: Path, write_cube: Callable[..., None]
) -> None:
    # Landsat's B5 is the near infrared of 865 nm, Sentinel-2's B5 the red edge of 705 nm
    values = np.random.default_rng(0).integers(1, 9000, (1, 4, 4)).astype(np.uint16)
    write_cube(tmp_path / "cubes" / "a.nc", {"red": values, "nir": values + 1})
    mapping = {
        "name": "here",
        "format": "netcdf",
        "seasons": 1,
        "modalities": {"landsat": {"like": "landsat89", "bands": {"B4": "red", "B5": "nir"}}},
    }
    file = tmp_path / "mapping.yaml"
    file.write_text(yaml.safe_dump(mapping, sort_keys=False))
    pack(open_source(tmp_path / "cubes", mapping=str(file)), tmp_path / "out")
    (modality,) = ShardSet(tmp_path / "out").modalities
    assert [(band.name, band.wavelength) for band in modality.bands] == [("B4", 655), ("B5", 865)]
    assert modality.release == "here"  # measured: no statistics are registered
    sentinel = get_modality("s2l2a")
    assert shared_bands(sentinel, modality) == ["B4"]
    backbone = SeaMoBackbone(PRESETS["tiny"], [sentinel])
    with pytest.raises(ValueError, match="has no band like B5 of 'landsat'"):
        backbone.adapt("s2l2a", modality)
