"""SSL4EO-S12 v1.0 folders: real tiles equal an independent reader, bad ones are named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality
from seamo_fast.model.embedding import PatchEmbed

WriteTile = Callable[..., Path]
FOLDERS = {"s2l2a": "s2a", "s2l1c": "s2c", "s1grd": "s1"}


def pack_folder(
    source: Path, out: Path, modalities: Sequence[str] | None = None, on_bad: str = "skip"
) -> ShardSet:
    opened = open_source(source, modalities=modalities)
    pack(opened, out, on_bad="stop" if on_bad == "stop" else "skip")
    return ShardSet(out)


@pytest.mark.parametrize("modalities", [["s2l2a", "s1grd"], ["s1grd", "s2l1c"]])
def test_real_location_equals_rasterio(
    data_dir: Path, tmp_path: Path, modalities: list[str]
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the independent reader is rasterio")
    source = data_dir / "ssl4eo_s12_v1"
    shards = pack_folder(source, tmp_path / "out", modalities)
    assert len(shards) == 1
    assert [modality.name for modality in shards.modalities] == modalities
    sample = shards.read(0)
    assert sample.valid.tolist() == [[True, True]] * 2 + [[False, False]] * 2
    for m, name in enumerate(modalities):
        modality = get_modality(name)
        assert shards.modalities[m] == modality
        folders = list((source / FOLDERS[name] / "0000200").iterdir())
        stamp = 4 if name == "s1grd" else 0
        folders.sort(key=lambda folder: folder.name.split("_")[stamp])
        for t, folder in enumerate(folders):
            day = date.fromisoformat(folder.name.split("_")[stamp][:8])
            assert sample.dates[t, m] == (day - date(1970, 1, 1)).days
            for grid, stored in zip(modality.grids, sample.bands[name], strict=True):
                for position, channel in enumerate(grid.bands):
                    file = folder / f"{modality.band_names[channel]}.tif"
                    with rasterio.open(file) as image:
                        expected = image.read(1)
                    assert stored[t, position].dtype == expected.dtype
                    assert stored[t, position].tobytes() == expected.tobytes()


@pytest.fixture
def folder(tmp_path: Path, write_tile: WriteTile) -> Path:
    """One location with two dates of both optical levels and one of radar."""
    root = tmp_path / "source"
    for name, days in {
        "s2l2a": ("20200604", "20200813"),
        "s2l1c": ("20200604", "20200823"),
        "s1grd": ("20200903",),
    }.items():
        for day in days:
            write_tile(root, name, "0000200", day)
    return root


def test_made_location_is_paired_by_season(folder: Path, tmp_path: Path) -> None:
    shards = pack_folder(folder, tmp_path / "out")
    assert [modality.name for modality in shards.modalities] == ["s2l2a", "s1grd"]
    sample = shards.read(0)
    assert sample.valid.tolist() == [[True, False], [True, True], [False, False], [False, False]]
    assert (sample.dates[1] - sample.dates[0, 0]).tolist() == [70, 91]
    written = tifffile.imread(next(folder.glob("s1/*/*/VH.tif")))
    assert sample.bands["s1grd"][0][1, 1].tobytes() == written.tobytes()
    assert shards.manifest.skipped == ()


def test_zeros_of_one_band_are_values(tmp_path: Path, write_tile: WriteTile) -> None:
    arrays = {
        band.name: np.full((round(2640 / band.gsd),) * 2, 7, np.uint16)
        for band in get_modality("s2l1c").bands
    }
    for values in arrays.values():
        values[: len(values) // 4] = 9
        values[: len(values) // 11] = 0  # beside the swath; 4 rows of 44
    arrays["B10"][4:15, 4] = 0
    write_tile(tmp_path / "source", "s2l1c", "0000200", "20200604", arrays)
    shards = pack_folder(tmp_path / "source", tmp_path / "out")
    (modality,) = shards.modalities
    assert modality.nodata_rule == "pixel"
    sample = shards.read(0)
    statistics = BandStatistics(13)
    statistics.add(modality, sample.bands["s2l1c"], sample.valid[:, 0])
    b10, b9 = (modality.band_names.index(name) for name in ("B10", "B9"))
    assert statistics.count[b9] == statistics.count[b10] == 44 * 40
    assert statistics.mean[b9] == pytest.approx((9 * 7 + 7 * 33) / 40)
    assert statistics.mean[b10] == pytest.approx((9 * (7 * 44 - 7) + 7 * (33 * 44 - 4)) / 40 / 44)
    embed = PatchEmbed(modality, 8, 16)
    grids = [torch.from_numpy(grid.copy())[None] for grid in sample.bands["s2l1c"]]
    index = torch.arange(33 * 33).expand(1, len(grids[0][0]), -1)
    box = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(*index.shape[:2], 4)
    _, valid = embed.gather(grids, box, index, 264)
    lost = ~valid[0, int(sample.valid[:, 0].argmax())].view(33, 33)
    assert lost[:3].all()
    # rows up to 24 + 3 take a part of the last lost row of 60 m
    assert not lost[4:].any()


def test_manifests_without_a_rule_of_nodata_behave_as_before(folder: Path, tmp_path: Path) -> None:
    shards = pack_folder(folder, tmp_path / "out")
    assert shards.modalities[0].nodata_rule == "pixel"
    manifest = tmp_path / "out" / "manifest.json"
    data = json.loads(manifest.read_text())
    assert [each.pop("nodata_rule", None) for each in data["modalities"]] == ["pixel", None]
    manifest.write_text(json.dumps(data))
    old = ShardSet(tmp_path / "out")
    assert [modality.nodata_rule for modality in old.modalities] == ["band", "band"]
    assert not PatchEmbed(old.modalities[0], 8, 16).whole_pixel


def test_level_1c_is_taken_where_there_is_no_level_2a(folder: Path, tmp_path: Path) -> None:
    (folder / "s2a").rename(tmp_path / "away")
    names = [modality.name for modality in open_source(folder).modalities]
    assert names == ["s2l1c", "s1grd"]


def test_absent_modality(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"SSL4EO-S12 has no modality 'rgb'; expected some of s2l2a"
    ):
        open_source(folder, modalities=["rgb"])
    (folder / "s1").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"source has no folder s1 for modality 's1grd'"):
        open_source(folder, modalities=["s2l2a", "s1grd"])


def half(tile: Path) -> None:
    data = (tile / "B8.tif").read_bytes()
    (tile / "B8.tif").write_bytes(data[: len(data) // 2])


def rewrite(tile: Path, **bands: np.ndarray) -> None:
    for name, values in bands.items():
        tifffile.imwrite(tile / f"{name}.tif", values, planarconfig="separate")


def blank(tile: Path) -> None:
    for file in tile.glob("*.tif"):
        rewrite(tile, **{file.stem: np.zeros_like(tifffile.imread(file))})


BAD_TILES = {
    "unreadable": (half, r"B8.tif cannot be read \(ValueError"),
    "not a tiff": (
        lambda tile: (tile / "B8.tif").write_text("nothing"),
        r"B8.tif cannot be read \(TiffFileError",
    ),
    "missing band": (
        lambda tile: (tile / "B8.tif").unlink(),
        r"expected the 12 bands B1, .* missing: B8; unknown: none",
    ),
    "B8A in the place of B8": (
        lambda tile: (tile / "B8.tif").rename(tile / "b8a.tif"),
        r"band B8A comes twice: B8A.tif, b8a.tif",
    ),
    "unknown band": (
        lambda tile: rewrite(tile, B10=np.ones((44, 44), np.uint16)),
        r"missing: none; unknown: B10",
    ),
    "unknown bands in one order": (
        lambda tile: rewrite(
            tile, **{f"B{n}": np.ones((44, 44), np.uint16) for n in (29, 24, 28, 22, 26, 20)}
        ),
        r"unknown: B20, B22, B24, B26, B28, B29",
    ),
    "wrong shape": (
        lambda tile: rewrite(tile, B8=np.ones((132, 132), np.uint16)),
        r"B8.tif has shape \[132, 132\], expected \[264, 264\]",
    ),
    "two images": (
        lambda tile: rewrite(tile, B8=np.ones((2, 264, 264), np.uint16)),
        r"B8.tif has shape \[2, 264, 264\], expected \[264, 264\]",
    ),
    "wrong dtype": (
        lambda tile: rewrite(tile, B8=np.ones((264, 264), np.float32)),
        r"B8.tif has dtype float32, expected uint16",
    ),
    "all nodata": (blank, r"every pixel is nodata \(0 or NaN in all bands\)"),
}


@pytest.mark.parametrize("kind", list(BAD_TILES))
def test_bad_tile_is_an_invalid_group_and_counted(folder: Path, tmp_path: Path, kind: str) -> None:
    spoil, message = BAD_TILES[kind]
    spoil(next(folder.glob("s2a/*/20200813*")))
    shards = pack_folder(folder, tmp_path / "out")
    sample = shards.read(0)
    assert sample.valid[:2].tolist() == [[True, False], [False, True]]
    assert all(not grid[1].any() for grid in sample.bands["s2l2a"])
    (remark,) = shards.manifest.skipped
    assert remark.what == "s2a/0000200/20200813T054639_T43RCP"
    with pytest.raises(DataError, match=rf"^s2a/0000200/20200813T054639_T43RCP: .*{message}"):
        pack_folder(folder, tmp_path / "stopped", on_bad="stop")
    assert not (tmp_path / "stopped").exists()
    assert re.search(message, remark.why)


def test_missing_band_file_and_a_band_under_another_name(folder: Path, tmp_path: Path) -> None:
    tile = next(folder.glob("s2c/*/20200823*"))
    (tile / "B8.tif").rename(tile / "B08A.tif")
    shards = pack_folder(folder, tmp_path / "out", ["s2l1c"])
    assert "missing: B8; unknown: B08A" in shards.manifest.skipped[0].why
    (tile / "B08A.tif").rename(tile / "B08.tif")
    assert pack_folder(folder, tmp_path / "again", ["s2l1c"]).read(0).valid[:2].all()


def test_some_nan_pixels_are_kept_and_counted(folder: Path, tmp_path: Path) -> None:
    file = next(folder.glob("s1/*/*/VV.tif"))
    values = tifffile.imread(file)
    values[3:5, 7] = np.nan
    values[9, 9] = -np.inf
    rewrite(file.parent, VV=values)
    shards = pack_folder(folder, tmp_path / "out")
    assert shards.read(0).bands["s1grd"][0][1, 0].tobytes() == values.tobytes()
    assert shards.read(0).valid[1, 1]
    assert [remark.why for remark in shards.manifest.noted] == ["3 values are NaN or infinite"]


def test_all_nan_radar_is_an_invalid_group(folder: Path, tmp_path: Path) -> None:
    tile = next(folder.glob("s1/*/*"))
    rewrite(tile, VV=np.full((264, 264), np.nan, np.float32), VH=np.zeros((264, 264), np.float32))
    shards = pack_folder(folder, tmp_path / "out")
    assert not shards.read(0).valid[:, 1].any()
    assert "every pixel is nodata" in shards.manifest.skipped[0].why


def test_location_without_any_tile_is_skipped(
    folder: Path, tmp_path: Path, write_tile: WriteTile
) -> None:
    (folder / "s2a" / "0000300").mkdir()
    blank(write_tile(folder, "s1grd", "0000100", "20200101"))
    (folder / "s2a" / "0000200" / "undated").mkdir()
    shards = pack_folder(folder, tmp_path / "out")
    assert len(shards) == 1
    assert [tuple(remark) for remark in shards.manifest.skipped] == [
        (
            "s1/0000100/S1A_IW_GRDH_1SDV_20200101T010800",
            "every pixel is nodata (0 or NaN in all bands)",
            "unmeasured",
        ),
        ("0000100", "no tile of it can be used", "unusable"),
        ("s2a/0000200/undated", "the folder name has no date YYYYMMDDTHHMMSS", "date"),
        ("0000300", "no tile of it can be used", "unusable"),
    ]


def test_all_locations_bad(tmp_path: Path) -> None:
    (tmp_path / "source" / "s2a" / "0000300").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no sample of ssl4eo-v1.0: source could be packed"):
        pack_folder(tmp_path / "source", tmp_path / "out")
