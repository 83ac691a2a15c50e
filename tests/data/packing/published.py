"""Generated files in the layouts that datasets are published in, written by the usual libraries."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast.modalities import get_modality

FOLDERS = {"s2l2a": "S2L2A", "s2l1c": "S2L1C", "s1grd": "S1GRD"}
SIZE = 12
APPLE = b"\x00\x05\x16\x07" + bytes(100)  # what macOS leaves beside files


def stored_bands(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Bands [*shape, C, SIZE, SIZE] in the dtype that SSL4EO-S12 v1.1 stores."""
    rng = np.random.default_rng(seed)
    full = (*shape, len(get_modality(name).bands), SIZE, SIZE)
    if name == "s1grd":
        return rng.normal(-15, 5, full).astype(np.float16)
    return rng.integers(1001, 9000, full).astype(np.int16)


def write_group(
    target: Any,
    name: str,
    bands: np.ndarray,
    times: np.ndarray,
    places: Sequence[str] | None = None,
    edit: Mapping[str, Any] | None = None,
) -> None:
    """Writes a .zarr.zip file with xarray, as the dataset's README shows one.

    `target` is a path; bands [sample, time, band, y, x] with `places`, else [time, band, y, x].
    """
    xarray = pytest.importorskip("xarray", reason="generated zarr files need xarray")
    zarr = pytest.importorskip("zarr", reason="generated zarr files need zarr")
    axes = ("time", "band", "y", "x") if places is None else ("sample", "time", "band", "y", "x")
    names = [each.lower() if name == "s1grd" else each for each in get_modality(name).band_names]
    names = [f"B0{each[1:]}" if each[1:].isdigit() and len(each) == 2 else each for each in names]
    data: dict[str, Any] = {"bands": (axes, bands), "time_": (axes[:-3], times)}
    coordinates: dict[str, Any] = {"band": np.array(names)}
    if places is not None:
        coordinates["sample"] = np.array(places)
        data["center_lon"] = ("sample", np.linspace(-120.0, 120, len(places)))
        data["center_lat"] = ("sample", np.linspace(-60.0, 60, len(places)))
    data.update(edit or {})
    dataset = xarray.Dataset(data, coordinates)
    sizes = zip(axes, bands.shape, strict=True)
    chunks = tuple(1 if axis == "time" else size for axis, size in sizes)
    store = zarr.storage.ZipStore(str(target), mode="w")
    with warnings.catch_warnings():  # zarr writes metadata twice; the last one counts
        warnings.filterwarnings("ignore", "Duplicate name")
        dataset.to_zarr(store, zarr_format=2, encoding={"bands": {"chunks": chunks}}, mode="w")
    store.close()


def times_of(first: str, count: int, days: int = 90) -> np.ndarray:
    """Times `days` apart from a first one."""
    return np.datetime64(first, "ns") + np.arange(count) * np.timedelta64(days, "D")


def write_zarr(root: Path, name: str, part: str, number: int, places: Sequence[str]) -> np.ndarray:
    """Writes one file of v1.1; returns its bands [sample, 4, C, SIZE, SIZE]."""
    folder = root / part / FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    bands = stored_bands(name, number * 10 + len(name), (len(places), 4))
    shift = 3 if name == "s1grd" else 0
    times = np.stack([times_of(f"2020-0{1 + n % 9}-1{shift}", 4) for n in range(len(places))])
    path = folder / f"ssl4eos12_{part}_seasonal_data_{number:06d}.zarr.zip"
    write_group(path, name, bands, times, places)
    return bands


def write_tar(root: Path, name: str, part: str, number: int, places: Sequence[str]) -> np.ndarray:
    """Writes one WebDataset shard of v1.1; returns its bands [sample, 4, C, SIZE, SIZE]."""
    webdataset = pytest.importorskip("webdataset", reason="generated tars need webdataset")
    folder = root / part / FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    bands = stored_bands(name, number * 10 + len(name), (len(places), 4))
    with webdataset.TarWriter(str(folder / f"ssl4eos12_shard_{number:06d}.tar")) as tar:
        for n, place in enumerate(places):
            single = root / "single.zarr.zip"
            times = times_of(f"2020-0{1 + n % 9}-10", 4)
            write_group(single, name, bands[n], times, edit={"sample": ((), np.str_(place))})
            tar.write({"__key__": f"ssl4eos12_{part}_{n:07d}", "zarr.zip": single.read_bytes()})
            single.unlink()
    return bands


def write_members(path: Path, names: Sequence[str], data: bytes) -> None:
    """Writes a tar file whose members all hold `data`, but for companions of macOS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            content = APPLE if "._" in name else data
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_lmdb(path: Path, samples: Sequence[Sequence[np.ndarray]]) -> None:
    """Writes a database as `make_lmdb` of SSL4EO-S12 v1.0 does."""
    lmdb = pytest.importorskip("lmdb", reason="generated databases need lmdb")
    with lmdb.open(str(path), map_size=2**28) as environment:
        for number, arrays in enumerate(samples):
            value: tuple[Any, ...] = ()
            for array in arrays:
                value = (*value, array.tobytes(), array.shape)
            with environment.begin(write=True) as transaction:
                transaction.put(str(number).encode(), pickle.dumps(value))
