"""Changes what files say of their numbers, and reads the numbers without it.

`mutate(rng, root, path)` returns how, and whether packing must say something of it: True where the
meaning of the numbers changes, False where it does not, None where it depends on other files.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.modalities import get_modality

Planes = Mapping[tuple[str, str], set[bytes]]  # (modality, band) -> the bytes of its [H, W]
FOLDERS: Final = {"s1": "s1grd", "s2a": "s2l2a", "s2c": "s2l1c", "S1GRD": "s1grd",
                  "S1RTC": "s1rtc", "S2L2A": "s2l2a", "S2L1C": "s2l1c"}  # fmt: skip
_DAMAGE: Final = (Exception,)  # what libraries raise on damaged files


def mutate(rng: np.random.Generator, root: Path, path: Path) -> tuple[str, bool | None]:
    """Changes one file in place."""
    change = {".tif": _tiff, ".nc": _netcdf, ".zip": _zarr}[path.suffix]
    return change(rng, root, path)


def _tiff(rng: np.random.Generator, root: Path, path: Path) -> tuple[str, bool | None]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        values, axes = page.asarray(), page.axes
    bands = values if axes == "SYX" else np.moveaxis(np.atleast_3d(values), -1, 0)
    ways: dict[str, Callable[..., bool | None]] = {
        "nodata": _tiff_nodata,
        "item": _tiff_item,
        "number": _tiff_number,
        "page": _tiff_page,
        "form": _tiff_form,
    }
    how = str(rng.choice(list(ways)))
    return how, ways[how](rng, path, bands)


def _write(path: Path, bands: np.ndarray, **options: Any) -> None:
    separate = options.get("planarconfig") == "separate" and len(bands) > 1
    pixels = bands if separate else np.moveaxis(bands, 0, -1)
    if len(bands) == 1:
        pixels = bands[0]
        options["planarconfig"] = None
    defaults = {"planarconfig": "contig", "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, np.ascontiguousarray(pixels), **{**defaults, **options})


def _tiff_nodata(rng: np.random.Generator, path: Path, bands: np.ndarray) -> bool | None:
    value = bands.reshape(-1)[int(rng.integers(bands.size))]
    texts = {str(value): True, "nodata": True, "nan": False, "-12345": None, "1e999": False}
    text = str(rng.choice(list(texts)))
    _write(path, bands, extratags=[(42113, "s", 0, text, True)])
    return texts[text]


def _tiff_item(rng: np.random.Generator, path: Path, bands: np.ndarray) -> bool | None:
    """Scale, offset, unit or description of bands."""
    radar = bands.dtype.kind == "f"
    offset = -0.1 if "S2L" in path.parent.name else 0  # those of SSL4EO-S12 v1.0 have none
    ways: list[tuple[str, list[object], bool | None]] = [
        ("scale", [0.5] * len(bands), True),
        ("offset", [3] * len(bands), True),
        ("scale", ["half"], True),
        ("scale", [1] * len(bands), False),
        ("unittype", ["DN" if radar else "dB"], True),
        ("unittype", ["dB" if radar else "DN"], False),
        ("description", ["VH" if path.stem != "VH" else "VV"] if radar else ["B8A"],
         path.stem != "B8A"),
        ("description", ["first"], False),
    ]  # fmt: skip
    role, texts, must = ways[int(rng.integers(len(ways)))]
    items = "".join(
        f'<Item name="{role}" sample="{n}" role="{role}">{t}</Item>' for n, t in enumerate(texts)
    )
    if not radar and rng.random() < 0.2:  # what the modality says too
        items, must = "", False
        for n in range(len(bands)):
            items += f'<Item name="SCALE" sample="{n}" role="scale">0.0001</Item>'
            items += f'<Item name="OFFSET" sample="{n}" role="offset">{offset}</Item>'
    text = f"<GDALMetadata>{items}</GDALMetadata>"
    _write(path, bands, extratags=[(42112, "s", 0, text, True)])
    return must


def _tiff_number(rng: np.random.Generator, path: Path, bands: np.ndarray) -> bool | None:
    """Orientation or photometric interpretation."""
    if rng.random() < 0.5:
        number = int(rng.integers(1, 10))
        _write(path, bands, extratags=[(274, 3, 1, number, True)])
        return number != 1
    number = int(rng.choice([0, 1, 3, 6, 8]))
    _write(path, bands)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[262].overwrite(number)
    return number != 1


def _tiff_page(rng: np.random.Generator, path: Path, bands: np.ndarray) -> bool | None:
    """Another image of the file: a second main one, an overview, a thumbnail or a mask."""
    _write(path, bands)
    kind = int(rng.choice([0, 1, 4]))
    other = bands[0, ::2, ::2] if rng.random() < 0.5 else bands[0]
    other = other > np.median(other) if kind == 4 else other
    tifffile.imwrite(path, other, append=True, subfiletype=kind, metadata=None)
    return kind == 0 or (kind == 4 and other.shape == bands[0].shape)


def _tiff_form(rng: np.random.Generator, path: Path, bands: np.ndarray) -> bool | None:
    """Another form of the same numbers."""
    integers = bands.dtype.kind in "iu"
    forms: list[dict[str, Any]] = [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"planarconfig": "separate"},
        {"compression": "zstd", "predictor": 2 if integers else 3},
        {"compression": "zlib", "tile": (16, 16)},
        {"compression": "lzw", "byteorder": ">", "rowsperstrip": 3},
        {"metadata": {}},
    ]
    _write(path, bands, **forms[int(rng.integers(len(forms)))])
    return False


def _netcdf(rng: np.random.Generator, root: Path, path: Path) -> tuple[str, bool | None]:
    import h5py

    with h5py.File(path, "r+") as file:
        name = str(rng.choice([name for name in file if file[name].ndim == 3]))
        variable = file[name]
        value = np.int16(variable[0, int(rng.integers(8)), int(rng.integers(8))])
        ways: list[tuple[dict[str, Any], bool | None]] = [
            ({"_FillValue": value}, True),
            ({"missing_value": value}, True),
            ({"_FillValue": np.int16(-1)}, False),
            ({"_FillValue": "many"}, True),
            ({"scale_factor": 0.5}, True),
            ({"add_offset": np.float32(7)}, True),
            ({"scale_factor": 1.0, "add_offset": 0.0}, False),
            ({"valid_range": np.int16([4000, 5000])}, True),
            ({"valid_min": np.int16(0)}, False),
            ({"units": "dB"}, True),
            ({"units": "DN"}, False),
            ({"units": ""}, False),
        ]
        number = int(rng.integers(len(ways) + 2))
        if number < len(ways):
            said, must = ways[number]
            variable.attrs.update(said)
            return f"{name} {said}", must
        names = [("t", "y", "x"), ("t", "x", "y")][number - len(ways)]
        file["t"].make_scale("t")
        for axis, each in enumerate(names):
            if each not in file:
                file[each] = np.arange(8.0)
                file[each].make_scale(each)
            variable.dims[axis].attach_scale(file[each])
        return f"{name} {names}", names != ("t", "y", "x")


def _zarr(rng: np.random.Generator, root: Path, path: Path) -> tuple[str, bool | None]:
    with zipfile.ZipFile(path) as file:
        members = {each: file.read(each) for each in file.namelist()}
    radar = path.parent.name == "S1GRD"
    value = float(next(iter(_zarr_planes(path)["bands"])).reshape(-1)[0])
    swapped = ["sample", "time", "band", "x", "y"]
    ways: list[tuple[dict[str, Any], bool | None]] = [
        ({"_FillValue": value}, True),
        ({"missing_value": [value]}, True),
        ({"_FillValue": "many"}, True),
        ({"scale_factor": 0.5}, True),
        ({"add_offset": 7}, True),
        ({"scale_factor": 1.0, "add_offset": 0.0}, False),
        ({"valid_range": [-5, 5] if radar else [4000, 5000]}, True),
        ({"units": "DN" if radar else "dB"}, True),
        ({"units": "dB" if radar else "DN"}, False),
        ({"_ARRAY_DIMENSIONS": swapped}, True),
        ({"comment": "none"}, False),
    ]
    if not radar:
        ways.append(({"scale_factor": 0.0001, "add_offset": -0.1}, False))
    said, must = ways[int(rng.integers(len(ways)))]
    attributes = {**json.loads(members.get("bands/.zattrs", b"{}")), **said}
    members["bands/.zattrs"] = json.dumps(attributes).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return str(said), must


def _zarr_planes(path: Path) -> dict[str, np.ndarray]:
    import zarr

    store = zarr.storage.ZipStore(str(path), mode="r")
    try:
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        return {"bands": np.asarray(group["bands"][:])}
    finally:
        store.close()


def independent(root: Path) -> Planes | None:
    """Returns every band in every file, by the plain libraries; None if one cannot read a file."""
    found: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    try:
        for path in sorted(root.rglob("*")):
            if path.suffix == ".tif":
                _add_tiff(found, root, path)
            elif path.suffix == ".nc":
                _add_netcdf(found, path)
            elif path.suffix == ".zip":
                name = FOLDERS[path.parent.name]
                bands = _zarr_planes(path)["bands"]
                for number, band in enumerate(get_modality(name).band_names):
                    planes = bands[:, :, number].reshape(-1, *bands.shape[-2:])
                    found[name, band].update(plane.tobytes() for plane in planes)
            elif path.is_file():
                return None
    except _DAMAGE:
        return None
    return found


def _add_tiff(found: dict[tuple[str, str], set[bytes]], root: Path, path: Path) -> None:
    name = FOLDERS[path.relative_to(root).parts[0]]
    with tifffile.TiffFile(path) as file:
        pages = list(islice(file.pages, 1024))  # damage may make a ring of them
        main = [page for page in pages if not int(page.subfiletype) & 5]
        values, axes = main[0].asarray(), main[0].axes
    bands = np.moveaxis(np.atleast_3d(values), -1, 0) if axes != "SYX" else values
    single = len(path.relative_to(root).parts) == 4  # SSL4EO-S12 v1.0
    names = get_modality("s1grd" if name == "s1rtc" else name).band_names
    names = (path.stem,) if single else names
    for band, plane in zip(names, bands, strict=False):
        plane = plane.astype("f4") if name == "s1rtc" else plane
        native = plane.astype(plane.dtype.newbyteorder("="))
        found[name, band].add(np.ascontiguousarray(native).tobytes())


def _add_netcdf(found: dict[tuple[str, str], set[bytes]], path: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        for band in (name for name in file if file[name].ndim == 3):
            values = file[band][:]
            name = "s1" if band.startswith("V") else "s2"
            found[name, band].update(np.ascontiguousarray(plane).tobytes() for plane in values)


def changed(shards: ShardSet, planes: Planes) -> str:
    """Returns the first band that no file holds, "" if the files hold all that was packed."""
    for number in range(len(shards)):
        sample = shards.read(number)
        for m, modality in enumerate(shards.modalities):
            for grid, values in zip(modality.grids, sample.bands[modality.name], strict=True):
                for t, place in np.ndindex(values.shape[:2]):
                    band = modality.band_names[grid.bands[place]]
                    plane = np.ascontiguousarray(values[t, place]).tobytes()
                    if sample.valid[t, m] and plane not in planes.get((modality.name, band), ()):
                        return f"{band} of {modality.name} in {shards.describe(number)}"
    return ""
