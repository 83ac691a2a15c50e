"""The same samples in our shards and in what people use, and how each is read at its best.

A sample is a place of SSL4EO-S12: Sentinel-2 L1C on its three native grids and Sentinel-1, at four
dates; 5.3 MB. Every format is read by one core (`threads` of its libraries are set to one) into
arrays of its own, as a training loop needs them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.shards.manifest import array_names
from seamo_fast.modalities import get_modality

OPTIC, RADAR = get_modality("s2l1c"), get_modality("s1grd")
MODALITIES: Final = (OPTIC, RADAR)
SEASONS: Final = 4
DAYS: Final = [date(2020, month, 5) for month in (1, 4, 7, 10)]
FOLDERS: Final = {"s2l1c": "s2c", "s1grd": "s1"}
ARRAYS: Final = [name for modality in MODALITIES for name in array_names(modality)]

Arrays = dict[str, np.ndarray]
Read = Callable[[int], Arrays]


def make_sample(index: int, size: int) -> Arrays:
    """Returns tiles with the structure of scenes: smooth, with noise of some grey levels."""
    rng = np.random.default_rng(index)
    made = {}
    for modality in MODALITIES:
        for name, grid in zip(array_names(modality), modality.grids, strict=True):
            side = round(size * 10 / grid.gsd)
            coarse = rng.uniform(0, 1, (SEASONS, len(grid.bands), side // 8 + 2, side // 8 + 2))
            smooth = coarse.repeat(8, axis=-1).repeat(8, axis=-2)[..., :side, :side]
            noise = rng.normal(0, 1, smooth.shape)
            values = smooth * 3000 + noise * 40 if modality is OPTIC else smooth * 15 + noise - 25
            dtype = np.uint16 if modality is OPTIC else np.float32
            made[name] = values.clip(1 if modality is OPTIC else -50).astype(dtype)
    return made


def nbytes(sample: Arrays) -> int:
    """Returns the bytes of a sample's values."""
    return sum(values.nbytes for values in sample.values())


def in_memory(samples: list[Arrays], folder: Path) -> Read:
    """A plain copy of the same bytes from memory to memory that is used again."""
    out = {name: np.zeros_like(values) for name, values in samples[0].items()}

    def read(index: int) -> Arrays:
        for name, values in samples[index].items():
            np.copyto(out[name], values)
        return out

    return read


def write_shards(samples: list[Arrays], folder: Path, encoding: Any) -> ShardSet:
    """Writes our shards."""
    if not (folder / "manifest.json").is_file():
        writer = ShardWriter(folder, MODALITIES, SEASONS, shard_size=8, encoding=encoding)
        for index, sample in enumerate(samples):
            writer.add(
                f"{index:07d}",
                {m.name: [sample[name] for name in array_names(m)] for m in MODALITIES},
                {m.name: list(DAYS) for m in MODALITIES},
                {m.name: [True] * SEASONS for m in MODALITIES},
            )
        writer.finish()
    return ShardSet(folder)


def _our_shards(samples: list[Arrays], folder: Path, encoding: str) -> Read:
    shards = write_shards(samples, folder, encoding)
    out = {name: np.zeros_like(values) for name, values in samples[0].items()}

    def read(index: int) -> Arrays:
        for name, values in out.items():
            for t, tile in enumerate(shards.tiles(index, name, range(SEASONS))):
                values[t] = tile
        return out

    return read


def shards_npy(samples: list[Arrays], folder: Path) -> Read:
    """Our shards as pack writes them."""
    return _our_shards(samples, folder, "npy")


def shards_tiff(samples: list[Arrays], folder: Path) -> Read:
    """Our shards as pixel-interleaved TIFF, read with tifffile."""
    return _our_shards(samples, folder, "tiff")


def write_geotiff(samples: list[Arrays], folder: Path) -> None:
    """Writes the native folders of SSL4EO-S12: a file for each band and date."""
    rasterio = pytest.importorskip("rasterio")
    for index, sample in enumerate(samples):
        for modality, name, band, position in _bands():
            for t, day in enumerate(DAYS):
                path = _band_file(folder, modality.name, index, day, band)
                path.parent.mkdir(parents=True, exist_ok=True)
                values = sample[name][t, position]
                with rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    height=values.shape[0],
                    width=values.shape[1],
                    count=1,
                    dtype=values.dtype,
                    interleave="band",
                    crs="EPSG:4326",
                    transform=rasterio.Affine(1e-4, 0, 7, 0, -1e-4, 50),
                ) as file:
                    file.write(values, 1)


def _bands() -> Iterator[tuple[Any, str, str, int]]:
    for modality in MODALITIES:
        for name, grid in zip(array_names(modality), modality.grids, strict=True):
            for position, channel in enumerate(grid.bands):
                yield modality, name, modality.band_names[channel], position


def _band_file(folder: Path, modality: str, index: int, day: date, band: str) -> Path:
    stamp = f"{day:%Y%m%d}T054639_T43RCP"
    if modality == "s1grd":
        stamp = f"S1A_IW_GRDH_1SDV_{day:%Y%m%d}T010800"
    return folder / FOLDERS[modality] / f"{index:07d}" / stamp / f"{band}.tif"


def _per_band(samples: list[Arrays], folder: Path, open_band: Callable[[Path], np.ndarray]) -> Read:
    if not folder.exists():
        write_geotiff(samples, folder)
    out = {name: np.zeros_like(values) for name, values in samples[0].items()}

    def read(index: int) -> Arrays:
        for modality, name, band, position in _bands():
            for t, day in enumerate(DAYS):
                path = _band_file(folder, modality.name, index, day, band)
                out[name][t, position] = open_band(path)
        return out

    return read


def rasterio_bands(samples: list[Arrays], folder: Path) -> Read:
    """A GeoTIFF for each band through rasterio, as the dataset is published and mostly read."""
    rasterio = pytest.importorskip("rasterio")

    def open_band(path: Path) -> np.ndarray:
        with rasterio.open(path) as file:
            values: np.ndarray = file.read(1)
            return values

    return _per_band(samples, folder.parent / "geotiff", open_band)


def tifffile_bands(samples: list[Arrays], folder: Path) -> Read:
    """The same files through tifffile."""
    import tifffile

    return _per_band(samples, folder.parent / "geotiff", tifffile.imread)


def torchgeo_optical(samples: list[Arrays], folder: Path) -> Read:
    """TorchGeo's reader of the same files: Sentinel-2 alone, it cannot pair it with Sentinel-1."""
    datasets = pytest.importorskip("torchgeo.datasets")
    root = folder.parent / "geotiff"
    if not root.exists():
        write_geotiff(samples, root)
    dataset = datasets.SSL4EOS12(str(root), split="s2c", seasons=SEASONS)
    return lambda index: {"image": dataset[index]["image"].numpy()}


def zarr_chunks(samples: list[Arrays], folder: Path) -> Read:
    """A Zarr array for each grid, a chunk for each sample, with Zarr's own compression."""
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("numcodecs").blosc.use_threads = False
    group = zarr.open_group(folder, mode="a")
    for name in ARRAYS:
        if name not in group:
            shape = samples[0][name].shape
            array = group.create_array(
                name,
                shape=(len(samples), *shape),
                chunks=(1, *shape),
                dtype=samples[0][name].dtype,
            )
            for index, sample in enumerate(samples):
                array[index] = sample[name]
    arrays = {name: group[name] for name in ARRAYS}
    return lambda index: {name: array[index] for name, array in arrays.items()}


def hdf5(samples: list[Arrays], folder: Path) -> Read:
    """One uncompressed HDF5 file."""
    h5py = pytest.importorskip("h5py")
    path = folder.with_suffix(".h5")
    if not path.exists():
        with h5py.File(path, "w") as file:
            for name in ARRAYS:
                file[name] = np.stack([sample[name] for sample in samples])
    file = h5py.File(path, "r")
    out = {name: np.zeros_like(values) for name, values in samples[0].items()}

    def read(index: int) -> Arrays:
        for name, values in out.items():
            file[name].read_direct(values, np.s_[index])
        return out

    return read


def lmdb_records(samples: list[Arrays], folder: Path) -> Read:
    """LMDB with the plain bytes of a sample as a value."""
    lmdb = pytest.importorskip("lmdb")
    size = len(samples) * nbytes(samples[0]) + 2**26
    with lmdb.open(str(folder), map_size=size) as store, store.begin(write=True) as transaction:
        for index, sample in enumerate(samples):
            data = b"".join(sample[name].tobytes() for name in ARRAYS)
            transaction.put(f"{index:07d}".encode(), data, overwrite=False)
    store = lmdb.open(str(folder), readonly=True, lock=False)
    transaction = store.begin(buffers=True)
    template = {name: (values.shape, values.dtype) for name, values in samples[0].items()}
    out = {name: np.zeros_like(values) for name, values in samples[0].items()}

    def read(index: int) -> Arrays:
        data, offset = transaction.get(f"{index:07d}".encode()), 0
        for name, (shape, dtype) in template.items():
            values = np.frombuffer(data, dtype, out[name].size, offset)
            out[name][:] = values.reshape(shape)
            offset += values.nbytes
        return out

    return read


def webdataset_tars(samples: list[Arrays], folder: Path) -> Read:
    """A WebDataset tar of .npy members, read from its beginning, whatever number is asked for."""
    webdataset = pytest.importorskip("webdataset")
    path = folder.with_suffix(".tar")
    if not path.exists():
        with tarfile.open(path, "w") as tar:
            for index, sample in enumerate(samples):
                for name in ARRAYS:
                    stream = io.BytesIO()
                    np.save(stream, sample[name])
                    member = tarfile.TarInfo(f"{index:07d}.{name}.npy")
                    member.size = len(stream.getvalue())
                    stream.seek(0)
                    tar.addfile(member, stream)
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode()
    state = {"rest": iter(dataset)}

    def read(index: int) -> Arrays:
        del index
        try:
            sample = next(state["rest"])
        except StopIteration:
            state["rest"] = iter(dataset)
            sample = next(state["rest"])
        return {name: sample[f"{name}.npy"] for name in ARRAYS}

    return read


READERS: Final[dict[str, Callable[[list[Arrays], Path], Read]]] = {
    "memory copy": in_memory,
    "shards npy": shards_npy,
    "shards tiff": shards_tiff,
    "rasterio per band": rasterio_bands,
    "tifffile per band": tifffile_bands,
    "torchgeo (S2 alone)": torchgeo_optical,
    "zarr": zarr_chunks,
    "h5py": hdf5,
    "lmdb": lmdb_records,
    "webdataset": webdataset_tars,
}
