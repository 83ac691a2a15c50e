"""Datasets that were once packed wrongly: what is packed of each, and what is said of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import DataError
from tests.attack.ground import Ground
from tests.data.packing import saying
from tests.data.packing.published import stored_bands, times_of, write_group

L2A: Final = {"B1": 44, "B9": 44, **dict.fromkeys(["B2", "B3", "B4", "B8"], 264),
              **dict.fromkeys(["B5", "B6", "B7", "B8A", "B11", "B12"], 132)}  # fmt: skip
Value = Callable[[str, int], np.ndarray]


def noise(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng([side, seed]).integers(200, 4000, (side, side), dtype=np.uint16)


def first_release(root: Path, value: Value | None = None, folder: str = "s2a",
                  suffix: str = ".tif", places: int = 2) -> None:  # fmt: skip
    """Writes places of one date in the layout of SSL4EO-S12 v1.0."""
    sides = L2A if folder == "s2a" else {**L2A, "B10": 44}
    for place in range(places):
        where = root / folder / f"{place:07d}" / "20200604T054639_20200604T054640_T43RCP"
        where.mkdir(parents=True)
        for band, side in sides.items():
            values = value(band, place) if value else noise(side, place)
            tifffile.imwrite(where / f"{band}{suffix}", values)


def read(folder: Path, source: Path, **options: Any) -> ShardSet:
    pack(open_source(source, seasons=1, **options), folder / "out")
    return ShardSet(folder / "out")


def nodata_tag(folder: Path) -> str:
    values = saying.with_rows(saying.decibels(), -9999)
    saying.write_tiff(folder / "in/p0/20200301.tif", values, nodata="-9999")
    modality = saying.packed(folder, {"s1": saying.S1}).modalities[0]
    mean = (modality.mean or (0.0,))[0]
    return "" if modality.nodata == -9999 and abs(mean + 12) < 3 else f"the mean is {mean}"


def pages(folder: Path) -> str:
    path = folder / "in/p0/20200301.tif"
    path.parent.mkdir(parents=True)
    tifffile.imwrite(path, noise(64, 0)[..., None].repeat(13, -1))
    four = {**saying.S2, "bands": {"B2": 2, "B3": 3, "B4": 4, "B8": 8}}
    try:
        shards = saying.packed(folder, {"s2": four})
    except DataError:
        return ""
    return f"64 pages became {saying.tile(shards).shape}"


def companions(folder: Path) -> str:
    first_release(folder / "in")
    for path in list((folder / "in").rglob("*.tif")):
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    return _samples(read(folder, folder / "in"), 2)


def upper_case(folder: Path) -> str:
    first_release(folder / "in", suffix=".TIF")
    return _samples(read(folder, folder / "in"), 2)


def _samples(shards: ShardSet, count: int) -> str:
    whole = len(shards) == count and shards.complete([m.name for m in shards.modalities])
    return "" if whole else f"{len(shards)} samples, skipped {shards.manifest.skipped[:2]}"


def day_of_year(folder: Path) -> str:
    saying.write_tiff(folder / "in/p0/s2_2018253T175901.tif", saying.counts())
    shards = saying.packed(folder, {"s2": {**saying.S2, "files": r"s2_([0-9T]+)\.tif"}})
    day = np.datetime64("1970-01-01") + int(shards.read(0).dates[0, 0])
    return "" if str(day) == "2018-09-10" else f"day 253 of 2018 became {day}"


def same_day(folder: Path) -> str:
    return _cube(folder, [0.23, 0.74, 30.2, 60.2], [0, 30])


def unsorted(folder: Path) -> str:
    return _cube(folder, [60, 0, 30, 90], [0, 30])


def _cube(folder: Path, days: list[float], expected: list[int]) -> str:
    values = np.random.default_rng(0).normal(-12, 3, (len(days), 8, 8)).astype(np.float32)
    saying.write_netcdf(folder / "in/a.nc", {"VV": values, "VH": values})
    import h5py

    with h5py.File(folder / "in/a.nc", "r+") as file:
        file["t"][...] = days
    bands = {"unit": "db", "gsd": 10, "bands": {"VV": "VV", "VH": "VH"}}
    shards = saying.packed(folder, {"s1": bands}, format="netcdf", seasons=2, time="t", step=1)
    first = shards.read(0)
    start = (np.datetime64("2020-01-01") - np.datetime64("1970-01-01")).astype(int)
    found = (first.dates[:, 0] - start).tolist()
    order = [days.index(min(days, key=lambda d: abs(int(d) - e))) for e in expected]
    same = all(
        any(
            np.array_equal(first.bands["s1"][0][t, 0], values[i])
            for i in (n, n + 1)[: 1 + (days[0] < 1)]
        )
        for t, n in enumerate(order)
    )  # of two passes of a day, either
    return "" if found == expected and same else f"days {found}, the same values: {same}"


def empty_band(folder: Path) -> str:
    first_release(folder / "in", lambda band, place: noise(L2A[band], place) * (band != "B9"))
    try:
        shards = read(folder, folder / "in")
    except DataError as error:
        return "" if "B9" in str(error) else str(error)
    said = any("B9" in each.why + each.what for each in shards.manifest.noted)
    valid = any(shards.groups(n)[0].any() for n in range(len(shards)))
    return "" if said and not valid else f"valid {valid}, said {said}"


def zeros_in_b10(folder: Path) -> str:
    def value(band: str, place: int) -> np.ndarray:
        values = noise({**L2A, "B10": 44}[band], place)
        if band == "B10":
            values[::9, ::5] = 0
        return values

    first_release(folder / "in", value, "s2c")
    shards = read(folder, folder / "in")
    known = measured(shards.modalities[0], shards.read(0).bands[shards.modalities[0].name])
    return "" if all(each.all() for each in known) else "zeros of B10 count as not measured"


def mixed_offset(folder: Path) -> str:
    def value(band: str, place: int) -> np.ndarray:
        rng = np.random.default_rng([L2A[band], place])
        pixels = rng.gamma(2.0, 500.0, (L2A[band],) * 2) + 50
        return (pixels + 1000 * (place % 2)).astype(np.uint16)

    first_release(folder / "in", value, places=6)
    named = {r.what for r in read(folder, folder / "in").manifest.noted if r.kind == "offset"}
    return "" if named else "tiles with +1000 are not named"


def dots_in_keys(folder: Path) -> str:
    (folder / "in/train/S2L2A").mkdir(parents=True)
    with tarfile.open(folder / "in/train/S2L2A/ssl4eos12_shard_000001.tar", "w") as tar:
        for number in range(4):
            single = folder / "single.zarr.zip"
            sample = {"sample": ((), np.str_(f"{number:07d}"))}
            bands = stored_bands("s2l2a", number, (4,))
            write_group(single, "s2l2a", bands, times_of("2020-01-01", 4), edit=sample)
            member = tarfile.TarInfo(f"ssl4eos12_v1.1_{number:07d}.zarr.zip")
            member.size = single.stat().st_size
            tar.addfile(member, io.BytesIO(single.read_bytes()))
    pack(open_source(folder / "in"), folder / "out")
    return _samples(ShardSet(folder / "out"), 4)


CASES: Final = (nodata_tag, pages, companions, upper_case, day_of_year, same_day, unsorted,
                empty_band, zeros_in_b10, mixed_offset, dots_in_keys)  # fmt: skip
KNOWN: Final[dict[str, Callable[[Ground, Path], str]]] = {
    case.__name__: lambda _, folder, case=case: case(folder)  # type: ignore[misc]
    for case in CASES
}
