"""Leaks between splits: the same ground under two names, or the same pixels twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.check import check
from seamo_fast.data.packing.leaks.together import Together, find_together
from seamo_fast.data.packing.packer import Plan, pack_splits
from seamo_fast.data.packing.sources import Reading, Source, open_source
from seamo_fast.data.packing.sources.formats.geo import Footprint
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint, varies
from seamo_fast.data.packing.sources.formats.zarrzip import ZarrArray
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards import Remark
from seamo_fast.data.shards.manifest import ArraySpec
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.pack import main
from tests.data.packing.published import (
    FOLDERS,
    stored_bands,
    times_of,
    write_group,
    write_lmdb,
    write_tar,
)
from tests.data.packing.test_packer import contents

HALVES = Splits((0.5, 0.5))
GROUND, CONTENT = "share ground", "hold tiles of the same pixels"


def drawn(name: str) -> str:
    return HALVES.choose(name, None)


def apart(count: int, pattern: str = "{:07d}") -> list[str]:
    """Ascending names; each is drawn into another split than the one before it."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        name = pattern.format(number)
        if not names or drawn(name) != drawn(names[-1]):
            names.append(name)
    return names


def remark(kind: str, one: str, other: str) -> Remark:
    why = {"ground": GROUND, "content": CONTENT}[kind]
    return Remark(f"{one} and {other}", f"{why}, so all go to {drawn(one)}", kind)


def splits_of(out: Path) -> dict[str, str]:
    """The split of each place that was packed; fails if one is in two."""
    found: dict[str, str] = {}
    for file in sorted(out.rglob("records.json")):
        for record in json.loads(file.read_bytes()):
            split = file.relative_to(out).parts[0]
            assert found.setdefault(record["place"], split) == split
    return found


def pack(source: Source, out: Path, **options: Any) -> tuple[dict[str, str], list[Remark]]:
    """Packs into halves; returns the split of each place, and the remarks of these kinds."""
    manifests = pack_splits(source, Plan(out, shard_size=2, splits=HALVES), **options)
    noted = [each for manifest in manifests.values() for each in manifest.noted]
    noted = [each for each in noted if each.kind in ("ground", "content")]
    return splits_of(out), sorted(noted, key=lambda each: (each.kind, each.what))


def box(x: float, y: float, side: float = 0.02) -> Footprint:
    return (x, y + side), (x + side, y + side), (x + side, y), (x, y)


@dataclass
class Plots:
    """A place an item, each with a footprint and pixels of its own; or those of another."""

    layout: ClassVar[str] = "made"
    looked_for: ClassVar[str] = "nothing"
    path: Path = Path("made")
    release: str = "made-1"
    modalities: tuple[Modality, ...] = (Modality("one", (Band("A", 10), Band("B", 10)), "dn"),)
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, ArraySpec] = field(
        default_factory=lambda: {"one_10m": ArraySpec("uint16", (2, 2, 2, 2))}
    )
    names: tuple[str, ...] = ()
    footprints: dict[str, Footprint] = field(default_factory=dict)
    pixels: dict[str, list[np.ndarray]] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    reads: list[str] = field(default_factory=list)

    def items(self) -> list[str]:
        return list(self.names)

    def files(self, item: str) -> list[Path]:
        return []

    def estimate(self) -> int:
        return len(self.names)

    def _tiles(self, item: str) -> list[np.ndarray]:
        rng = np.random.default_rng(int(item))
        own = [rng.integers(1, 60000, (2, 2, 2)).astype(np.uint16) for _ in range(2)]
        return self.pixels.get(item, own)

    def read(self, item: str) -> Iterator[Reading]:
        self.reads.append(item)
        if item in self.broken:
            raise DataError("it is broken")
        reading = Reading(item, {"one": [np.stack(self._tiles(item))]}, {}, {})
        reading.dates, reading.valid = {"one": [None] * 2}, {"one": [True] * 2}
        if item in self.footprints:
            x, y = np.mean(self.footprints[item], 0).tolist()
            reading.position = x, y
        yield reading

    def scan(self, item: str) -> Iterator[Ground]:
        if item in self.broken:
            raise DataError("it is broken")
        prints = [each for tile in self._tiles(item) for each in fingerprint(tile)]
        yield Ground(item, self.footprints.get(item), tuple(prints))


NAMES = tuple(apart(10))
GRID = {name: box(10 + 0.02 * n, 50) for n, name in enumerate(NAMES)}  # side by side


def test_without_a_leak_all_is_as_before(tmp_path: Path) -> None:
    source = Plots(names=NAMES, footprints=GRID)
    found, noted = pack(source, tmp_path / "new")
    assert (found, noted) == ({name: drawn(name) for name in NAMES}, [])
    pack(source, tmp_path / "old", together=Together())
    assert contents(tmp_path / "new") == contents(tmp_path / "old")


def test_only_splits_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plots, "scan", None)
    source = Plots(names=NAMES, footprints=GRID)
    pack_splits(source, Plan(tmp_path))
    assert len(check(source).noted) == 0


def test_a_chain_of_footprints_is_one_group(tmp_path: Path) -> None:
    """0 overlaps 1, 1 overlaps 2, ...: the last shares nothing with the first, but its split."""
    chain = {name: box(10 + 0.015 * n, 50) for n, name in enumerate(NAMES[:5])}
    found, noted = pack(Plots(names=NAMES, footprints=GRID | chain), tmp_path)
    assert {found[name] for name in NAMES[:5]} == {drawn(NAMES[0])}
    assert [found[name] for name in NAMES[5:]] == [drawn(name) for name in NAMES[5:]]
    a, b, c = NAMES[:3]
    why = f"{GROUND}, so all go to {drawn(a)}"
    assert noted == [Remark(f"{a}, {b}, {c} and 2 more", why, "ground")]


def test_ground_and_content_make_one_group(tmp_path: Path) -> None:
    """0 shares ground with 1, and 1 pixels with 2."""
    a, b, c = NAMES[:3]
    footprints = GRID | {a: box(10, 50), b: box(10.01, 50.01)}
    source = Plots(names=NAMES, footprints=footprints)
    source.pixels = {c: [source._tiles(b)[1], source._tiles(c)[0]]}
    found, noted = pack(source, tmp_path)
    assert found[a] == found[b] == found[c] == drawn(a)
    assert noted == [
        Remark(f"{b} and {c}", f"{CONTENT}, so all go to {drawn(a)}", "content"),
        remark("ground", a, b),
    ]


def test_a_copy_is_named_once(tmp_path: Path) -> None:
    a, b = NAMES[:2]
    source = Plots(names=NAMES, footprints=GRID | {b: GRID[a]})
    source.pixels = {b: source._tiles(a)}
    assert pack(source, tmp_path)[1] == [remark("content", a, b)]


def test_groups_are_told_of_in_their_own_split(tmp_path: Path) -> None:
    a, b, c, d = NAMES[:4]
    source = Plots(names=NAMES, footprints=GRID | {c: GRID[b]})
    source.pixels = {d: source._tiles(a)}
    plan = Plan(tmp_path, shard_size=2, splits=HALVES)
    manifests = pack_splits(source, plan)
    assert manifests[drawn(a)].noted == (remark("content", a, d),)
    assert manifests[drawn(b)].noted == (remark("ground", b, c),)
    assert {name: ShardSet(tmp_path / name).manifest for name in manifests} == manifests


def test_pixels_must_be_equal_in_all_bands(tmp_path: Path) -> None:
    """What the scan takes for the same is read; one number that differs is enough."""
    a, b = NAMES[:2]
    source = Plots(names=NAMES)
    other = [tile.copy() for tile in source._tiles(a)]
    for tile in other:
        tile[1, 1, 1] ^= 1  # the scan looks at band 0
    source.pixels = {b: other}
    source.reads.clear()
    assert find_together(source, HALVES) == Together()
    assert source.reads == [a, b]


def test_what_is_one_number_everywhere_is_no_content(tmp_path: Path) -> None:
    clear = [np.full((2, 2, 2), 7, np.uint16), np.full((2, 2, 2), 9, np.uint16)]
    clear[1][1] = 8
    source = Plots(names=NAMES, pixels=dict.fromkeys(NAMES, clear))
    assert pack(source, tmp_path) == ({name: drawn(name) for name in NAMES}, [])


def test_a_first_band_of_one_number_is_passed_over(tmp_path: Path) -> None:
    a, b = NAMES[:2]
    tiles = [np.zeros((2, 2, 2), np.uint16) for _ in range(2)]
    tiles[1][1] = [[1, 2], [3, 4]]
    source = Plots(names=NAMES, pixels={a: tiles, b: tiles})
    assert pack(source, tmp_path)[1] == [remark("content", a, b)]


def test_numbers_that_vary() -> None:
    assert not varies(np.zeros((0, 3)))
    assert not varies(np.full((3, 200), np.nan, np.float32))
    late = np.zeros((3, 200), np.uint8)
    late[2, 199] = 1
    assert varies(late)
    assert varies(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert fingerprint([np.zeros((2, 2))]) == []
    assert fingerprint([np.zeros((2, 2)), np.eye(2)]) == fingerprint([np.eye(2)])


def test_a_group_across_cells_goes_to_that_of_its_smallest_name(tmp_path: Path) -> None:
    cells = Splits((0.5, 0.5), cell=1)
    west = next(x for x in range(170) if cells.choose("", (x, 0)) != cells.choose("", (x + 1, 0)))
    a, b, c = NAMES[:3]
    footprints = {a: box(west + 0.985, 0.5), b: box(west + 1, 0.5), c: box(west + 1.5, 0.5)}
    plan = Plan(tmp_path, splits=cells)
    manifests = pack_splits(Plots(names=(a, b, c), footprints=footprints), plan)
    found, here = splits_of(tmp_path), cells.choose("", (west, 0))
    assert found[a] == found[b] == here != found[c]
    assert manifests[here].noted == (
        Remark(f"{a} and {b}", f"{GROUND}, so all go to {here}", "ground"),
    )


def test_cells_without_a_position_are_refused_as_before(tmp_path: Path) -> None:
    a, b = NAMES[:2]
    source = Plots(names=(a, b))
    source.pixels = {b: source._tiles(a)}
    with pytest.raises(DataError, match=f"position of {a} is unknown, so it has no cell"):
        pack_splits(source, Plan(tmp_path / "x", splits=Splits((0.5, 0.5), cell=1)))
    source.footprints = {b: box(3.5, 3.5)}  # the group has a place with a position
    pack_splits(source, Plan(tmp_path / "y", splits=Splits((0.5, 0.5), cell=1)))
    assert len(set(splits_of(tmp_path / "y").values())) == 1


def leaky(count: int = 40) -> Plots:
    """Pairs that share ground, pairs that share pixels, and others; one item is broken."""
    names = tuple(apart(count))
    source = Plots(names=names, broken=names[-1:])
    for n in range(0, count - 4, 4):
        source.footprints |= {names[n]: box(n, 5), names[n + 1]: box(n + 0.01, 5)}
        source.pixels[names[n + 3]] = source._tiles(names[n + 2])
    return source


def test_result_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    one, noted = pack(leaky(), tmp_path / "one", workers=1)
    assert pack(leaky(), tmp_path / "two", workers=2) == (one, noted)
    assert len(noted) == 18
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for n in range(0, 36, 2):
        a, b = leaky().names[n : n + 2]
        assert one[a] == one[b] == drawn(a)


def remove_shards(out: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(out / name)


def test_a_killed_pack_is_continued(tmp_path: Path) -> None:
    pack(leaky(), tmp_path / "out")
    before = contents(tmp_path / "out")
    remove_shards(tmp_path / "out", "val/shard-00001", "train/shard-00002", "train/shard-00007")
    assert pack(leaky(), tmp_path / "out")[1]
    assert contents(tmp_path / "out") == before


def test_a_set_of_the_old_rule_is_refused_if_a_place_must_move(tmp_path: Path) -> None:
    pack(leaky(), tmp_path / "out", together=Together())
    message = (
        r"shard-00000 was packed with another grouping of the places that share ground or pixels; "
        r"choose another folder, or give --overwrite to delete the shards in this one$"
    )
    with pytest.raises(DataError, match=message):
        pack(leaky(), tmp_path / "out")
    # and the other way
    pack(leaky(), tmp_path / "new")
    with pytest.raises(DataError, match=message):
        pack(leaky(), tmp_path / "new", together=Together())


def test_a_set_of_the_old_rule_resumes_if_nothing_moves(tmp_path: Path) -> None:
    """Both places were drawn into the same split by chance; the manifest now says so."""
    names = [name for name in NAMES if drawn(name) == "train"]
    source = Plots(names=NAMES, footprints={names[0]: box(1, 1), names[3]: box(1, 1.01)})
    pack(source, tmp_path, together=Together())
    manifest = ShardSet(tmp_path / "train").manifest
    source.reads.clear()
    assert pack(source, tmp_path)[1] == [remark("ground", names[0], names[3])]
    assert source.reads == []
    again = ShardSet(tmp_path / "train").manifest
    assert (again.shards, again.noted) == (manifest.shards, (remark("ground", names[0], names[3]),))
    assert pack(source, tmp_path)[1] == [remark("ground", names[0], names[3])]


def test_strict_stops_before_anything_is_written(tmp_path: Path) -> None:
    source = leaky()
    plan = Plan(tmp_path / "out", splits=HALVES, strict=True)
    with pytest.raises(DataError, match=f"^{source.names[2]} and {source.names[3]}: {CONTENT}"):
        pack_splits(source, plan)
    assert not plan.out.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_audit_with_splits_finds_them_too(workers: int) -> None:
    noted = find_together(leaky(), HALVES).remarks
    found = check(leaky(), HALVES, workers=workers)
    assert (list(found.noted), found.samples) == (noted, 39)
    assert {each.kind for each in noted} == {"ground", "content"}
    assert check(leaky(), workers=workers).noted == ()


# The readers.

STEP = 0.0001  # degrees a pixel


def tags(x: float, y: float, step: float = STEP, epsg: int = 4326) -> list[Any]:
    """What makes a TIFF a GeoTIFF whose first pixel has its north-western corner at (x, y)."""
    kind, key = (2, 2048) if epsg == 4326 else (1, 3072)
    keys = (1, 1, 0, 2, 1024, 0, 1, kind, key, 0, 1, epsg)
    return [
        (33550, "d", 3, (step, step, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9000, shape).astype(np.uint16)


def write_location(root: Path, name: str, seed: int, georeference: list[Any]) -> None:
    """Two dates of radar in the layout of SSL4EO-S12 v1.0."""
    for month in (1, 7):
        folder = root / "s1" / name / f"S1A_IW_GRDH_1SDV_2020{month:02d}05T010800"
        folder.mkdir(parents=True)
        for n, band in enumerate(("VV", "VH")):
            values = noise(100 * seed + 10 * month + n, 264, 264).astype(np.float32)
            tifffile.imwrite(folder / f"{band}.tif", values, extratags=georeference)


def test_ssl4eo(tmp_path: Path) -> None:
    """b: the ground of a, 10 pixels of 264 to the east; d: the pixels of c; e: beside a."""
    a, b, c, d, e = apart(5)
    side = 264 * STEP
    for name, seed, x in ((a, 1, 10), (b, 2, 10 + 10 * STEP), (c, 3, 20), (d, 3, 30)):
        write_location(tmp_path / "in", name, seed, tags(x, 50))
    write_location(tmp_path / "in", e, 4, tags(10 - side, 50))
    source = open_source(tmp_path / "in")
    found, noted = pack(source, tmp_path / "out")
    assert noted == [remark("content", c, d), remark("ground", a, b)]
    assert found == {a: drawn(a), b: drawn(a), c: drawn(c), d: drawn(c), e: drawn(e)}
    (ground,) = source.scan(a)
    np.testing.assert_allclose(ground.footprint, box(10, 50 - side, side))
    assert len(ground.prints) == 2


def test_ssl4eo_by_pixels_alone(tmp_path: Path) -> None:
    """No georeference: nothing but the pixels tells that b is a; c shares one date with it."""
    a, b, c = names = apart(3)
    for name, seed in ((a, 1), (b, 1), (c, 2)):
        write_location(tmp_path / "in", name, seed, [])
    assert pack(open_source(tmp_path / "in"), tmp_path / "out")[1] == [remark("content", a, b)]
    first = sorted((tmp_path / "in" / "s1" / a).iterdir())[0]
    shutil.rmtree(tmp_path / "in" / "s1" / c / first.name)
    shutil.copytree(first, tmp_path / "in" / "s1" / c / first.name)
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "again")
    assert noted == [Remark(f"{a}, {b} and {c}", f"{CONTENT}, so all go to {drawn(a)}", "content")]
    assert found == dict.fromkeys(names, drawn(a))


def test_ssl4eo_places_that_cannot_be_read(tmp_path: Path) -> None:
    a, b, c = apart(3)
    for name in (a, b):
        write_location(tmp_path / "in", name, 1, [])
    for file in (tmp_path / "in" / "s1" / b).rglob("*.tif"):
        file.write_bytes(b"damaged")
    (tmp_path / "in" / "s1" / c).mkdir()
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert (found, noted) == ({a: drawn(a)}, [])


IMAGES: dict[str, Any] = {
    "name": "here",
    "format": "geotiff",
    "seasons": 1,
    "sample": "{place}_{patch}",
    "place": "{place}",
    "modalities": {
        "opt": {
            "unit": "dn",
            "gsd": 10,
            "bands": {"A": 1, "B": 2},
            "files": r"(?P<place>\d+)_(?P<patch>\d)\.tif",
        }
    },
}


def open_images(root: Path, mapping: dict[str, Any]) -> Source:
    (root.parent / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    return open_source(root, mapping=str(root.parent / "mapping.yaml"))


def write_image(path: Path, values: np.ndarray, georeference: list[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planar = "contig" if values.ndim == 3 else None
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig=planar,
                     extratags=georeference, **options)  # fmt: skip


def test_geotiff_series_on_the_grid_of_utm(tmp_path: Path) -> None:
    """Scenes of two patches; the second patch of b lies over the first of c, all else touches."""
    a, b, c, d = apart(4)
    east = {a: (0, 400), b: (800, 1200), c: (1300, 1700), d: (2100, 2500)}
    for n, (name, patches) in enumerate(east.items()):
        for patch, x in enumerate(patches):
            georeference = tags(700e3 + x, 6600e3, 10, 32633)
            write_image(tmp_path / "in" / f"{name}_{patch}.tif", noise(2 * n + patch, 40, 40, 2),
                        georeference)  # fmt: skip
    found, noted = pack(open_images(tmp_path / "in", IMAGES), tmp_path / "out")
    assert noted == [remark("ground", b, c)]
    assert found == {a: drawn(a), b: drawn(b), c: drawn(b), d: drawn(d)}


def test_geotiff_series_of_the_same_pixels(tmp_path: Path) -> None:
    """However they are stored; a first band that is the same is not enough."""
    a, b, c = apart(3)
    pixels = noise(1, 40, 40, 2)
    other = pixels.copy()
    other[0, 0, 1] += 1
    write_image(tmp_path / "in" / f"{a}_0.tif", pixels, [])
    write_image(tmp_path / "in" / f"{b}_0.tif", noise(2, 40, 40, 2), [])
    write_image(tmp_path / "in" / f"{b}_1.tif", pixels, [], compression="zlib", tile=(16, 16))
    write_image(tmp_path / "in" / f"{c}_0.tif", other, [])
    found, noted = pack(open_images(tmp_path / "in", IMAGES), tmp_path / "out")
    assert noted == [remark("content", a, b)]
    assert found == {a: drawn(a), b: drawn(a), c: drawn(c)}


def test_geotiff_series_of_a_band_a_file(tmp_path: Path) -> None:
    mapping = yaml.safe_load(yaml.safe_dump(IMAGES))
    mapping["sample"] = "{place}"
    mapping["modalities"]["opt"]["files"] = r"(?P<place>\d+)/(?P<date>\d{8})_(?P<band>\d)\.tif"
    a, b, c, d = apart(4)
    for name, seed, x in ((a, 1, 5), (b, 1, 6), (c, 2, 7), (d, 3, 7 + 4 * STEP)):
        for n in (1, 2):
            for day in ("20200101", "20200701"):
                pixels = noise(100 * seed + 10 * n + int(day[5]), 40, 40)
                write_image(tmp_path / "in" / name / f"{day}_{n}.tif", pixels, tags(x, 5))
    mapping["seasons"] = 2
    found, noted = pack(open_images(tmp_path / "in", mapping), tmp_path / "out")
    assert noted == [remark("content", a, b), remark("ground", c, d)]
    assert found == {a: drawn(a), b: drawn(a), c: drawn(c), d: drawn(c)}


def test_netcdf_by_content(tmp_path: Path, write_cube: Callable[..., None]) -> None:
    """Files know no ground. b holds two of the months of a, d others behind the same header."""
    a, b, c, d = names = apart(4, "{:07d}.nc")
    bands = {name: noise(n, 4, 3, 3) for n, name in enumerate(names)}
    bands[b][1:3] = bands[a][2:]
    for name, values in bands.items():
        write_cube(tmp_path / "in" / name, {"x": values})
    modality = {"unit": "dn", "gsd": 10, "bands": {"A": "x"}}
    mapping = {"name": "here", "format": "netcdf", "seasons": 2, "modalities": {"one": modality}}
    found, noted = pack(open_images(tmp_path / "in", mapping), tmp_path / "out")
    assert noted == [remark("content", a, b)]
    assert found == {a: drawn(a), b: drawn(a), c: drawn(c), d: drawn(d)}


def write_zarr(
    root: Path, part: str, places: dict[str, int], position: tuple[float, float]
) -> Path:
    """One file of v1.1; each place has the pixels of its seed, all have one position."""
    folder = root / part / FOLDERS["s2l2a"]
    folder.mkdir(parents=True, exist_ok=True)
    bands = np.stack([stored_bands("s2l2a", seed, (4,)) for seed in places.values()])
    times = np.stack([times_of("2020-01-01", 4)] * len(places))
    centres = {
        f"center_{name}": ("sample", np.full(len(places), float(value)))
        for name, value in zip(("lon", "lat"), position, strict=True)
    }
    path = folder / f"ssl4eos12_{part}_seasonal_data_{len(list(folder.iterdir())):06d}.zarr.zip"
    write_group(path, "s2l2a", bands, times, list(places), centres)
    return path


def test_zarr(tmp_path: Path) -> None:
    """Ground by the centres, 2640 m around; pixels by checksums of chunks, or decoded."""
    a, b, c, d, e = apart(5)
    metre = 1 / 111320
    write_zarr(tmp_path / "in", "train", {a: 1}, (179.999, 0))
    write_zarr(tmp_path / "in", "val", {b: 2}, (-179.999, 0))  # 223 m east of it
    write_zarr(tmp_path / "in", "train", {c: 3}, (20, 40))
    write_zarr(tmp_path / "in", "train", {d: 4}, (20, 40 + 2645 * metre))
    write_zarr(tmp_path / "in", "val", {e: 3}, (30, 40))
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert noted == [remark("content", c, e), remark("ground", a, b)]
    assert found == {a: drawn(a), b: drawn(a), c: drawn(c), d: drawn(d), e: drawn(c)}


def test_zarr_files_of_many_places(tmp_path: Path) -> None:
    """Their chunks hold several places, so the pixels are decoded."""
    a, b, c, d = apart(4)
    write_zarr(tmp_path / "in", "train", {a: 1, b: 2}, (np.nan, np.nan))
    write_zarr(tmp_path / "in", "val", {d: 1, c: 3}, (np.nan, np.nan))
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert noted == [remark("content", a, d)]
    assert found == {a: drawn(a), b: drawn(b), c: drawn(c), d: drawn(a)}


def test_zarr_checksums_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of one place a file decodes no pixel."""
    write_zarr(tmp_path / "in", "train", {"0000001": 1}, (1, 2))
    source = open_source(tmp_path / "in")
    decoded: list[str] = []
    row = ZarrArray.row

    def noting(array: ZarrArray, index: int) -> np.ndarray:
        decoded.append(array._name)
        return row(array, index)

    monkeypatch.setattr(ZarrArray, "row", noting)
    (ground,) = source.scan(source.items()[0])
    assert (ground.place, len(ground.prints)) == ("0000001", 4)
    assert decoded
    assert "bands" not in decoded


def test_tar(tmp_path: Path) -> None:
    """Two shards with the same pixels under other names; numbers of shards seed the pixels."""
    a, b, c, d = apart(4)
    for part, number, places in (("train", 1, [a, b]), ("val", 1, [c, d])):
        write_tar(tmp_path / "in", "s2l2a", part, number, places)
    write_tar(tmp_path / "in", "s2l2a", "val", 2, ["9999999"])
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert noted == [remark("content", a, c), remark("content", b, d)]
    alone = {"9999999": drawn("9999999")}
    assert found == {a: drawn(a), c: drawn(a), b: drawn(b), d: drawn(b)} | alone


def test_lmdb(tmp_path: Path) -> None:
    tiles = [noise(seed, 4, 12, 8, 8).astype(np.int16) for seed in range(6)]
    tiles[5][3] = tiles[0][1]  # the fourth season of 5 is the second of 0
    write_lmdb(tmp_path / "in", [[each] for each in tiles])
    found, noted = pack(open_source(tmp_path / "in"), tmp_path / "out")
    assert noted == [remark("content", "0", "5")]
    assert found == {str(n): drawn(str(n)) for n in range(6)} | {"5": drawn("0")}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = apart(2)
    for name in (a, b):
        write_location(tmp_path / "in", name, 1, tags(10, 50))
    line = f"  {a} and {b}: {CONTENT}, so all go to {drawn(a)}"
    command = [str(tmp_path / "in"), "--splits", "0.5,0.5", "--workers", "1"]
    assert main(["--check", *command]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["noted 1: 1 content", line]
    assert main(["--check", *command, "--strict"]) == 2
    assert main(["--check", command[0], "--split_cell", "1"]) == 2
    assert "split_cell needs splits" in capsys.readouterr().err
    assert main([command[0], str(tmp_path / "out"), *command[1:]]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1] == "looking for places that share ground or pixels"
    assert line in output
    assert splits_of(tmp_path / "out") == dict.fromkeys((a, b), drawn(a))
