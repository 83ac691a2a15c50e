"""Time series: the WorldCereal cube equals an independent reader, mappings are checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.errors import DataError

WriteCube = Callable[..., None]
BANDS = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12"]
SETTINGS = {
    "name": "here",
    "format": "netcdf",
    "seasons": 2,
    "step": 2,
    "stride": 1,
    "min_valid": 0.5,
    "modalities": {
        "opt": {"unit": "dn", "gsd": 10, "nodata": 65535, "bands": {"B8": "nir", "B4": "B04"}},
        "sar": {"unit": "db", "gsd": 20, "bands": {"VV": "vv"}},
    },
}


def pack_series(source: Path, out: Path, mapping: str, **options: Any) -> ShardSet:
    pack(open_source(source, mapping=mapping, **options), out)
    return ShardSet(out)


@pytest.fixture
def write_mapping(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that writes `SETTINGS`, changed by an edit, as a mapping file."""

    def write(edit: Callable[[dict[str, Any]], object] = lambda settings: None) -> str:
        settings = yaml.safe_load(yaml.safe_dump(SETTINGS, sort_keys=False))
        edit(settings)
        (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        return str(tmp_path / "mapping.yaml")

    return write


class TestWorldCereal:
    """The real cube: 20 months, optical missing in month 5 and mostly missing in month 4."""

    @pytest.fixture
    def shards(self, data_dir: Path, tmp_path: Path) -> ShardSet:
        return pack_series(data_dir / "worldcereal_belgium", tmp_path / "out", "worldcereal")

    @pytest.fixture
    def cube(self, data_dir: Path) -> Any:
        netcdf = pytest.importorskip("netCDF4", reason="the independent reader is netCDF4")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = netcdf.Dataset(data_dir / "worldcereal_belgium" / "belgium_20_months.nc")
        dataset.set_auto_maskandscale(False)
        yield dataset
        dataset.close()

    def test_values_equal_netcdf4_to_the_bit(self, shards: ShardSet, cube: Any) -> None:
        assert len(shards) == 11
        for index in range(11):
            sample = shards.read(index)
            for m, (name, bands) in enumerate({"s2": BANDS, "s1": ["VV", "VH"]}.items()):
                stored = sample.bands[name][0]
                assert stored.dtype == np.uint16
                for t, month in enumerate(range(index, index + 10, 3)):
                    assert sample.valid[t, m] == (name == "s1" or month not in (4, 5))
                    expected = np.stack([cube[band][month] for band in bands])
                    if not sample.valid[t, m]:
                        expected[:] = 0
                    assert stored[t].tobytes() == expected.tobytes()

    def test_missing_months_are_noted_and_dates_kept(self, shards: ShardSet) -> None:
        sample = shards.read(1)  # months 1, 4, 7, 10
        assert sample.valid.tolist() == [[True, True], [False, True], [True, True], [True, True]]
        days = [(date(2020 + (7 + m) // 12, (7 + m) % 12 + 1, 1) - date(1970, 1, 1)).days
                for m in (1, 4, 7, 10)]  # fmt: skip
        assert sample.dates[:, 1].tolist() == days
        assert [remark.what.split()[-1] for remark in shards.manifest.noted] == [
            "2020-12-01",
            "2021-01-01",
        ]
        assert shards.manifest.skipped == ()

    def test_modalities_are_measured(self, shards: ShardSet, cube: Any) -> None:
        optical, radar = shards.modalities
        assert (optical.band_names, radar.band_names) == (tuple(BANDS), ("VV", "VH"))
        assert (optical.unit, radar.unit, optical.nodata) == ("dn", "dn", 65535)
        assert optical.release == radar.release == "worldcereal"
        months = [m for i in range(11) for m in range(i, i + 10, 3) if m not in (4, 5)]
        for c, band in enumerate(BANDS):
            values = cube[band][:].view(np.uint16)[months]
            values = values[values != 65535].astype(np.float64)
            assert optical.mean is not None
            assert optical.std is not None
            assert optical.mean[c] == pytest.approx(values.mean(), rel=1e-12)
            assert optical.std[c] == pytest.approx(values.std(), rel=1e-12)


@pytest.fixture
def cubes(tmp_path: Path, write_cube: WriteCube) -> Path:
    """Two places of 6 steps; the second lacks most of its optical pixels at step 3."""
    for place in range(2):
        rng = np.random.default_rng(place)
        nir = rng.integers(0, 65535, (6, 4, 5)).astype(np.uint16)
        if place == 1:
            nir[3, :3] = 65535
        red = rng.integers(0, 65535, (6, 4, 5)).astype(np.uint16)
        radar = rng.normal(size=(6, 2, 2)).astype(np.float32)
        write_cube(tmp_path / "cubes" / f"place{place}.nc", {"nir": nir, "B04": red, "vv": radar})
    return tmp_path / "cubes"


def test_windows_of_every_place(
    cubes: Path, tmp_path: Path, write_mapping: Callable[..., str]
) -> None:
    shards = pack_series(cubes, tmp_path / "out", write_mapping())
    assert [shards.describe(i).split()[-1] for i in (0, 3, 4)] == [
        "(place0/t000)",
        "(place0/t003)",
        "(place1/t000)",
    ]
    assert len(shards) == 8
    assert shards.modalities[0].band_names == ("B8", "B4")
    assert [shards.read(4 + start).valid[:, 0].tolist() for start in range(4)] == [
        [True, True],
        [True, False],
        [True, True],
        [False, True],
    ]
    origin = date(1990, 1, 1) + timedelta(11170 + 30)
    assert shards.read(1).dates[0, 0] == (origin - date(1970, 1, 1)).days


@pytest.mark.parametrize("rule", ["band", "pixel"])
def test_the_rule_of_nodata_decides_what_is_measured(
    tmp_path: Path, write_cube: WriteCube, write_mapping: Callable[..., str], rule: str
) -> None:
    nir, red = np.random.default_rng(0).integers(1, 9, (2, 2, 10, 10)).astype(np.uint16)
    nir[:, 9, 9] = red[:, 9, 9] = 0
    nir[0, :6] = 0  # of the first season both bands have 39 % of the pixels, one has 99 %
    write_cube(tmp_path / "c" / "a.nc", {"nir": nir, "B04": red})

    def edit(settings: dict[str, Any]) -> None:
        settings.update(step=1)
        settings["modalities"].pop("sar")
        settings["modalities"]["opt"].update(nodata=0, nodata_rule=rule)

    shards = pack_series(tmp_path / "c", tmp_path / "out", write_mapping(edit))
    (modality,) = shards.modalities
    assert modality.nodata_rule == rule
    assert shards.read(0).valid[:, 0].tolist() == [rule == "pixel", True]


def test_seasons_and_modalities_override_the_mapping(
    cubes: Path, tmp_path: Path, write_mapping: Callable[..., str]
) -> None:
    shards = pack_series(cubes, tmp_path / "out", write_mapping(), seasons=3, modalities=["sar"])
    assert (shards.seasons, len(shards)) == (3, 4)
    assert [modality.name for modality in shards.modalities] == ["sar"]
    with pytest.raises(DataError, match=r"the mapping has no modality 'rgb'; it has opt, sar"):
        open_source(cubes, mapping=write_mapping(), modalities=["rgb"])


@pytest.mark.parametrize(
    ("units", "times", "expected"),
    [
        ("hours since 2020-01-01 12:00:00", [13, 36], [18263, 18264]),
        ("seconds since 1970-01-01", [86399, 86400], [0, 1]),
    ],
)
def test_units_of_time(
    tmp_path: Path,
    write_cube: WriteCube,
    write_mapping: Callable[..., str],
    units: str,
    times: list[int],
    expected: list[int],
) -> None:
    radar = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    write_cube(tmp_path / "c" / "a.nc", {"vv": radar}, units, times)
    mapping = write_mapping(lambda s: (s.update(step=1), s["modalities"].pop("opt")))
    shards = pack_series(tmp_path / "c", tmp_path / "out", mapping)
    assert shards.read(0).dates[:, 0].tolist() == expected


def test_place_that_cannot_be_read_is_skipped(
    cubes: Path, tmp_path: Path, write_cube: WriteCube, write_mapping: Callable[..., str]
) -> None:
    (cubes / "a.nc").write_bytes(b"CDF\x01" + bytes(100))
    (cubes / "b.nc").write_bytes((cubes / "place0.nc").read_bytes()[:1000])
    zeros = np.zeros((2, 4, 5), np.uint16)
    write_cube(cubes / "short.nc", {"nir": zeros, "B04": zeros, "vv": zeros[:, :2, :2]})
    write_cube(cubes / "without.nc", {"nir": zeros, "B04": zeros})
    shards = pack_series(cubes, tmp_path / "out", write_mapping())
    assert len(shards) == 8
    reasons = {remark.what: remark.why for remark in shards.manifest.skipped}
    assert sorted(reasons) == ["a.nc", "b.nc", "short.nc", "without.nc"]
    assert "is a classic NetCDF file; convert it with `nccopy -k nc4" in reasons["a.nc"]
    assert "cannot be read as NetCDF-4" in reasons["b.nc"]
    assert "has 2 time steps, but a window of 2 seasons 2 apart takes 3" in reasons["short.nc"]
    assert "has no variable 'vv'; it holds B04, nir, t" in reasons["without.nc"]


def test_variables_lie_on_the_time_axis(
    cubes: Path, tmp_path: Path, write_cube: WriteCube, write_mapping: Callable[..., str]
) -> None:
    h5py = pytest.importorskip("h5py")
    nir = np.ones((6, 4, 5), np.uint16)
    radar = nir[:, :2, :2].astype(np.float32)
    five = [11170 + 30 * step for step in range(5)]
    write_cube(cubes / "short.nc", {"nir": nir, "B04": nir, "vv": radar}, times=five)
    write_cube(cubes / "flat.nc", {"nir": nir, "B04": nir[:, 0], "vv": radar})
    write_cube(cubes / "huge.nc", {"nir": nir, "B04": nir})
    with h5py.File(cubes / "huge.nc", "a") as file:
        file.create_dataset("vv", (6, 2**16, 2**16), "f4", chunks=(1, 64, 64))
    shards = pack_series(cubes, tmp_path / "out", write_mapping())
    reasons = {remark.what: remark.why for remark in shards.manifest.skipped}
    assert sorted(reasons) == ["flat.nc", "huge.nc", "short.nc"]
    by_time = "by the time axis 't'"
    assert reasons["short.nc"].endswith(f"has shape [6, 4, 5]; expected [5, y, x] {by_time}")
    assert reasons["flat.nc"].endswith(f"B04 has shape [6, 5]; expected [6, y, x] {by_time}")
    assert (
        "vv has the absurd shape [6, 65536, 65536] in chunks of [1, 64, 64]" in reasons["huge.nc"]
    )


def test_place_of_another_size_is_skipped(
    cubes: Path, tmp_path: Path, write_cube: WriteCube, write_mapping: Callable[..., str]
) -> None:
    zeros = np.ones((6, 3, 3), np.uint16)
    write_cube(cubes / "z.nc", {"nir": zeros, "B04": zeros, "vv": zeros.astype(np.float32)})
    shards = pack_series(cubes, tmp_path / "out", write_mapping())
    assert len(shards) == 8
    assert shards.manifest.skipped[0].why == "opt has shape [2, 3, 3], expected [2, 4, 5]"


def test_no_place(tmp_path: Path, write_mapping: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no place that can be read: looked for \*.nc"):
        open_source(tmp_path / "empty", mapping=write_mapping())


def geotiffs(settings: dict[str, Any]) -> None:
    settings["format"] = "geotiff"
    settings["modalities"]["opt"].update(bands={"B8": 2, "B4": 1}, files=r"S2_(\d{8})\.tif")
    settings["modalities"]["sar"].update(bands={"VV": 1}, files=r"S1_(\d{8})_.*\.tif")


def name_images_by_words(settings: dict[str, Any]) -> None:
    geotiffs(settings)
    settings["modalities"]["sar"]["bands"] = {"VV": "vv"}


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_geotiff_folders(tmp_path: Path, write_mapping: Callable[..., str], planar: str) -> None:
    rng = np.random.default_rng(0)
    written = {}
    for month in range(1, 5):
        day = f"2021{month:02d}01"
        values = rng.integers(0, 60000, (3, 4, 5)).astype(np.uint16)
        radar = rng.normal(size=(2, 2)).astype(np.float32)
        place = tmp_path / "source" / "p"
        place.mkdir(parents=True, exist_ok=True)
        image = values if planar == "separate" else np.moveaxis(values, 0, -1).copy()
        tifffile.imwrite(
            place / f"S2_{day}.tif", image, planarconfig=planar, photometric="minisblack"
        )
        if month != 3:
            tifffile.imwrite(place / f"S1_{day}_x.tif", radar)
        written[month] = (values, radar)
    (place / "S1_20210201_x.tif").write_bytes(b"damaged")
    shards = pack_series(tmp_path / "source", tmp_path / "out", write_mapping(geotiffs))
    assert len(shards) == 2
    for index in range(2):
        sample = shards.read(index)
        for t, month in enumerate((1 + index, 3 + index)):
            assert sample.valid[t].tolist() == [True, month not in (2, 3)]
            np.testing.assert_array_equal(sample.bands["opt"][0][t], written[month][0][[1, 0]])
            if month not in (2, 3):
                np.testing.assert_array_equal(sample.bands["sar"][0][t, 0], written[month][1])
    (remark,) = shards.manifest.skipped
    assert remark.what == "p sar 2021-02-01"
    assert "S1_20210201_x.tif cannot be read" in remark.why


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(sesons=3), r"unknown setting 'sesons'; did you mean 'seasons'\?"),
        (lambda s: s.pop("format"), r"the mapping lacks the setting 'format'"),
        (lambda s: s.update(format="zarr"), r"format must be netcdf or geotiff, but got 'zarr'"),
        (lambda s: s.update(step=0), r"step must be a whole number above 0, but got 0"),
        (lambda s: s.update(min_valid=50), r"min_valid must be in \[0, 1\], but got 50"),
        (lambda s: s.update(modalities={}), r"modalities must map names to their settings"),
        (lambda s: s["modalities"]["sar"].update(unit="m"), r"unit 'm'; expected one of dn, db"),
        (lambda s: s["modalities"]["sar"].pop("gsd"), r"modality 'sar' lacks the setting 'gsd'"),
        (lambda s: s["modalities"]["sar"].update(bands=["vv"]), r"must be `band: variable` pairs"),
        (
            lambda s: s["modalities"]["sar"].update(nodata=float("nan")),
            r"leave nodata out, NaN always means not measured",
        ),
        (
            lambda s: s["modalities"]["opt"]["bands"].update(B8="B8A"),
            r"band B8 is mapped to variable B8A, which is another Sentinel-2 band",
        ),
        (
            lambda s: s["modalities"].update(s2l2a=s["modalities"]["opt"]),
            r"'s2l2a' expects the 12 bands .* but got 2: B8, B4",
        ),
        (
            lambda s: s["modalities"].update({"a/b": s["modalities"]["opt"]}),
            r"modality name 'a/b' must consist of letters, digits and underscores",
        ),
        (lambda s: s.update(format="geotiff"), r"'opt': files must be a pattern with one group"),
        (
            name_images_by_words,
            r"'sar': bands must be image band numbers from 1",
        ),
    ],
)
def test_wrong_mapping(
    cubes: Path,
    write_mapping: Callable[..., str],
    edit: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(cubes, mapping=write_mapping(edit))


def test_unknown_mapping(cubes: Path) -> None:
    with pytest.raises(
        DataError, match=r"no mapping 'x'; give a .yaml file or one of sen12ms, sen"
    ):
        open_source(cubes, mapping="x")
