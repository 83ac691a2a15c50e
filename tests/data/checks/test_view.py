"""The contact sheet shows the stored values, of shards and of what can be packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seamo_fast import pictures, view
from seamo_fast.data import ShardSet
from seamo_fast.data.checks import contact_sheet
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.modalities import Band, Modality, get_modality


def test_sheet_of_shards(
    write_shards: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert view.main([str(write_shards()), f"--out={out}", "--numbers=[1,5]"]) == 0
    assert "place-1, place-5" in capsys.readouterr().out
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_dates_bands_statistics_and_missing_groups_are_written(
    write_shards: Callable[..., Path],
) -> None:
    shards = ShardSet(write_shards())
    figure = contact_sheet.draw(
        shards.modalities, list(contact_sheet.stored_samples(shards, [1, 5])), "title"
    )
    rows = np.array(figure.axes).reshape(4, 3)
    assert all(not len(axis.get_xticks()) + len(axis.get_yticks()) for axis in figure.axes)
    assert [axis.get_title() for axis in rows[0]] == ["2020-01-02", "", "2020-07-02"]
    assert [axis.get_title() for axis in rows[1]] == ["2020-01-06", "2020-04-06", "date unknown"]
    assert [text.get_text() for text in rows[0, 1].texts] == ["missing"]
    assert [len(axis.texts) for axis in rows[3]] == [1, 1, 1]  # sample 5 has no radar
    for word in ("place-1", "optic", "dn", "A B C"):
        assert word in rows[0, 0].get_ylabel()
    sample = shards.read(1)
    total = np.concatenate([grid[0].reshape(-1) for grid in sample.bands["s1grd"]])
    assert f"std {total.reshape(2, -1).std(axis=1).max():.1f}"[:6] in rows[1, 0].get_xlabel()


def test_composite_repeats_coarse_bands_and_marks_nodata() -> None:
    modality = Modality(
        "m", (Band("A", 10), Band("B", 20)), "dn", nodata=0, composite=("B", "A", "A")
    )
    fine = np.arange(16, dtype=np.uint16).reshape(1, 4, 4)
    coarse = np.array([[[1, 2], [3, 0]]], np.uint16)
    image = contact_sheet.composite(modality, [fine, coarse])
    assert image.shape == (4, 4, 3)
    np.testing.assert_array_equal(image[:2, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2]])
    assert np.isnan(image[2:, 2:, 0]).all()
    assert np.isnan(image[0, 0, 1])
    np.testing.assert_array_equal(image[..., 1].reshape(-1)[1:], fine.reshape(-1)[1:])
    shown = pictures.stretched(image, *pictures.limits(modality, [image]))
    assert (shown[3, 3] == pictures.NODATA).all()
    radar = get_modality("s1grd")
    values = np.random.default_rng(0).normal(-12, 3, (2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        contact_sheet.composite(radar, [values])[..., 2], values[0] - values[1]
    )


def test_facts_are_those_of_the_statistics() -> None:
    modality = get_modality("s1grd")
    values = np.random.default_rng(0).normal(-12, 3, (2, 4, 4)).astype(np.float32)
    values[0, 0, :2] = np.nan
    statistics = BandStatistics(2)
    statistics.add(modality, [values[None]], np.array([True]))
    text = contact_sheet.facts(modality, [values])
    assert text.startswith("nodata 6.2 %, mean ")
    for mean in statistics.mean:
        assert f"{mean:.4g}" in text
    assert contact_sheet.facts(modality, [np.full((2, 4, 4), np.nan, np.float32)]) == "nodata 100 %"


def test_a_source_that_pack_reads(write_tile: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("s2l2a", "s1grd"):
        for day in ("20200105", "20200405", "20200705", "20201005"):
            write_tile(tmp_path / "source", name, "0000001", day)
    out = tmp_path / "sheet.png"
    assert view.main([str(tmp_path / "source"), f"--out={out}", "--samples=1"]) == 0
    with Image.open(out) as image:
        assert image.width > 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--numbers=[10]"], "has the samples 0 to 9, not 10"),
        (["--samples=0"], "samples must be at least 1, but got 0"),
        (["--modalities=[s2l2a]"], "has no modality 's2l2a'; it holds optic, s1grd"),
        (["--out=/nowhere/at/all.png"], "cannot write /nowhere/at/all.png"),
    ],
)
def test_failures_are_one_line(
    write_shards: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert view.main([str(write_shards()), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_pictures_that_cannot_be_written(
    write_shards: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view.main([str(write_shards()), f"--out={tmp_path / 'v.xyz'}"]) == 2
    assert "out must end in one of .png, " in capsys.readouterr().err


def test_pictures_without_a_name_do_not_overwrite_one_another(
    write_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shards()
    monkeypatch.chdir(tmp_path)
    found = []
    for number in range(3):
        assert view.main([str(path), f"--numbers=[{number}]"]) == 0
        found = sorted(each.name for each in tmp_path.glob("view*"))
    assert found == ["view-2.png", "view-3.png", "view.png"]
    assert len({(tmp_path / name).read_bytes() for name in found}) == 3
    before = (tmp_path / "view.png").read_bytes()
    assert view.main([str(path), "--numbers=[3]", "--out=view.png"]) == 0  # as it is asked for
    assert (tmp_path / "view.png").read_bytes() != before
