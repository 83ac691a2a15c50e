"""Labelled datasets as sources of packing: their stored pixels, their training part, no labels."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.data.demo.labels import pair_shards
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import PlainOptions
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.pack import main
from seamo_fast.tasks import unlabelled
from seamo_fast.tasks.datasets.open import DATASETS, DatasetOptions, open_dataset, open_items
from seamo_fast.tasks.unlabelled import Unlabelled, labelled_name, open_labelled
from tests.eurosat import make_eurosat
from tests.tasks.datasets.layouts import (
    PATCHES,
    PATCHES_V2,
    PREFIX,
    S2_L1C,
    S2_L2A,
    TWENTY,
    values,
    write_sen1floods11,
    write_so2sat,
    write_worldcereal,
)
from tests.tasks.datasets.test_open import WRITERS

Images = dict[str, list[np.ndarray]]  # of a modality its grids [T, Cg, Hg, Wg]
TEN = ("B02", "B03", "B04", "B08")
SIXTY = ("B01", "B09", "B10")


def labelled(root: Path, *given: Any) -> Unlabelled:
    source = open_labelled(root, *given)
    assert source is not None
    return source


def tiff(path: Path) -> np.ndarray:
    """[1, C, H, W] of a file of any planar configuration."""
    with tifffile.TiffFile(path) as file:
        image, axes = file.asarray(), file.pages.first.axes
    image = np.moveaxis(image, -1, 0) if axes == "YXS" else image
    return (image if image.ndim == 3 else image[None])[None]


def picture(path: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image").open(path)
    return np.moveaxis(np.asarray(image), -1, 0)[None]


def bands(pattern: str, *codes: str) -> np.ndarray:
    return np.concatenate([tiff(Path(pattern.format(code))) for code in codes], 1)


def sentinel2(pattern: str, every: tuple[str, ...]) -> list[np.ndarray]:
    kept = ([code for code in every if code in codes] for codes in (TEN, TWENTY, SIXTY))
    return [bands(pattern, *codes) for codes in kept]


def of_pair(root: Path, id: str, folders: tuple[str, str], radar: str) -> Images:
    optical, other = (
        next(root.glob(f"{each}/**/{n}")) for each, n in zip(folders, (id, radar), strict=True)
    )
    return {
        "s2l2a": sentinel2(f"{optical}/{id}_{{}}.tif", S2_L2A),
        "s1grd": [bands(f"{other}/{radar}_{{}}.tif", "VV", "VH")],
    }


def of_triplet(root: Path, id: str) -> Images:
    (path,) = root.glob(f"*/s2_*/{id}.tif")
    radar = path.parent.parent / path.parent.name.replace("s2_", "s1_")
    return {"s2l1c": [tiff(path)], "s1grd": [tiff(radar / path.name.replace("_s2_", "_s1_"))]}


def of_flood(root: Path, id: str) -> Images:
    folder = root / "v1.1/data/flood_events/HandLabeled"
    files = {"s2l1c": "S2Hand", "s1grd": "S1Hand"}
    return {name: [tiff(folder / kind / f"{id}_{kind}.tif")] for name, kind in files.items()}


def of_city(root: Path, id: str) -> Images:
    folder = root / f"{PREFIX}Images" / id
    stems = ("S2A_OPER_MSI_L1C_TL__20200101T000000_T31", "T31_20200101")
    dates = [
        sentinel2(f"{folder}/imgs_{n}/{stem}_{{}}.tif", S2_L1C) for n, stem in enumerate(stems, 1)
    ]
    return {"s2l1c": [np.concatenate(pair) for pair in zip(*dates, strict=True)]}


def of_patch(root: Path, id: str) -> Images:
    import h5py

    stem, number = id.split("_")
    with h5py.File(root / f"{stem}.h5") as file:
        found = {
            name: file[key][int(number)]
            for name, key in (("so2sat_s2", "sen2"), ("so2sat_s1", "sen1"))
        }
    # the one dtype that shards do not hold
    return {
        name: [np.moveaxis(each, -1, 0)[None].astype(np.float32)] for name, each in found.items()
    }


def of_place(root: Path, id: str) -> Images:
    found = {name: [tiff(root / name.upper() / f"{id}.tif")] for name in ("s2l2a", "s2l1c")}
    for name in ("s1rtc", "s1grd"):
        path = root / name.upper() / f"{id}.tif"
        size = found["s2l2a"][0].shape[-2:]
        stored = tiff(path) if path.is_file() else np.zeros((1, 2, *size))
        found[name] = [stored.astype(np.float32)]
    return found


def of_block(root: Path, id: str) -> Images:
    import h5py

    row, column = (5 * int(number) for number in id.split("_")[1:])
    with h5py.File(root / "p.nc") as file:
        optical, radar = (
            np.stack([file[band][:].view(np.uint16)[1:11:3] for band in each.split()], axis=1)
            for each in ("B2 B3 B4 B5 B6 B7 B8 B11 B12", "VV VH")
        )
    optical[1] = 0  # of month 4 nothing was measured
    block = ..., slice(row, row + 5), slice(column, column + 5)
    return {"s2": [optical[block]], "s1": [radar[block]]}


def write_floods(root: Path) -> None:
    chips = [f"Bolivia_{n}" for n in range(4)]
    write_sen1floods11(root, chips)
    parts = {"train": chips[:2], "valid": chips[2:3], "test": chips[3:], "bolivia": chips[:0]}
    for part, names in parts.items():
        lines = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in names]
        path = root / f"v1.1/splits/flood_handlabeled/flood_{part}_data.csv"
        path.write_text("".join(lines)) if lines else path.unlink()


def write_png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(values(path, (9, 7, 3), "uint8")))


def write_masked(root: Path) -> None:
    """Images whose masks hold a value that is no class, which nobody is to look at."""
    for part in ("train", "val", "test"):
        for name in "ab":
            write_png(root / part / "images" / f"{name}.png")
            mask = imagecodecs.png_encode(values(name, (9, 7), "uint8"))
            (root / part / "masks").mkdir(exist_ok=True)
            (root / part / "masks" / f"{name}.png").write_bytes(mask)


def write_classes(root: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(5):
            write_png(root / name / f"{number}.png")


class Case(NamedTuple):
    """How a dataset is written, and an item of it read by other means; what else it takes."""

    oracle: Callable[[Path, str], Images]
    write: Callable[[Path], object] | None = None
    part: str | None = None


CASES = {
    "bigearthnet_v2": Case(
        lambda root, id: of_pair(root, id, ("BigEarthNet-S2", "BigEarthNet-S1"), PATCHES_V2[id][0]),
        part="all",
    ),
    "bigearthnet": Case(
        lambda root, id: of_pair(
            root, id, ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"), PATCHES[id][0]
        ),
        part="all",
    ),
    "so2sat": Case(of_patch, write_so2sat),
    "dfc2020": Case(of_triplet),
    "sen12ms": Case(of_triplet),
    "segmunich": Case(lambda root, id: {"segmunich": [tiff(root / f"train/img/{id}.tif")]}),
    "sen1floods11": Case(of_flood, write_floods),
    "hls_burn_scars": Case(
        lambda root, id: {"hls": [tiff(next(root.glob(f"*/{id}_merged.tif")))]}, part="all"
    ),
    "oscd": Case(of_city),
    "eurosat": Case(lambda root, id: {"eurosat_ms": [tiff(next(root.glob(f"*/{id}.tif")))]}),
    "terramesh": Case(of_place),
    "worldcereal": Case(of_block, lambda root: write_worldcereal(root, sides=(25, 25))),
    "mask_folder": Case(lambda root, id: {"rgb": [picture(root / id)]}, write_masked),
    "class_folder": Case(lambda root, id: {"rgb": [picture(root / id)]}, write_classes),
}


def test_every_dataset_is_here() -> None:
    assert CASES.keys() == {name for name in DATASETS if not name.startswith("demo_")}


@pytest.mark.parametrize("name", CASES)
def test_packed_pixels_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    if name in ("so2sat", "worldcereal"):
        pytest.importorskip("h5py")
    case, root = CASES[name], tmp_path / "data"
    if name != "eurosat":
        root.mkdir()
    (case.write or WRITERS[name])(root)
    assert labelled_name(root, "auto", "train") == name
    source = labelled(root, name, None, None, PlainOptions(part=case.part or "train"))
    pack(source, tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    options = DatasetOptions(classes=["red", "green"] if name == "mask_folder" else None)
    if case.part is None:
        opened = open_dataset(root, name, options)
        ids = [opened.dataset.entries[number].id for number in opened.split.train]
        held_out = {opened.dataset.entries[n].id for n in (*opened.split.val, *opened.split.test)}
        assert held_out
    else:
        ids, held_out = source.items(), set()
    assert sorted(shards.id(number) for number in range(len(shards))) == sorted(ids)
    assert not held_out & set(ids)
    for number in range(len(shards)):
        sample, expected = shards.read(number), case.oracle(root, shards.id(number))
        assert sample.bands.keys() == expected.keys()
        for modality, grids in expected.items():
            for found, grid in zip(sample.bands[modality], grids, strict=True):
                assert found.dtype == grid.dtype
                np.testing.assert_array_equal(found, grid)
    report = json.loads((tmp_path / "out/shard-00000/report.json").read_text())
    assert report["settings"]["dataset"] == name
    assert report["settings"]["part"] == (case.part or "train")
    assert not list((tmp_path / "out").rglob("*label*"))
    assert "label" not in (tmp_path / "out/shard-00000/records.json").read_text()


LABELS = {
    "bigearthnet": "BigEarthNet-v1.0/*/*_labels_metadata.json",
    "dfc2020": "*/dfc_*/*.tif",
    "hls_burn_scars": "*/*.mask.tif",
    "mask_folder": "*/masks/*",
    "oscd": "*Labels/*/cm/*",
    "segmunich": "*/label/*.tif",
    "sen12ms": "*/lc_*/*.tif",
    "sen1floods11": "**/LabelHand/*.tif",
    "terramesh": "LULC/*.tif",
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_stay_closed(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    case = CASES[name]
    (case.write or WRITERS[name])(root)
    size = 12 if name == "oscd" else None
    source = labelled(root, name, None, None, PlainOptions(size=size, part="all"))
    for path in root.glob(LABELS[name]):
        path.write_bytes(b"damaged")
    options = DatasetOptions(classes=["red", "green"] if name == "mask_folder" else None)
    _, dataset = open_items(root, name, options)
    for number, item in enumerate(source.items()):
        with pytest.raises(DataError):
            dataset.read(number)
        assert not next(source.read(item)).empty
        files = source.files(item)
        assert files
        assert all(path.is_file() for path in files)
        if name != "bigearthnet":  # in the folder of the images
            assert not {*files} & {*root.glob(LABELS[name])}


def days(shards: ShardSet, number: int) -> list[list[int]]:
    return [list(row) for row in shards.read(number).dates.tolist()]


def test_two_dates_are_two_seasons_and_cities_become_tiles(tmp_path: Path) -> None:
    WRITERS["oscd"](tmp_path / "data")
    source = labelled(tmp_path / "data", "oscd", 2, None, PlainOptions(size=24, part="all"))
    pack(source, tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert (shards.seasons, len(shards)) == (2, 3 * 9)  # 60 x 61: starts at 0, 24 and 36
    first = (date(2016, 11, 30) - date(1970, 1, 1)).days
    assert days(shards, 0) == [[first], [(date(2017, 11, 7) - date(1970, 1, 1)).days]]
    whole = of_city(tmp_path / "data", "bercy")["s2l1c"]
    tops = [0, 24, 36]
    for number in range(len(shards)):
        id, _, window = shards.id(number).partition("/")
        if id != "bercy":
            continue
        top, left = (int(each) for each in window[1:].split("x"))
        assert {top, left} <= {*tops}
        for step, grid, found in zip(
            (1, 2, 6), whole, shards.read(number).bands["s2l1c"], strict=True
        ):
            rows, columns = (slice(at // step, (at + 24) // step) for at in (top, left))
            np.testing.assert_array_equal(found, grid[..., rows, columns])


def test_demo_places_keep_their_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(root: Path | None, *, places: int, size: int, seed: int) -> Path:
        return pair_shards(tmp_path, places=10, size=24, seed=seed)

    monkeypatch.setattr("seamo_fast.tasks.datasets.demo.pair_shards", few)
    source = labelled(Path("demo"), "demo_change", None, ["s2l2a"], PlainOptions(part="val"))
    opened = open_dataset("demo", "demo_change", DatasetOptions(modalities=["s2l2a"]))
    assert len(source.items()) == len(opened.split.val) == 2
    item = opened.dataset.read(opened.split.val[1])
    (reading,) = source.read(item.id)
    assert reading.dates["s2l2a"] == item.dates["s2l2a"]
    assert all(day is not None for day in reading.dates["s2l2a"])
    for found, grid in zip(reading.arrays["s2l2a"], item.bands["s2l2a"], strict=True):
        np.testing.assert_array_equal(found, grid.numpy())


def test_the_command_packs_the_training_part_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", 5)
    assert main([str(root), str(tmp_path / "out"), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "eurosat: taking the 9 items of part 'train' (of 15), without labels\n" in out
    assert "packed 9 samples of 9 items" in out
    assert main([str(root), str(tmp_path / "all"), "--workers", "1", "--part", "all"]) == 0
    assert "taking all 15 items, without labels, of the test part too\n" in capsys.readouterr().out
    # the same command again finds everything there, and another part does not
    assert main([str(root), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "kept shard-00000: 9 samples" in capsys.readouterr().out
    assert main([str(root), str(tmp_path / "out"), "--workers", "1", "--part", "test"]) == 2
    assert "was packed from other items or with other settings" in capsys.readouterr().err
    # an image that changes is noticed
    taken = ShardSet(tmp_path / "out").id(0)
    path = root / taken.split("_")[0] / f"{taken}.jpg"
    path.write_bytes(path.read_bytes() + b"\xff\xd9")
    assert main([str(root), str(tmp_path / "out"), "--workers", "1"]) == 2
    assert f"1 of its 9 items have changed: {taken} was" in capsys.readouterr().err


def test_a_mapping_says_that_it_packs_the_test_part_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["sen12ms"](tmp_path / "in")
    line = "sen12ms: all parts are packed, its test too"
    assert main([str(tmp_path / "in"), str(tmp_path / "all"), "--workers", "1"]) == 0
    assert line in capsys.readouterr().out
    arguments = [str(tmp_path / "in"), str(tmp_path / "train"), "--workers", "1"]
    assert main([*arguments, "--part", "train"]) == 0
    assert line not in capsys.readouterr().out


def test_processes_open_the_dataset_themselves(tmp_path: Path) -> None:
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", 5)
    source = labelled(root, "eurosat", None, None, PlainOptions())
    sent = pickle.dumps(source)
    assert len(sent) < 3000  # names nothing that a process can list
    for cached in (unlabelled._open, unlabelled._numbers, unlabelled._names):
        cached.cache_clear()
    received = pickle.loads(sent)
    item = source.items()[4]
    assert received.items() == source.items()
    (one,), (two,) = received.read(item), source.read(item)
    np.testing.assert_array_equal(one.arrays["eurosat_rgb"][0], two.arrays["eurosat_rgb"][0])


def test_items_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", 5)
    source = labelled(root, "eurosat", None, None, PlainOptions())
    first, second, *_ = source.items()
    (path,), (flat,) = source.files(first), source.files(second)
    path.write_bytes(path.read_bytes()[:300])
    flat.write_bytes(imagecodecs.jpeg8_encode(np.zeros((64, 64, 3), np.uint8)))
    manifest = pack(source, tmp_path / "out")
    skipped = {(each.what, each.kind) for each in manifest.skipped}
    assert {(first, "unreadable"), (second, "empty"), (second, "unusable")} == skipped
    assert manifest.shards[0].samples == 7
    with pytest.raises(DataError, match=f"{first}: {path.name} "):
        pack(source, tmp_path / "stop", on_bad="stop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "valid"}, "part must be train, val, test or all, but got 'valid'"),
        ({"modality": "rgb"}, "eurosat knows what its images hold; leave --modality out"),
        ({"size": 65}, "64 x 64 pixels are less than a tile of 65 x 65"),
        ({"size": 0}, "size must be 1 or more, but got 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = make_eurosat(tmp_path / "eurosat", "eurosat_rgb", 5)
    with pytest.raises((ConfigError, DataError), match=message):
        labelled(root, "eurosat", None, None, PlainOptions(**options))
    with pytest.raises(ConfigError, match="eurosat has 1 seasons, but got 4; leave --seasons out"):
        labelled(root, "eurosat", 4, None, PlainOptions())


def test_which_layout_a_folder_is(tmp_path: Path) -> None:
    WRITERS["sen12ms"](tmp_path / "sen12ms")
    write_classes(tmp_path / "classes")
    for name in ("train", "test"):
        write_classes(tmp_path / "parts" / name)
    write_masked(tmp_path / "masked")
    found = {
        (name, layout, part): labelled_name(tmp_path / name, layout, part)
        for name in ("sen12ms", "classes", "parts", "masked")
        for layout in ("auto", "sen12ms", "class_folder", "images")
        for part in (None, "train")
    }
    assert {key: value for key, value in found.items() if value and key[1] == "auto"} == {
        ("sen12ms", "auto", "train"): "sen12ms",
        ("classes", "auto", "train"): "class_folder",
        ("masked", "auto", None): "mask_folder",
        ("masked", "auto", "train"): "mask_folder",
    }
    assert found["sen12ms", "sen12ms", None] is None  # the mapping, as ever
    assert found["sen12ms", "sen12ms", "train"] == "sen12ms"
    assert found["classes", "class_folder", None] == "class_folder"
    assert found["classes", "images", "train"] is None


def test_training_images_of_eurosat(data_dir: Path, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    root = data_dir / "eurosat_rgb_full"
    opened = open_dataset(root)
    source = labelled(root, "eurosat", None, None, PlainOptions())
    entries = opened.dataset.entries
    assert source.items() == [entries[number].id for number in opened.split.train]
    assert not {*source.items()} & {entries[number].id for number in opened.split.test}
    for number in opened.split.train[::500]:
        (reading,) = source.read(entries[number].id)
        expected = np.asarray(Image.open(entries[number].path)).transpose(2, 0, 1)
        np.testing.assert_array_equal(reading.arrays["eurosat_rgb"][0][0], expected)


@pytest.mark.parametrize(
    ("name", "size"), [("bigearthnet_v1", None), ("oscd", 120), ("eurosat_ms", None)]
)
def test_real_tiles_equal_rasterio(name: str, size: int | None, data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    root = data_dir / name
    source = labelled(
        root, labelled_name(root, "auto", None) or "", None, None, PlainOptions(size=size)
    )
    item = source.items()[0]
    reading = next(source.read(item))
    assert reading.position is not None
    for modality in source.modalities:
        for grid, array in zip(modality.grids, reading.arrays[modality.name], strict=True):
            for at, channel in enumerate(grid.bands):
                band = modality.band_names[channel]
                path = _file_of(source.files(item), band)
                with rasterio.open(path) as file:
                    values = file.read(1 if file.count == 1 else channel + 1)
                rows, columns = array.shape[-2:]
                np.testing.assert_array_equal(array[0, at], values[:rows, :columns])


def _file_of(files: list[Path], band: str) -> Path:
    """The file of a band in the first folder, or that of all."""
    code = f"B{band[1:]:0>2}" if band.startswith("B") else band
    found = [path for path in files if path.stem.endswith(f"_{code}") and "rect" not in str(path)]
    return found[0] if found else files[0]
