"""Small files that say something of their numbers, and what comes of packing them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import Plan, pack_splits
from seamo_fast.data.packing.sources import open_source

SIDE = 8
S1 = {"unit": "db", "gsd": 10, "bands": {"VV": 1, "VH": 2}, "files": r"(\d{8})\.tif"}
S2 = {"unit": "dn", "gsd": 10, "bands": {"B2": 1, "B3": 2}, "files": r"(\d{8})\.tif"}


def decibels(seed: int = 0, bands: int = 2) -> np.ndarray:
    """Backscatter [bands, SIDE, SIDE] as float32."""
    values = np.random.default_rng(seed).normal(-12, 3, (bands, SIDE, SIDE))
    return values.astype(np.float32)


def counts(seed: int = 0, bands: int = 2) -> np.ndarray:
    """Digital numbers [bands, SIDE, SIDE] as uint16."""
    values = np.random.default_rng(seed).integers(200, 9000, (bands, SIDE, SIDE))
    return values.astype(np.uint16)


def item(role: str, sample: int, text: object) -> str:
    """An item of tag 42112 as GDAL writes it."""
    return f'  <Item name="{role.upper()}" sample="{sample}" role="{role}">{text}</Item>\n'


def write_tiff(
    path: Path, bands: np.ndarray, nodata: str = "", items: str = "", **options: Any
) -> None:
    """Writes bands [C, H, W] pixel by pixel, with what GDAL says of the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [*options.pop("extratags", [])]
    if nodata:
        tags.append((42113, "s", 0, nodata, True))
    if items:
        tags.append((42112, "s", 0, f"<GDALMetadata>\n{items}</GDALMetadata>\n", True))
    single = len(bands) == 1
    tifffile.imwrite(
        path,
        bands[0] if single else np.ascontiguousarray(np.moveaxis(bands, 0, -1)),
        **{
            "planarconfig": None if single else "contig",
            "photometric": "minisblack",
            "metadata": None,
            "extratags": tags,
            **options,
        },
    )


def write_netcdf(
    path: Path,
    variables: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]] = {},
) -> None:
    """Writes variables [time, y, x] with the attributes of each."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    steps = max(len(values) for values in variables.values())
    with h5py.File(path, "w") as file:
        file["t"] = np.arange(steps) * 30.0
        file["t"].attrs["units"] = "days since 2020-01-01"
        for name, values in variables.items():
            file[name] = values
            file[name].attrs.update(attributes.get(name, {}))


def write_zarr_zip(
    path: Path, bands: np.ndarray, attributes: Mapping[str, Any] = {}, fill: Any = None
) -> None:
    """Writes bands [time, C, H, W] as a location of SSL4EO-S12 v1.1, in a tar shard's member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, tuple[np.ndarray, Mapping[str, Any], Any]] = {
        "bands": (bands[None], attributes, fill),
        "sample": (np.array(["0000001"]), {}, ""),
        "time_": (np.arange(len(bands)) * 90, {"units": "days since 2020-01-10"}, 0),
    }
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
        for name, (values, said, empty) in arrays.items():
            meta = {
                "zarr_format": 2, "shape": values.shape, "chunks": values.shape,
                "dtype": values.dtype.str, "compressor": None, "fill_value": empty,
                "order": "C", "filters": None,
            }  # fmt: skip
            file.writestr(f"{name}/.zarray", json.dumps(meta))
            file.writestr(f"{name}/.zattrs", json.dumps(said))
            file.writestr(f"{name}/" + ".".join(["0"] * values.ndim), values.tobytes())


def write_mapping(folder: Path, settings: Mapping[str, Any], **whole: Any) -> str:
    """Writes a mapping of modalities; returns its path."""
    text = yaml.safe_dump(
        {"name": "here", "format": "geotiff", "seasons": 1, **whole, "modalities": dict(settings)},
        sort_keys=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mapping.yaml").write_text(text)
    return str(folder / "mapping.yaml")


def packed(
    folder: Path,
    settings: Mapping[str, Any],
    plan: Mapping[str, Any] = {},
    source: Path | None = None,
    **whole: Any,
) -> ShardSet:
    """Packs `folder`/in, or a source, by a mapping of modalities into a new `folder`/out."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    mapping = write_mapping(folder, settings, **whole)
    opened = open_source(source or folder / "in", mapping=mapping)
    pack_splits(opened, Plan(folder / "out", **plan))
    return ShardSet(folder / "out")


def with_rows(values: np.ndarray, value: float, rows: int = 2) -> np.ndarray:
    """Returns a copy whose first rows hold a value."""
    changed = values.copy()
    changed[..., :rows, :] = value
    return changed


def tile(shards: ShardSet, number: int = 0) -> np.ndarray:
    """Returns the first grid of the first modality in the first season."""
    (grid, *_) = shards.read(number).bands[shards.modalities[0].name]
    return grid[0]


def noted(shards: ShardSet) -> list[tuple[str, ...]]:
    """Returns what is said of what files say."""
    kinds = ("metadata", "override")
    return [tuple(each) for each in shards.manifest.noted if each.kind in kinds]
