"""Statistics: exact in one pass, and what contradicts the modality is flagged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.data.checks.measure import measure
from seamo_fast.data.checks.suspicions import suspicions
from seamo_fast.data.shards.manifest import Remark
from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.stats import main

RNG = np.random.default_rng(0)


def profile(modality: Modality, values: np.ndarray, parts: int = 1) -> BandProfile:
    """Values [T, C, H, W] on one grid, in so many parts."""
    total = BandProfile(len(modality.bands))
    for part in np.array_split(values, parts):
        one = BandProfile(len(modality.bands))
        one.add(modality, [part], np.ones(len(part), bool))
        total.merge(one)
    return total


def optical(name: str = "s2l1c", release: str = "ssl4eo-s12-v1.0") -> Modality:
    return get_modality(name, release).on_one_grid(10)


def digital(modality: Modality, tiles: int = 3) -> np.ndarray:
    """Values that look like the modality's: normal around its mean, cut off above the offset."""
    assert modality.mean is not None
    assert modality.std is not None
    shape = (tiles, 1, 64, 64)
    bands = [
        RNG.normal(mean, std / 3, shape).clip(modality.offset + 1)
        for mean, std in zip(modality.mean, modality.std, strict=True)
    ]
    return np.concatenate(bands, axis=1).astype(np.uint16)


@pytest.mark.parametrize("parts", [1, 3])
def test_profile_equals_numpy(parts: int) -> None:
    modality = Modality("x", (Band("A", 10), Band("B", 10)), "dn", nodata=0)
    values = RNG.integers(-30000, 30000, (5, 2, 9, 9)).astype(np.int16)
    values[:, :, :2] = 0
    found = profile(modality, values, parts)
    for channel, band in enumerate(found.to_dict(modality).values()):
        kept = values[:, channel][values[:, channel] != 0].astype(float)
        assert band["count"] == kept.size
        assert band["mean"] == pytest.approx(kept.mean(), rel=1e-12)
        assert band["std"] == pytest.approx(kept.std(), rel=1e-12)
        assert (band["minimum"], band["maximum"]) == (kept.min(), kept.max())
        assert band["p1"] == np.percentile(kept, 1, method="inverted_cdf")
        assert band["p99"] == np.percentile(kept, 99, method="inverted_cdf")
        assert band["unmeasured"] == pytest.approx(1 - kept.size / values[:, channel].size)


def test_floats_have_no_percentiles_and_nan_is_unmeasured() -> None:
    radar = get_modality("s1grd")
    values = RNG.normal(-15, 3, (2, 2, 8, 8)).astype(np.float32)
    values[0, 1, 0, 0] = np.nan
    found = profile(radar, values)
    assert found.percentile(1) is None
    assert found.unmeasured.tolist() == [0, 1]
    assert suspicions(radar, found) == []


V10, V11 = optical(), optical(release="ssl4eo-s12-v1.1")
L2A = optical("s2l2a")
RADAR = get_modality("s1grd")
LIKE = digital(V10)
GOOD = RNG.normal(-15, 3, (2, 2, 32, 32)).astype(np.float32)
REFLECTANCE = Modality("r", (Band("A", 10),), "reflectance")


@pytest.mark.parametrize(
    ("modality", "values", "flag"),
    [
        (V10, LIKE, None),
        (V11, LIKE + 1000, None),
        (V10, LIKE + 1000, "1000 seems to have been added"),
        (V11, LIKE, "1000 seems not to have been added"),
        (L2A, digital(L2A) + 1000, "1000 seems to have been added"),
        (V11, np.concatenate([LIKE, LIKE + 1000]), "3 tiles have .1000 added and 3 have not"),
        (V10, (LIKE / 10000).astype(np.float32), "look like reflectance: give unit reflectance"),
        (REFLECTANCE, LIKE[:, 3:4], "look like digital numbers: give unit dn"),
        (REFLECTANCE, (LIKE[:, 3:4] / 1e4).astype(np.float32), None),
        (RADAR, GOOD, None),
        (RADAR, (10 ** (GOOD / 10)).astype(np.float32), "look like linear backscatter"),
        (RADAR, LIKE[:, :2], "look like digital numbers or amplitudes"),
        (RADAR, np.where(GOOD < -20, -9999, GOOD), "is a nodata value missing"),
        (replace(RADAR, unit="dn"), GOOD, "look like decibels"),
        (V10, LIKE * 3, r"means differ from those of release 'ssl4eo-s12-v1.0'.*B1 by \+4"),
        (V10, np.zeros_like(LIKE), "no pixel is measured"),
    ],
)
def test_flags(modality: Modality, values: np.ndarray, flag: str | None) -> None:
    found = suspicions(modality, profile(modality, values))
    if flag is None:
        assert found == []
    else:
        assert any(re.search(flag, each) for each in found), found


def test_real_terramesh_tile_without_the_offset_is_found(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data_dir / "terramesh"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("flag: 2 tiles have +1000 added and 1 have not (by band B10)" in x for x in lines)
    assert main([str(data_dir / "ssl4eo_s12_v1"), "--workers", "1"]) == 0
    assert "flag" not in capsys.readouterr().out


def test_shards_get_the_result(
    write_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shards()
    before = ShardSet(path).manifest
    assert main([str(path), "--workers", "1"]) == 0
    after = ShardSet(path).manifest
    assert "written to" in capsys.readouterr().out
    assert after.modalities == before.modalities
    for modality in before.modalities:
        found = after.statistics[modality.name]
        stored = [ShardSet(path).read(n) for n in range(10)]
        column = before.modalities.index(modality)
        for channel, name in enumerate(modality.band_names):
            g = next(g for g, grid in enumerate(modality.grids) if channel in grid.bands)
            position = modality.grids[g].bands.index(channel)
            parts = [
                each.bands[modality.name][g][each.valid[:, column], position].reshape(-1)
                for each in stored
            ]
            values = np.concatenate(parts).astype(float)
            assert found[name]["mean"] == pytest.approx(values.mean(), rel=1e-12)
            assert found[name]["count"] == values.size
    flags = [each.what for each in after.noted]
    assert main([str(path), "--workers", "1", "--normalize"]) == 0
    again = ShardSet(path).manifest
    assert [each.what for each in again.noted] == flags
    statistics = again.statistics["s1grd"]
    assert again.modalities[1].mean == tuple(band["mean"] for band in statistics.values())
    assert json.loads((path / "manifest.json").read_text())["statistics"] == again.statistics


def test_damaged_record_is_counted(
    write_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shards()
    file = path / "shard-00001" / "s1grd_10m.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main([str(path), "--workers", "1"]) == 0
    assert "1 tiles or samples cannot be read; the first: sample 7:" in capsys.readouterr().out


def test_result_does_not_depend_on_the_workers(write_shards: Callable[..., Path]) -> None:
    shards = ShardSet(write_shards(70))
    one, _ = measure(shards)
    two, _ = measure(shards, workers=2)
    for modality in shards.modalities:
        assert one[modality.name].to_dict(modality) == two[modality.name].to_dict(modality)


def test_user_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path), "--normalize"]) == 2
    assert "normalize needs a shard set" in capsys.readouterr().err


def test_every_sample_of_a_large_set_is_measured(write_shards: Callable[..., Path]) -> None:
    shards = ShardSet(write_shards(130))  # more than two jobs
    found, bad = measure(shards)
    assert not bad
    for column, modality in enumerate(shards.modalities):
        samples = [shards.read(number) for number in range(130)]
        bands = found[modality.name].to_dict(modality)
        for grid, place in ((g, p) for g in range(len(modality.grids)) for p in (0, -1)):
            values = np.concatenate(
                [each.bands[modality.name][grid][each.valid[:, column], place] for each in samples]
            )
            band = bands[modality.band_names[modality.grids[grid].bands[place]]]
            assert band["count"] == values.size
            assert band["mean"] == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)


def test_flags_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    linear = np.linspace(0.01, 0.5, 2 * 64, dtype=np.float32).reshape(1, 2, 8, 8)
    writer = ShardWriter(tmp_path, [RADAR], 1)
    writer.add("x", {"s1grd": [linear]}, {"s1grd": [None]}, {"s1grd": [True]})
    manifest = writer.finish()
    other = Remark("place-3", "no date")
    replace(manifest, noted=(other,)).save(tmp_path)
    for _ in range(2):
        assert main([str(tmp_path), "--workers", "1"]) == 0
        noted = ShardSet(tmp_path).manifest.noted
        assert [each.what for each in noted] == ["place-3", "statistics of s1grd"]
        assert noted[0] == other
        assert "look like linear backscatter" in noted[1].why
