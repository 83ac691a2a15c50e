"""Small datasets in their published layouts, and the values that were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

S2_L2A = (*("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11"), "B12")
S2_L1C = (*S2_L2A[:10], "B10", *S2_L2A[10:])
TWENTY = ("B05", "B06", "B07", "B8A", "B11", "B12")
SIXTY = ("B01", "B09", "B10")
PATCHES = {  # optical patch, radar patch, labels among the 43
    "S2A_MSIL2A_20170613T101031_61_39": (
        "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39",
        ["Continuous urban fabric", "Airports", "Peatbogs"],
    ),
    "S2B_MSIL2A_20171002T112112_57_35": (
        "S1B_IW_GRDH_1SDV_20171003T055901_29SND_57_35",
        ["Bare rock"],
    ),
}
PATCHES_V2 = {  # optical patch, radar patch, labels among the 19, part
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57": (
        *("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57", ["Arable land", "Urban fabric"]),
        "train",
    ),
    "S2B_MSIL2A_20170615T102019_N9999_R122_T32TNS_45_23": (
        *("S1A_IW_GRDH_1SDV_20170615T170156_32TNS_45_23", ["Marine waters"]),
        "validation",
    ),
}
CODES = (111, 112, 122, 211, 313, 412, 423, 523, 0, 335)
PREFIX = "Onera Satellite Change Detection dataset - "


def size(band: str) -> int:
    return 60 if band in TWENTY else 20 if band in SIXTY else 120


def values(seed: object, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Noise that a name decides."""
    rng = np.random.default_rng(list(str(seed).encode()))
    if np.dtype(dtype).kind == "f":
        return rng.normal(-15, 5, shape).astype(dtype)
    return rng.integers(0, 12000 if np.dtype(dtype).itemsize > 1 else 256, shape).astype(dtype)


def write_tif(path: Path, image: np.ndarray, planar: str = "contig", **options: Any) -> np.ndarray:
    """Writes [H, W] or [C, H, W]; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        options.update(photometric="minisblack", planarconfig=planar)
    pixels = np.moveaxis(image, 0, -1) if image.ndim == 3 and planar == "contig" else image
    tifffile.imwrite(path, pixels, metadata=None, **options)
    return image


def write_bigearthnet(
    root: Path,
    lists: bool = True,
    patches: Mapping[str, tuple[str, list[str]]] = PATCHES,
) -> None:
    """Patches of version 1; in the lists the first trains and the second tests."""
    for patch, (radar, labels) in patches.items():
        for band in S2_L2A:
            path = root / "BigEarthNet-v1.0" / patch / f"{patch}_{band}.tif"
            write_tif(path, values(path.name, [size(band)] * 2, "uint16"))
        for band in ("VV", "VH"):
            path = root / "BigEarthNet-S1-v1.0" / radar / f"{radar}_{band}.tif"
            write_tif(path, values(path.name, (120, 120), "float32"))
        path = root / "BigEarthNet-v1.0" / patch / f"{patch}_labels_metadata.json"
        path.write_text(json.dumps({"labels": labels}))
        path = root / "BigEarthNet-S1-v1.0" / radar / f"{radar}_labels_metadata.json"
        path.write_text(json.dumps({"labels": labels, "corresponding_s2_patch": patch}))
    for part, patch in zip(("train", "test") if lists else (), patches, strict=False):
        (root / f"bigearthnet-{part}.csv").write_text(f"{patch},{patches[patch][0]}\n")


def write_bigearthnet_v2(
    root: Path, patches: Mapping[str, tuple[str, list[str], str]] = PATCHES_V2
) -> None:
    """Patches of version 2 with their maps."""
    for patch, (radar, _, _) in patches.items():
        scene, radar_scene = patch.rsplit("_", 2)[0], radar.rsplit("_", 3)[0]
        for band in S2_L2A:
            path = root / "BigEarthNet-S2" / scene / patch / f"{patch}_{band}.tif"
            write_tif(path, values(path.name, [size(band)] * 2, "uint16"))
        for band in ("VV", "VH"):
            path = root / "BigEarthNet-S1" / radar_scene / radar / f"{radar}_{band}.tif"
            write_tif(path, values(path.name, (120, 120), "float32"))
        codes = np.array(CODES, np.uint16)[values(patch, (120, 120), "uint16") % len(CODES)]
        path = root / "Reference_Maps" / scene / patch / f"{patch}_reference_map.tif"
        write_tif(path, codes, compression="zlib")
    write_metadata(root, list(patches.items()))


def write_metadata(root: Path, rows: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
    """Writes metadata.parquet with (patch, (radar patch, labels, part)) rows."""
    import pyarrow as pa
    from pyarrow import parquet

    radar, labels, parts = zip(*(rest for _, rest in rows), strict=True)
    columns = {"patch_id": [patch for patch, _ in rows], "labels": labels, "split": parts}
    table = pa.table({**columns, "country": ["Austria"] * len(rows), "s1_name": radar})
    parquet.write_table(table, root / "metadata.parquet")


def write_triplets(root: Path, season: str, label: str, patches: Sequence[str]) -> None:
    """Writes patches `<scene>_p<n>` as SEN12MS ("lc") or DFC2020 ("dfc") do."""
    shapes = {"s1": (2, "float32"), "s2": (13, "uint16"), "lc": (4, "uint8"), "dfc": (2, "uint8")}
    for patch in patches:
        scene = patch.split("_")[0]
        for sensor in ("s1", "s2", label):
            bands, dtype = shapes[sensor]
            path = root / season / f"{sensor}_{scene}" / f"{season}_{sensor}_{patch}.tif"
            image = values(path.name, (bands, 256, 256), dtype)
            if sensor == label:
                image[0] %= 19 if label == "lc" else 12
            write_tif(path, image)


def write_segmunich(root: Path) -> None:
    """Two images for training, one for validation."""
    for part, names in (("train", ("1", "2")), ("val", ("7",))):
        for name in names:
            image = values(name, (10, 128, 128), "uint16")
            write_tif(root / part / "img" / f"{name}.tif", image)
            codes = np.array([*range(15), 21, 22, 23, 31, 32, 33, 41, 255], np.uint8)
            label = codes[values(f"label {name}", (128, 128), "uint16") % len(codes)]
            write_tif(root / part / "label" / f"{name}.tif", label)
        (root / "dataset").mkdir(exist_ok=True)
        (root / "dataset" / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))


def write_sen1floods11(
    root: Path,
    chips: Sequence[str] = ("Bolivia_1", "Sri-Lanka_22"),
    parts: Sequence[str] = ("bolivia", "valid"),
) -> None:
    """A chip in each part."""
    folder = root / "v1.1/data/flood_events/HandLabeled"
    for chip in chips:
        kinds = {"S1Hand": (2, "float32"), "S2Hand": (13, "int16")}
        for kind, (bands, dtype) in kinds.items():
            path = folder / kind / f"{chip}_{kind}.tif"
            write_tif(path, values(path.name, (bands, 512, 512), dtype), "separate")
        label = values(chip, (512, 512), "int16") % 3 - 1
        write_tif(folder / "LabelHand" / f"{chip}_LabelHand.tif", label.astype(np.int16))
    lists = root / "v1.1/splits/flood_handlabeled"
    lists.mkdir(parents=True)
    for part, chip in zip(parts, chips, strict=False):
        line = f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n"
        (lists / f"flood_{part}_data.csv").write_text(line)
    features = [
        {"properties": {"location": "Bolivia", "s1_date": "2018/02/15", "s2_date": "2018/02/16"}}
    ]
    path = root / "v1.1/Sen1Floods11_Metadata.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_burn_scars(root: Path, days: Sequence[str] = ("2020190", "2018245")) -> None:
    """Chips for training, the last for validation."""
    for day in days:
        folder = "validation" if day == days[-1] else "training"
        name = f"subsetted_512x512_HLS.S30.T10SDH.{day}.v1.4"
        image = values(name, (6, 512, 512), "float32") / 100
        write_tif(root / folder / f"{name}_merged.tif", image)
        mask = values(f"mask {name}", (512, 512), "int16") % 3 - 1
        write_tif(root / folder / f"{name}.mask.tif", mask.astype(np.int16))


def write_so2sat(root: Path, counts: Sequence[int] = (5, 3)) -> dict[str, dict[str, np.ndarray]]:
    """Training and validation files of so many patches."""
    import h5py

    written = {}
    for name, count in zip(("training", "validation"), counts, strict=True):
        arrays = {
            "sen1": values(f"{name} s1", (count, 32, 32, 8), "float64"),
            "sen2": abs(values(f"{name} s2", (count, 32, 32, 10), "float64")) / 10,
            "label": np.eye(17)[values(name, (count,), "uint16") % 17],
        }
        with h5py.File(root / f"{name}.h5", "w") as file:
            for key, array in arrays.items():
                file[key] = array
        written[name] = arrays
    return written


def write_city(
    root: Path, city: str, part: str, coding: tuple[int, int] = (0, 255), sides: int = 60
) -> np.ndarray:
    """Writes a city on native grids and registered; returns where its change map says 1."""
    folder = root / f"{PREFIX}Images" / city
    for number, stem in ((1, "S2A_OPER_MSI_L1C_TL__20200101T000000_T31"), (2, "T31_20200101")):
        for band in S2_L1C:
            side = sides * size(band) // 120
            path = folder / f"imgs_{number}" / f"{stem}_{band}.tif"
            write_tif(path, values(f"{number} {band}", (side, side + 1), "uint16"))
            path = folder / f"imgs_{number}_rect" / f"{band}.tif"
            write_tif(path, values(f"{number} {band} rect", (sides, sides + 1), "uint16"))
    (folder / "dates.txt").write_text("date_1: 20161130\ndate_2: 20171107\n")
    changed = values(city, (sides, sides + 1), "uint16") % 2
    codes = np.array(coding, np.uint8)[changed]
    labels = root / f"{PREFIX}{part.capitalize()} Labels" / city / "cm"
    if coding == (0, 255):
        labels.mkdir(parents=True)
        rgba = np.stack([codes, codes, codes, np.full_like(codes, 255)], axis=-1)
        (labels / "cm.png").write_bytes(imagecodecs.png_encode(rgba))
    else:
        write_tif(labels / f"{city}-cm.tif", codes)
    return changed


def write_terramesh(root: Path, places: Sequence[str], sides: tuple[int, int] = (24, 20)) -> None:
    """Places of one part; the last has the other version of Sentinel-1."""
    for place in places:
        radar = "S1GRD" if place == places[-1] else "S1RTC"
        kinds = {"S2L2A": (12, "int16"), "S2L1C": (13, "int16"), radar: (2, "float64")}
        for folder, (bands, dtype) in kinds.items():
            image = values(f"{folder} {place}", (bands, *sides), dtype)
            if dtype == "float64":
                image = image.astype(np.float32).astype(dtype)
            write_tif(root / folder / f"{place}.tif", image)
        codes = values(f"LULC {place}", sides, "uint8") % 10
        write_tif(root / "LULC" / f"{place}.tif", codes)


def write_worldcereal(
    root: Path, places: Sequence[str] = ("p",), sides: tuple[int, int] = (27, 25), months: int = 12
) -> None:
    """Cubes from September 2020 on, whose month 4 has no Sentinel-2, with maps of random crops."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    for place in places:
        with h5py.File(root / f"{place}.nc", "w") as file:
            for band in ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12", "VV", "VH"):
                image = values(f"{place} {band}", (months, *sides), "uint16").astype(np.uint16)
                if band[0] == "B":
                    image[4] = 65535
                file[band] = image.view(np.int16)
                file[band].attrs["_Unsigned"] = "true"
            file["t"] = np.arange(months, dtype=np.int32) * 30
            file["t"].attrs["units"] = "days since 2020-09-01"
            for name in ("TEMPORARYCROPS", "WINTERCEREALS", "SPRINGCEREALS"):
                codes = np.array([0, 100], np.uint8)[values(f"{place} {name}", sides, "uint8") % 2]
                file[f"WORLDCEREAL_{name}_2021"] = codes
            for name in ("MAIZE-MAIN", "MAIZE-SECOND"):
                codes = np.array([0, 100, 254, 255], np.uint8)
                drawn = values(f"{place} {name}", sides, "uint8") % 4
                file[f"WORLDCEREAL_{name}_2021"] = codes[drawn]
