"""Band order, spelling, units and statistics of modalities."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from seamo_fast.modalities import (
    Band,
    Modality,
    canonical_band,
    get_modality,
    list_modalities,
    register_modality,
)


def test_sentinel2_bands_are_in_the_order_of_ssl4eo() -> None:
    l1c = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]
    assert get_modality("s2l1c").band_names == tuple(l1c)
    assert get_modality("s2l2a").band_names == tuple(b for b in l1c if b != "B10")
    assert get_modality("s1grd").band_names == ("VV", "VH")


@pytest.mark.parametrize("name", list_modalities())
def test_order_puts_the_grids_back_into_published_order(name: str) -> None:
    modality = get_modality(name)
    concatenated = [modality.band_names[c] for grid in modality.grids for c in grid.bands]
    assert tuple(concatenated[i] for i in modality.order) == modality.band_names
    spacing = [grid.gsd for grid in modality.grids]
    assert spacing == sorted(spacing)


def test_native_grids_of_sentinel2() -> None:
    grids = get_modality("s2l2a").grids
    assert [grid.gsd for grid in grids] == [10, 20, 60]
    names = get_modality("s2l2a").band_names
    assert [[names[c] for c in grid.bands] for grid in grids] == [
        ["B2", "B3", "B4", "B8"],
        ["B5", "B6", "B7", "B8A", "B11", "B12"],
        ["B1", "B9"],
    ]


@pytest.mark.parametrize("name", ["s2l1c", "s2l2a"])
def test_releases_differ_by_the_offset_that_the_newer_one_keeps(name: str) -> None:
    old, new = get_modality(name), get_modality(name, "ssl4eo-s12-v1.1")
    assert (old.offset, new.offset) == (0, 1000)
    assert len(new.grids) == 1
    difference = np.array(new.mean) - np.array(old.mean)
    assert (np.abs(difference - 1000) < 75).all()


def test_normalization_centres_and_scales_stored_values() -> None:
    modality = get_modality("s2l2a")
    shift, scale = map(np.array, modality.normalization())
    values = np.array(modality.mean) + 2 * np.array(modality.std)
    np.testing.assert_allclose((values - shift) * scale, 2)


def test_unknown_statistics_say_how_to_get_them() -> None:
    with pytest.raises(ValueError, match=r"'landsat89' has no statistics; pack the data"):
        get_modality("landsat89").normalization()


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("B08", "B8"), ("b8a", "B8A"), ("B8a", "B8A"), ("B01", "B1"), ("vv", "VV"), ("B10", "B10")],
)
def test_spelling(spelling: str, name: str) -> None:
    assert canonical_band(spelling) == name


def test_b8_and_b8a_are_never_exchanged() -> None:
    names = list(get_modality("s2l2a").band_names)
    b8, b8a = names.index("B8"), names.index("B8A")
    names[b8], names[b8a] = names[b8a], names[b8]
    with pytest.raises(ValueError, match=r"B7, B8, B8A, B9.*but got 12: .*B7, B8A, B8, B9"):
        get_modality("s2l2a").check_bands(names)


def test_wrong_band_count_is_named() -> None:
    with pytest.raises(ValueError, match="expects the 2 bands VV, VH in this order, but got 1: VV"):
        get_modality("s1grd").check_bands(["VV"])


def test_subset_takes_statistics_along() -> None:
    full = get_modality("s2l2a")
    part = full.subset(["B8A", "B04"])
    assert part.band_names == ("B8A", "B4")
    assert part.mean == (2581.65, 1297.47)
    assert part.composite == ()
    assert full.subset(["B4", "B3", "B2"]).composite == ("B4", "B3", "B2")
    with pytest.raises(ValueError, match="'s2l2a' has no band 'B10'; its bands are B1, B2"):
        full.subset(["B10"])


@pytest.mark.parametrize("name", list_modalities())
def test_dictionary_round_trip_through_json(name: str) -> None:
    modality = get_modality(name)
    assert Modality.from_dict(json.loads(json.dumps(modality.to_dict()))) == modality


def test_broken_descriptions_are_refused() -> None:
    fields = get_modality("s1grd").to_dict()
    with pytest.raises(ValueError, match="has unit 'm'; expected one of dn, db"):
        Modality.from_dict({**fields, "unit": "m"})
    with pytest.raises(ValueError, match="has 2 bands but 1 values of mean"):
        Modality.from_dict({**fields, "mean": [1.0]})
    with pytest.raises(ValueError, match="is not described as expected"):
        Modality.from_dict({**fields, "colour": "red"})
    with pytest.raises(ValueError, match="names a band twice"):
        replace(get_modality("s1grd"), bands=(Band("VV", 10), Band("VV", 10)))
    with pytest.raises(ValueError, match="standard deviation of 0"):
        replace(get_modality("s1grd"), std=(1.0, 0.0))


def test_bands_of_a_user_are_found_by_any_spelling() -> None:
    mine = Modality("hyper", (Band("red", 10), Band("B02", 10)), "dn", composite=("red",))
    assert mine.band_names == ("RED", "B2")
    assert mine.subset(["b2"]).band_names == ("B2",)
    mine.check_bands(["Red", "B02"])


def test_nan_as_nodata_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN is nodata always; leave nodata out"):
        replace(get_modality("s1grd"), nodata=float("nan"))


def test_rules_of_nodata() -> None:
    pixel = {name for name in list_modalities() if get_modality(name).nodata_rule == "pixel"}
    assert pixel == {"s2l1c", "s2l2a"}
    for name in pixel:
        assert get_modality(name, "ssl4eo-s12-v1.1").nodata_rule == "pixel"
        assert get_modality(name).subset(["B2"]).on_one_grid(10).nodata_rule == "pixel"
    with pytest.raises(ValueError, match="has nodata_rule 'pixels'; expected one of band, pixel"):
        replace(get_modality("s1grd"), nodata_rule="pixels")


def test_descriptions_without_a_rule_of_nodata_mean_band() -> None:
    fields = get_modality("s2l2a").to_dict()
    assert fields["nodata_rule"] == "pixel"
    del fields["nodata_rule"]
    old = Modality.from_dict(fields)
    assert old.nodata_rule == "band"
    assert old.to_dict() == fields  # runs of older sets are resumed


def test_registry_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown modality 's2l2b'; did you mean 's2l2a'\?"):
        get_modality("s2l2b")
    with pytest.raises(ValueError, match="'s2l2a' has no release 'v9'; known are"):
        get_modality("s2l2a", "v9")


def test_user_defined_modality_is_registered_once() -> None:
    mine = Modality("mine", (Band("X", 5),), "dn", (1.0,), (2.0,), release="test")
    assert register_modality(mine) == get_modality("mine", "test")
    register_modality(mine)
    with pytest.raises(ValueError, match="'mine' of release 'test' is registered already"):
        register_modality(replace(mine, mean=(3.0,)))


@pytest.mark.parametrize(
    ("unit", "limit", "possible", "absurd"),
    [
        ("dn", 1e6, [65535, -32768], [1e30, -3.4028234663852886e38, 9.969209968386869e36]),
        ("db", 9e3, [-50, 30, -3000], [-9999, -32768, 1e30]),
        ("reflectance", 9e3, [1.6, -0.1, 4000], [-9999, 1e20]),
        ("uint8", 9e3, [255], [-9999, 1e20]),
    ],
)
def test_the_limit_is_beyond_what_a_unit_can_have(
    unit: str, limit: float, possible: list[float], absurd: list[float]
) -> None:
    modality = Modality("x", (Band("A", 10),), unit)
    assert modality.limit == limit
    assert max(map(abs, possible)) <= limit < min(map(abs, absurd))


def test_what_statistics_describe_is_within_the_limit() -> None:
    for name in ("s2l2a", "s2l1c", "s1grd"):
        known = get_modality(name)
        assert known.limit == Modality("x", (Band("A", 10),), known.unit).limit
    bands = (Band("A", 10), Band("B", 10))
    amplitudes = Modality("x", bands, "db", mean=(100.0, -2e4), std=(50.0, 300.0))
    assert amplitudes.limit == 2e4 + 10 * 300
    assert replace(amplitudes, mean=(1e38, 0.0), std=(1e38, 1.0)).limit == np.finfo(np.float32).max
    assert "limit" not in amplitudes.to_dict()


@pytest.mark.parametrize("scale", [1e300, -1e39, 1e-300])
def test_scales_beyond_float32_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="of its mean, scale or 1 / std, is beyond float32"):
        Modality("x", (Band("B2", 10),), "dn", scale=scale)
