"""Plain folders of images: pixels by other readers, sizes, variants of files, what is ignored."""

from __future__ import annotations

import filecmp
import json
import math
import os
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from seamo_fast import pretrain
from seamo_fast.data import ShardSet
from seamo_fast.data.packing.check import check
from seamo_fast.data.packing.leaks.together import find_together
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.shard_job import Shard
from seamo_fast.data.packing.sources import PlainOptions, Source, open_source
from seamo_fast.data.packing.sources.plain.image_file import read_image
from seamo_fast.data.packing.sources.plain.tiles import check_size, windows
from seamo_fast.data.packing.splits import Splits
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.pack import main

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")


def noise(name: object, height: int = 32, width: int = 32, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(list(str(name).encode()))
    return rng.integers(0, 256, (height, width, bands), dtype=np.uint8)


def write(path: Path, height: int = 32, width: int = 32) -> Path:
    """Noise that the name decides, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(path.name, height, width)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)
    return path


def opened(root: Path, **options: Any) -> Source:
    return open_source(root, images=PlainOptions(**options))


def tiles_of(out: Path) -> dict[str, np.ndarray]:
    shards = ShardSet(out)
    return {shards.id(n): shards.read(n).bands["rgb"][0][0] for n in range(len(shards))}


def test_nested_folders_of_any_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "photos"
    names = ["a.jpg", "forest/b.JPEG", "forest/deep/c.png", "river/d.tif", "river/e.TIFF"]
    for name in names:
        write(root / name)
    for name in (".hidden.jpg", "notes.txt", "forest/list.csv", "forest/.cache/f.jpg", "README"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    assert main([str(root), str(tmp_path / "out"), "--workers", "1", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "taking all 5 images, without labels\n" in out
    assert "ignored 4 files that are no images: 1 hidden, 1 without suffix, 1 .txt, 1 .csv" in out
    found = tiles_of(tmp_path / "out")
    assert list(found) == sorted(names, key=lambda name: (name.count("/") > 0, name))
    for name, tile in found.items():
        np.testing.assert_array_equal(tile, np.asarray(Image.open(root / name)).transpose(2, 0, 1))
    shards = ShardSet(tmp_path / "out")
    assert shards.modalities[0].mean is not None
    settings = json.loads((tmp_path / "out/shard-00000/report.json").read_text())["settings"]
    expected = {"layout": "images", "modality": "rgb", "part": "all", "size": None}
    assert expected.items() <= settings.items()
    assert main(["--check", str(root), "--workers", "1"]) == 0
    assert "5 samples of 5 items can be packed" in capsys.readouterr().out


def test_sizes_that_differ_are_refused_or_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    sides = {"a.png": (32, 32), "b.jpg": (50, 64), "c.png": (16, 90), "d.png": (70, 40)}
    for name, (height, width) in sides.items():
        write(root / name, height, width)
    assert main([str(root), str(tmp_path / "out"), "--workers", "1"]) == 2
    assert capsys.readouterr().err == (
        f"error: images of {root} differ in size: 32 x 32 (a.png), 50 x 64 (b.jpg); give --size N "
        "to cut all into tiles of N x N pixels\n"
    )
    assert main([str(root), str(tmp_path / "out"), "--size", "32", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "skipped 1: 1 mismatch" in out
    assert "c.png: 16 x 90 pixels are less than a tile of 32 x 32" in out
    expected = {"a.png": noise("a.png").transpose(2, 0, 1)}
    for name, tops, lefts in (("b.jpg", (0, 18), (0, 32)), ("d.png", (0, 32, 38), (0, 8))):
        whole = np.asarray(Image.open(root / name)).transpose(2, 0, 1)
        for top, left in product(tops, lefts):
            tile = whole[:, top : top + 32, left : left + 32]
            expected[f"{name}/y{top}x{left}"] = tile
    found = tiles_of(tmp_path / "out")
    assert list(found) == list(expected)
    for name, tile in expected.items():
        np.testing.assert_array_equal(found[name], tile)
    records = json.loads((tmp_path / "out/shard-00000/records.json").read_text())
    assert {each["place"] for each in records} == {"a.png", "b.jpg", "d.png"}


def test_a_size_that_comes_late_is_left_out(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / "photos" / f"{number:02d}.png", 32, 40 if number == 19 else 32)
    manifest = pack(opened(tmp_path / "photos"), tmp_path / "out")
    (remark,) = manifest.skipped
    assert (remark.what, remark.kind) == ("19.png", "mismatch")
    assert "uint8 [1, 3, 32, 40], but the first image that was read uint8 [1, 3, 32, 32]" in (
        remark.why
    )


@pytest.mark.parametrize(("suffix", "orientation"), [*product(("jpg", "png"), range(10))])
def test_images_are_turned_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise("a", 16, 24)).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path))).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(path, ("uint8",), expected.shape), expected)
    if 1 < orientation < 9:
        assert not np.array_equal(
            expected.ravel(), np.moveaxis(np.asarray(Image.open(path)), -1, 0).ravel()
        )


def rgba(alpha: np.ndarray) -> Callable[[Path], object]:
    pixels = np.dstack([noise("alpha"), alpha.astype(np.uint8)])
    return lambda path: path.with_suffix(".png").write_bytes(imagecodecs.png_encode(pixels))


VARIANTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "grey": (
        lambda path: Image.fromarray(noise("g")).convert("L").save(path),
        r"x.jpg has shape \[1, 32, 32\], expected \[3, any, any\]; it is grey: convert it",
    ),
    "cmyk": (
        lambda path: Image.fromarray(noise("c")).convert("CMYK").save(path),
        "x.jpg is CMYK, whose numbers are inks; save it as RGB",
    ),
    "palette": (
        lambda path: Image.fromarray(noise("p")).convert("P").save(path.with_suffix(".png")),
        "x.png has a palette, whose indices are no measurements; save it as RGB or grey",
    ),
    "16 bits": (
        lambda path: path.with_suffix(".png").write_bytes(
            imagecodecs.png_encode(noise("16").astype(np.uint16) * 257)
        ),
        "x.png has dtype uint16, expected uint8",
    ),
    "transparent": (
        rgba(np.eye(32) * 255),
        "x.png has transparent pixels, no measurements; save it without an alpha channel",
    ),
    "four bands": (
        lambda path: tifffile.imwrite(
            path.with_suffix(".tif"),
            noise("4", bands=4),
            photometric="minisblack",
            planarconfig="contig",
        ),
        r"x.tif has shape \[4, 32, 32\], expected \[3, any, any\]",
    ),
    "turned tiff": (
        lambda path: tifffile.imwrite(
            path.with_suffix(".tif"),
            noise("t"),
            photometric="rgb",
            extratags=[(274, 3, 1, 6, True)],
        ),
        r"x.tif is stored turned \(orientation 6",
    ),
    "cut short": (
        lambda path: path.write_bytes(write(path).read_bytes()[:-200]),
        "x.jpg was cut short",
    ),
    "text": (lambda path: path.write_text("no image"), "x.jpg cannot be read"),
    "black": (
        lambda path: Image.fromarray(np.zeros_like(noise("b"))).save(path),
        "bands RED, GREEN, BLUE of rgb were never filled",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_no_such_image_is_left_out_with_a_reason(name: str, tmp_path: Path) -> None:
    write_variant, message = VARIANTS[name]
    write(tmp_path / "photos/good.jpg")
    write_variant(tmp_path / "photos/x.jpg")
    manifest = pack(opened(tmp_path / "photos"), tmp_path / "out")
    assert list(tiles_of(tmp_path / "out")) == ["good.jpg"]
    with pytest.raises(DataError, match=message):
        raise DataError(manifest.skipped[0].why)
    assert manifest.skipped[0].what.startswith("x.")
    with pytest.raises(DataError, match=message):
        pack(opened(tmp_path / "photos"), tmp_path / "stop", on_bad="stop")


def test_an_opaque_alpha_channel_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rgba(np.full((32, 32), 255))(tmp_path / "photos/x.png")
    pack(opened(tmp_path / "photos"), tmp_path / "out")
    np.testing.assert_array_equal(
        tiles_of(tmp_path / "out")["x.png"], noise("alpha").transpose(2, 0, 1)
    )


def test_other_modalities(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 9000, (40, 40, 13)).astype(np.uint16)
    (tmp_path / "tiles").mkdir()
    path = tmp_path / "tiles/a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    source = opened(tmp_path / "tiles", modality="s2l1c")
    assert {grid.gsd for grid in source.modalities[0].grids} == {10}
    pack(source, tmp_path / "out")
    (grid,) = ShardSet(tmp_path / "out").read(0).bands["s2l1c"]
    np.testing.assert_array_equal(grid[0], pixels.transpose(2, 0, 1))
    with pytest.raises(
        DataError, match=r"no image that can be packed as rgb \(3 bands\): a.tif has"
    ):
        opened(tmp_path / "tiles")
    with pytest.raises(ConfigError, match="unknown modality 'rbg'; did you mean 'rgb'"):
        opened(tmp_path / "tiles", modality="rbg")


def test_where_a_geotiff_lies_is_kept(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 3, "dtype": "uint8"}
    transform = rasterio.transform.from_origin(600000, 5400000, 10, 10)
    (tmp_path / "tiles").mkdir()
    with rasterio.open(
        tmp_path / "tiles/a.tif", "w", crs="EPSG:32632", transform=transform, **profile
    ) as f:
        f.write(noise("a", 64, 64).transpose(2, 0, 1))
    source = opened(tmp_path / "tiles", size=32)
    readings = list(source.read("a.tif"))
    assert len(readings) == 4
    x, y = readings[0].position or (0, 0)
    from_rasterio = pytest.importorskip("rasterio.warp").transform(
        "EPSG:32632", "EPSG:4326", [600320], [5399680]
    )
    assert (x, y) == pytest.approx([each[0] for each in from_rasterio], abs=1e-6)
    grounds = list(source.scan("a.tif"))
    assert all(each.footprint is not None for each in grounds)
    assert len({prints for each in grounds for prints in each.prints}) == 4


def test_parts_by_folders(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("train/cats/a.png", "train/b.png", "valid/c.png", "test/dogs/d.png", "e.png"):
        write(root / name)
    assert opened(root).items() == ["train/b.png", "train/cats/a.png"]
    assert opened(root).remarks == ("taking the 2 images of part 'train' (of 5), without labels",)
    assert opened(root, part="val").items() == ["valid/c.png"]
    source = opened(root, part="all")
    assert len(source.items()) == 5
    assert source.remarks == ("taking all 5 images, without labels, of the test part too",)
    (root / "valid/c.png").unlink()
    with pytest.raises(ConfigError, match="no images in 'val'; its folders of parts: test, train"):
        opened(root, part="val")


def test_images_of_the_same_pixels_are_in_one_split(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "photos" / f"{number}.png", 64, 64)
    copy = np.zeros((70, 70, 3), np.uint8) + noise("other", 70, 70)
    copy[:32, :32] = noise("0.png", 64, 64)[:32, :32]
    Image.fromarray(copy).save(tmp_path / "photos/copy.png")
    splits = Splits((0.5, 0.5))
    together = find_together(opened(tmp_path / "photos", size=32), splits)
    (remark,) = together.remarks
    assert remark.kind == "content"
    assert remark.what == "0.png and copy.png"


def test_an_interrupted_pack_resumes(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(9):
        write(root / f"{number}.png", 40, 40)
    pack(opened(root, size=16), tmp_path / "whole", shard_size=2)
    packed: list[Shard] = []

    def stop(shard: Shard) -> None:
        packed.append(shard)
        if len(packed) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(opened(root, size=16), tmp_path / "out", shard_size=2, progress=stop)
    kept = []
    pack(
        opened(root, size=16),
        tmp_path / "out",
        shard_size=2,
        progress=lambda s: kept.append(s.kept),
    )
    assert kept == [True, True, True, False, False]
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
            assert filecmp.cmp(path, other, shallow=False), path
    os.utime(root / "0.png", ns=(0, 10**18))
    with pytest.raises(DataError, match=r"1 of its 2 items have changed: 0\.png was"):
        pack(opened(root, size=16), tmp_path / "out", shard_size=2)
    with pytest.raises(DataError, match="with other settings"):
        pack(opened(root, size=20), tmp_path / "out", shard_size=2)


@pytest.mark.slow
def test_processes_give_the_same(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / "photos" / f"{number}.png", 40, 40)
    source = opened(tmp_path / "photos", size=16)
    one = pack(source, tmp_path / "one", shard_size=2)
    assert pack(source, tmp_path / "two", shard_size=2, workers=2).shards == one.shards


def test_files_that_come_later_are_seen(tmp_path: Path) -> None:
    write(tmp_path / "photos/a.png")
    assert opened(tmp_path / "photos").items() == ["a.png"]
    write(tmp_path / "photos/b.png")
    assert opened(tmp_path / "photos").items() == ["a.png", "b.png"]
    write(tmp_path / "photos/B.png")
    assert check(opened(tmp_path / "photos")).samples == 1


def test_what_plain_images_do_not_take(tmp_path: Path) -> None:
    write(tmp_path / "photos/a.png")
    for options in ({"seasons": 2}, {"modalities": ["rgb"]}):
        with pytest.raises(ConfigError, match="plain images have one modality"):
            open_source(tmp_path / "photos", **options)
    with pytest.raises(ConfigError, match="layout series takes no size; leave --size out"):
        open_source(tmp_path / "photos", "series", images=PlainOptions(size=8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is empty; looked for .* images: images"):
        open_source(tmp_path / "empty")
    with pytest.raises(DataError, match="holds no images; looked for"):
        open_source(tmp_path / "empty", "images")


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_every_pixel_that_all_grids_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    modality = [get_modality("s2l2a"), get_modality("landsat89"), get_modality("rgb")][seed % 3]
    steps = [round(grid.gsd / modality.grids[0].gsd) for grid in modality.grids]
    least = math.lcm(*steps)
    size = least * int(rng.integers(1, 5))
    height, width = (size + rng.integers(0, 40, 2)).tolist()
    shapes = {modality.name: [(height // step, width // step) for step in steps]}
    found = windows([modality], shapes, size)
    rows, columns = (min(side // step * step for step in steps) for side in (height, width))
    covered = np.zeros((rows, columns), int)
    for window in found:
        assert window.top % least == window.left % least == 0
        part = covered[window.top : window.top + size, window.left : window.left + size]
        assert part.shape == (size, size)
        part += 1
    assert (covered[: rows // least * least, : columns // least * least] > 0).all()
    whole = [side // least * least for side in (rows, columns)]
    assert len(found) == len(set(found)) == math.prod(math.ceil(side / size) for side in whole)


def test_sizes_fit_every_grid() -> None:
    with pytest.raises(ConfigError, match="a multiple of 6 pixels of the finest grid, but got 64"):
        check_size(64, [get_modality("s2l2a")])
    check_size(66, [get_modality("s2l2a")])
    odd = Modality("odd", (Band("A", 10), Band("B", 15)), "dn")
    with pytest.raises(ConfigError, match="grids of odd do not nest"):
        check_size(6, [odd])


def test_a_mapping_makes_series_of_pictures(tmp_path: Path) -> None:
    for place, day, suffix in product("ab", ("20200301", "20200715"), ("jpg", "png")):
        write(tmp_path / "photos" / f"{place}_{suffix}_{day}.{suffix.upper()}")
    bands = {"RED": 1, "GREEN": 2, "BLUE": 3}
    pattern = r"(?P<place>\w+)_(?P<date>\d{8})\.(jpg|png)"
    mapping = {
        "name": "photos",
        "format": "geotiff",
        "pairing": "seasons",
        "seasons": 2,
        "modalities": {"rgb": {"like": "rgb", "gsd": 10, "bands": bands, "files": pattern}},
    }
    (tmp_path / "mapping.yaml").write_text(json.dumps(mapping))
    (tmp_path / "photos/b_png_20200715.PNG").write_bytes(b"no image")
    source = open_source(tmp_path / "photos", mapping=str(tmp_path / "mapping.yaml"))
    manifest = pack(source, tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert {shards.id(number) for number in range(4)} == {"a_jpg", "a_png", "b_jpg", "b_png"}
    for number in range(4):
        sample = shards.read(number)
        assert sample.dates[0, 0] == (date(2020, 3, 1) - date(1970, 1, 1)).days
        for t, day in enumerate(("20200301", "20200715")):
            id = shards.id(number)
            path = next((tmp_path / "photos").glob(f"{id}_{day}.*"))
            assert sample.valid[t, 0] == ((id, t) != ("b_png", 1))
            if sample.valid[t, 0]:
                expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
                np.testing.assert_array_equal(sample.bands["rgb"][0][t], expected)
    (remark,) = manifest.skipped
    assert (remark.what, remark.kind) == ("b_png rgb 2020-07-15", "unreadable")
    assert "it is no PNG" in remark.why


def test_pretraining_on_the_result(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "photos" / f"{number}.jpg", 40, 70)
    given = [str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "32", "--workers", "1"]
    assert main(given) == 0
    model = {"width": 32, "depth": 1, "heads": 2, "image_size": 32, "patch_size": 8}
    decoder = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 1}
    settings = {
        "data.path": tmp_path / "out",
        "data.batch_size": 4,
        "run.folder": tmp_path / "run",
        "run.steps_per_stage": 1,
        "model": json.dumps({**model, **decoder}),
    }
    given = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    assert pretrain.main(given) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line).get("loss") for line in lines]
    assert any(loss is not None and math.isfinite(loss) for loss in losses)
