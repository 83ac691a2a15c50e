"""The crop of every pixel, of the WorldCereal maps of one year.

A map says of a pixel 0 (no), 100 (yes), 254 (outside of temporary crops) or 255 (no data). There is
one of temporary crops, and one each of winter cereals, spring cereals and maize in two seasons.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast.data.packing.sources.formats.hdf5 import open_hdf5, own_variable
from seamo_fast.data.packing.sources.formats.pictures import MAX_VALUES
from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.base import IGNORE

CLASSES: Final = (
    *("No temporary crop", "Winter cereals", "Spring cereals", "Maize", "Other temporary crop"),
)
_CROPLAND: Final = "TEMPORARYCROPS"
_CROPS: Final = {  # map: class
    "WINTERCEREALS": "Winter cereals",
    "SPRINGCEREALS": "Spring cereals",
    "MAIZE-MAIN": "Maize",
    "MAIZE-SECOND": "Maize",
}
_NO, _YES, _OUTSIDE, _NODATA = 0, 100, 254, 255


def read_labels(path: Path) -> np.ndarray:
    """Returns the class of every pixel, int64 [H, W].

    Raises:
        DataError: A map is missing, cannot be read or has other values.
    """
    try:
        with open_hdf5(path) as file:
            maps = {name: _map(file, path, name) for name in (_CROPLAND, *_CROPS)}
    except DataError:
        raise
    except Exception as error:  # damaged files raise whatever HDF5 meets
        raise DataError(f"{path} cannot be read as NetCDF-4: {error}") from error
    sizes = {name: list(each.shape) for name, each in maps.items()}
    if len({each.shape for each in maps.values()}) > 1:
        raise DataError(f"{path}: the maps of crops differ in size: {sizes}")
    cropland = maps[_CROPLAND]
    claims = {
        crop: np.any([maps[name] == _YES for name, each in _CROPS.items() if each == crop], axis=0)
        for crop in dict.fromkeys(_CROPS.values())
    }
    claimed = np.sum(list(claims.values()), axis=0)
    unknown = np.any([maps[name] == _NODATA for name in _CROPS], axis=0)
    labels = np.full(cropland.shape, IGNORE, np.int64)
    labels[(cropland == _NO) & (claimed == 0)] = CLASSES.index("No temporary crop")
    labels[(cropland == _YES) & (claimed == 0) & ~unknown] = CLASSES.index("Other temporary crop")
    for crop, claim in claims.items():
        labels[(cropland == _YES) & claim & (claimed == 1)] = CLASSES.index(crop)
    return labels


def _map(file: Any, path: Path, name: str) -> np.ndarray:
    """Returns a map [H, W] as stored."""
    name = f"WORLDCEREAL_{name}_2021"
    found = own_variable(file, path, name)
    if found is None:
        raise DataError(f"{path} has no map {name}; it holds {', '.join(sorted(file))}")
    if found.ndim != 2 or found.dtype.kind not in "iu" or not 0 < found.size <= MAX_VALUES:
        raise DataError(
            f"{path}: {name} is {found.dtype} {list(found.shape)}; expected integers [y, x]"
        )
    values: np.ndarray = found[:]
    wrong = values[~np.isin(values, (_NO, _YES, _OUTSIDE, _NODATA))]
    if len(wrong):
        raise DataError(
            f"{path}: {name} has the value {wrong[0]}; expected {_NO}, {_YES}, {_OUTSIDE} or "
            f"{_NODATA}"
        )
    return values
