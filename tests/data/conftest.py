"""Small shard sets and dataset folders, written where a test asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.shards import Encoding
from seamo_fast.modalities import Band, Modality, get_modality

OPTICAL = Modality("optic", (Band("A", 10), Band("B", 20), Band("C", 10)), "dn", nodata=0)
RADAR = get_modality("s1grd")
SEASONS = 3
SIZES = {10: 12, 20: 6, 60: 2}


def sample_arrays(index: int) -> dict[str, list[np.ndarray]]:
    """Arrays of sample `index`: "optic" uint16 on two grids and "s1grd" float32."""
    rng = np.random.default_rng(index)
    optic = [
        rng.integers(1, 60000, (SEASONS, len(grid.bands), *[SIZES[int(grid.gsd)]] * 2))
        for grid in OPTICAL.grids
    ]
    radar = rng.normal(-15, 5, (SEASONS, 2, 12, 12)).astype(np.float32)
    return {"optic": [each.astype(np.uint16) for each in optic], "s1grd": [radar]}


def sample_valid(index: int) -> dict[str, list[bool]]:
    """Season index % 3 lacks "optic" in every second sample; all of sample 5 lacks radar."""
    optic = [index % 2 == 0 or t != index % 3 for t in range(SEASONS)]
    return {"optic": optic, "s1grd": [index != 5] * SEASONS}


def sample_dates(index: int) -> dict[str, list[date | None]]:
    """Dates three months apart; radar four days after the optical ones, the last unknown."""
    days: list[date | None] = [date(2020, 1, 1) + timedelta(index + 91 * t) for t in range(SEASONS)]
    radar = [day + timedelta(4) if day else None for day in days[:-1]]
    return {"optic": days, "s1grd": [*radar, None]}


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes `samples` of the samples above as shards of 4."""

    def write(
        samples: int = 10, shard_size: int = 4, name: str = "shards", encoding: Encoding = "npy"
    ) -> Path:
        writer = ShardWriter(
            tmp_path / name,
            (OPTICAL, RADAR),
            SEASONS,
            source="made",
            shard_size=shard_size,
            encoding=encoding,
        )
        for index in range(samples):
            writer.add(
                f"place-{index}", sample_arrays(index), sample_dates(index), sample_valid(index)
            )
        writer.finish()
        return tmp_path / name

    return write


@pytest.fixture
def shards(write_shards: Callable[..., Path]) -> ShardSet:
    """Ten samples in shards of four."""
    return ShardSet(write_shards())


@pytest.fixture
def made() -> Callable[[int], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Returns a function that gives what was written as sample `index`: arrays, dates, valid."""
    return lambda index: (sample_arrays(index), sample_dates(index), sample_valid(index))


FOLDERS = {"s2l2a": "s2a", "s2l1c": "s2c", "s1grd": "s1"}


def tile_arrays(name: str, seed: int) -> dict[str, np.ndarray]:
    """The bands of one SSL4EO-S12 acquisition at their native sizes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for band in get_modality(name).bands:
        size = (round(2640 / band.gsd),) * 2
        if name == "s1grd":
            arrays[band.name] = rng.normal(-15, 5, size).astype(np.float32)
        else:
            arrays[band.name] = rng.integers(1, 10000, size).astype(np.uint16)
    return arrays


@pytest.fixture
def write_tile() -> Callable[..., Path]:
    """Returns a function that writes one acquisition in the layout of SSL4EO-S12 v1.0."""

    def write(
        root: Path,
        name: str,
        location: str,
        day: str,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        stamp = f"S1A_IW_GRDH_1SDV_{day}T010800" if name == "s1grd" else f"{day}T054639_T43RCP"
        folder = root / FOLDERS[name] / location / stamp
        folder.mkdir(parents=True)
        for band, values in (arrays or tile_arrays(name, int(day))).items():
            tifffile.imwrite(folder / f"{band}.tif", values, planarconfig="separate")
        return folder

    return write


@pytest.fixture
def write_cube() -> Callable[..., None]:
    """Returns a function that writes a NetCDF-4 cube as WorldCereal does: signed, flagged."""
    h5py = pytest.importorskip("h5py", reason="NetCDF needs the [geo] extra")

    def write(
        path: Path,
        variables: Mapping[str, np.ndarray],
        units: str = "days since 1990-01-01",
        times: Sequence[int] | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        steps = len(next(iter(variables.values())))
        with h5py.File(path, "w") as file:
            file["t"] = np.arange(11170, 11170 + 30 * steps, 30) if times is None else times
            file["t"].attrs["units"] = np.bytes_(units)
            for name, values in variables.items():
                file[name] = values.view(np.int16) if values.dtype == np.uint16 else values
                if values.dtype == np.uint16:
                    file[name].attrs["_Unsigned"] = np.bytes_("true")

    return write
