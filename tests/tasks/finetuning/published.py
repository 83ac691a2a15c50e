"""Datasets in their published layouts whose images say what their labels are.

The layouts are those of `tests/tasks/datasets/layouts.py`. Then labels become areas of several
pixels, and each band of the images gets a level for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import imagecodecs
import numpy as np
import tifffile

from tests.eurosat import make_eurosat
from tests.tasks.datasets import layouts
from tests.tasks.evaluation.toys import write_mask_folder

PARTS: Final = ("train", "train", "train", "val", "test", "test")
URBAN, WATER = "Continuous urban fabric", "Water bodies"  # among the 43 of BigEarthNet
URBAN_V2, WATER_V2 = "Urban fabric", "Inland waters"  # among the 19


class Published(NamedTuple):
    """A dataset on the disk.

    Attributes:
        write: Writes it.
        choices: Which of its modalities to use, one choice after the other; None for all.
        items: Names of the items that train, validate and test, as it is published; None where it
            has no parts.
        options: Of the command.
    """

    write: Callable[[Path], object]
    choices: tuple[str | None, ...] = (None,)
    items: tuple[set[str], set[str], set[str]] | None = None
    options: tuple[str, ...] = ()


def areas(name: str, size: tuple[int, int], classes: int) -> np.ndarray:
    """Four areas of a place, each of one class, int64 [H, W]; alike on every grid."""
    drawn = np.random.default_rng(list(name.encode())).permutation(max(classes, 4))[:4] % classes
    rows, columns = (np.arange(side) * 2 // side for side in size)
    return drawn.reshape(2, 2)[np.ix_(rows, columns)]


def levels(numbers: np.ndarray, band: int, dtype: np.dtype[Any], classes: int) -> np.ndarray:
    """An image [H, W]: each class has a level, which differs from band to band, and noise."""
    rng = np.random.default_rng(band)
    level = (numbers + band) % classes
    if dtype.kind == "f":
        return (-20 + 4 * level + rng.normal(0, 0.5, numbers.shape)).astype(dtype)
    return (1000 + 900 * level + rng.normal(0, 100, numbers.shape)).astype(dtype)


def carry(root: Path, labels: str, codes: Sequence[int], *images: tuple[str, str]) -> None:
    """Writes the label files of a folder again, and the images beside them.

    Args:
        root: The dataset.
        labels: Pattern of the label files.
        codes: What stands for each class there.
        images: What to replace in the path of a label, and by what, to get that of an image.
    """
    for path in sorted(root.glob(labels)):
        stored = tifffile.imread(path)
        numbers = areas(path.name, stored.shape[:2], len(codes))
        first = stored if stored.ndim == 2 else stored[..., 0]
        first[:] = np.array(codes)[numbers]
        layouts.write_tif(path, np.moveaxis(stored, -1, 0) if stored.ndim == 3 else stored)
        for old, new in images:
            image = root / str(path.relative_to(root)).replace(old, new)
            if image.exists():
                _rewrite(image, numbers, len(codes))


def _rewrite(path: Path, numbers: np.ndarray, classes: int) -> None:
    stored = tifffile.imread(path)
    planar = stored.shape[1:] == numbers.shape
    count = stored.shape[0 if planar else -1]
    bands = [levels(numbers, band, stored.dtype, classes) for band in range(count)]
    layouts.write_tif(path, np.stack(bands), "separate" if planar else "contig")


def _triplets(label: str, codes: Sequence[int], **seasons: int) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for season, count in seasons.items():
            layouts.write_triplets(root, season, label, [f"0_p{n}" for n in range(count)])
        others = [(f"{label}_0", f"{sensor}_0") for sensor in ("s1", "s2")]
        carry(root, f"*/{label}_0/*.tif", codes, *others)

    return write


def _segmunich(root: Path) -> None:
    layouts.write_segmunich(root)
    carry(root, "*/label/*.tif", (21, 6, 12), ("label", "img"))


def _floods(root: Path) -> None:
    chips = [f"Ghana_{n}" for n in range(4)]
    layouts.write_sen1floods11(root, chips, ("train", "valid", "test", "bolivia"))
    images = [("LabelHand", "S1Hand"), ("LabelHand", "S2Hand")]
    carry(root, "**/*_LabelHand.tif", (0, 1), *images)


def _burn_scars(root: Path) -> None:
    layouts.write_burn_scars(root, ("2020190", "2019002", "2018245"))
    carry(root, "*/*.mask.tif", (0, 1), (".mask", "_merged"))


def _terramesh(root: Path) -> None:
    layouts.write_terramesh(root, [f"{n}U_1L_0_0" for n in range(5)], (32, 32))
    others = [("LULC", name) for name in ("S2L2A", "S2L1C", "S1RTC", "S1GRD")]
    carry(root, "LULC/*.tif", (1, 2, 5), *others)


def _oscd(root: Path) -> None:
    cities = {"paris": "train", "bercy": "train", "rio": "test"}
    for city, part in cities.items():
        layouts.write_city(root, city, part)
        label = root / f"{layouts.PREFIX}{part.capitalize()} Labels" / city / "cm" / "cm.png"
        changed = areas(city, imagecodecs.png_decode(label.read_bytes()).shape[:2], 2)
        label.write_bytes(imagecodecs.png_encode((255 * changed).astype(np.uint8)))
        for path in root.glob(f"*Images/{city}/imgs_?/*.tif"):
            size = tifffile.imread(path).shape
            numbers = areas(city, size, 2) * path.parent.name.endswith("2")
            layouts.write_tif(path, levels(numbers, 0, np.dtype("uint16"), 2))


def _worldcereal(root: Path) -> None:
    import h5py

    layouts.write_worldcereal(root, ["p"], (80, 80))
    with h5py.File(root / "p.nc", "r+") as file:
        numbers = np.add.outer(np.arange(80) // 8 % 2, np.arange(80) // 8 % 2)
        for name, crop in (("WINTERCEREALS", 1), ("SPRINGCEREALS", 2)):
            file[f"WORLDCEREAL_{name}_2021"][:] = np.where(numbers == crop, 100, 0)
        for name in ("MAIZE-MAIN", "MAIZE-SECOND"):
            file[f"WORLDCEREAL_{name}_2021"][:] = 0
        file["WORLDCEREAL_TEMPORARYCROPS_2021"][:] = np.where(numbers > 0, 100, 0)
        for band, name in enumerate(name for name in file if name[0] in "BV"):
            image = levels(numbers, band, np.dtype("uint16"), 3)
            file[name][:4] = image.view(np.int16)
            file[name][5:] = image.view(np.int16)


def _patches(urban: str, water: str) -> dict[str, tuple[str, list[str], str]]:
    found = {}
    for number, part in enumerate(PARTS):
        labels = [[urban], [water], [urban, water]][number % 3]
        name = f"S2A_MSIL2A_2017061{number}T101031_N9999_R022_T33UUP_1_{number}"
        radar = f"S1A_IW_GRDH_1SDV_2017061{number}T165043_33UUP_1_{number}"
        found[name] = (radar, labels, part)
    return found


def _say_flags(root: Path, patches: Mapping[str, tuple[str, list[str], str]], water: str) -> None:
    """Every second band says whether there is water, the others whether a town."""
    for patch, (radar, labels, _) in patches.items():
        for name in (patch, radar):
            for band, path in enumerate(sorted(root.rglob(f"{name}_[BV]*.tif"))):
                stored = tifffile.imread(path)
                flag = (water in labels) if band % 2 else labels != [water]
                layouts.write_tif(path, levels(np.full(stored.shape, flag), 0, stored.dtype, 2))


def _bigearthnet(root: Path) -> None:
    patches = _patches(URBAN, WATER)
    pairs = {name: (radar, labels) for name, (radar, labels, _) in patches.items()}
    layouts.write_bigearthnet(root, lists=False, patches=pairs)
    for part in ("train", "val", "test"):
        rows = [f"{name},{radar}\n" for name, (radar, _, own) in patches.items() if own == part]
        (root / f"bigearthnet-{part}.csv").write_text("".join(rows))
    _say_flags(root, patches, WATER)


def _bigearthnet_v2(root: Path) -> None:
    codes = {"train": "train", "val": "validation", "test": "test"}
    patches = {
        name: (radar, labels, codes[part])
        for name, (radar, labels, part) in _patches(URBAN_V2, WATER_V2).items()
    }
    layouts.write_bigearthnet_v2(root, patches)
    _say_flags(root, patches, WATER_V2)


def _so2sat(root: Path) -> None:
    import h5py

    layouts.write_so2sat(root, (10, 4))
    for name, count in (("training", 10), ("validation", 4)):
        with h5py.File(root / f"{name}.h5", "r+") as file:
            numbers = np.arange(count) % 2
            file["label"][:] = np.eye(17)[numbers]
            file["sen2"][:] = file["sen2"][:] / 10 + 0.3 * numbers[:, None, None, None]
            file["sen1"][:] = file["sen1"][:] / 10 + numbers[:, None, None, None]


def _class_folder(root: Path) -> None:
    make_eurosat(root, "eurosat_rgb", 5)
    for folder, name in (("Forest", "cats"), ("River", "dogs"), ("SeaLake", "owls")):
        (root / folder).rename(root / name)


def _names(pattern: str, *parts: Sequence[object]) -> tuple[set[str], set[str], set[str]]:
    train, val, test = ({pattern.format(each) for each in part} for part in parts)
    return train, val, test


def _of_parts(names: Sequence[str]) -> tuple[set[str], set[str], set[str]]:
    train, val, test = (
        {name for name, own in zip(names, PARTS, strict=True) if own == part}
        for part in ("train", "val", "test")
    )
    return train, val, test


BOTH: Final = ("[s2l1c]", "[s1grd]", None)
PUBLISHED: Final[dict[str, Published]] = {
    "bigearthnet_v2": Published(
        _bigearthnet_v2,
        ("[s2l2a]", "[s1grd]", None),
        _of_parts(list(_patches(URBAN_V2, WATER_V2))),
    ),
    "bigearthnet": Published(
        _bigearthnet, ("[s2l2a]", "[s1grd]", None), _of_parts(list(_patches(URBAN, WATER)))
    ),
    "so2sat": Published(_so2sat, ("[so2sat_s2]", "[so2sat_s1]", None)),
    "dfc2020": Published(
        _triplets("dfc", (1, 6, 10), ROIs0000_validation=1, ROIs0000_test=3), BOTH
    ),
    "sen12ms": Published(_triplets("lc", (1, 12, 17), ROIs1158_spring=5), BOTH),
    "segmunich": Published(_segmunich),
    "sen1floods11": Published(
        _floods, BOTH, _names("Ghana_{}", (0,), (1,), (2,)), ("--size", "128")
    ),
    "hls_burn_scars": Published(_burn_scars, options=("--size", "128")),
    "oscd": Published(_oscd),
    "eurosat": Published(lambda root: make_eurosat(root, "eurosat_ms", 5)),
    "terramesh": Published(_terramesh, ("[s2l2a]", "[s1rtc, s1grd]", None)),
    "worldcereal": Published(
        _worldcereal,
        ("[s2]", "[s1]", None),
        (
            {f"p_{row}_{column}" for row in range(5) for column in range(3)},
            {f"p_{row}_3" for row in range(5)},
            {f"p_{row}_4" for row in range(5)},
        ),
    ),
    "mask_folder": Published(write_mask_folder, options=("--classes", "[red, green]")),
    "class_folder": Published(_class_folder),
}
