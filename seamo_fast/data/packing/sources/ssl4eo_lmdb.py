"""SSL4EO-S12 v1.0 as LMDB, uint8 or raw (`ssl4eo_dataset.py` of github.com/zhu-xlab/SSL4EO-S12).

SOURCE is one database: key str(i), value a pickled tuple (bytes, shape) of one of s1, s2a and s2c,
or of all three one after the other; an array is [4, C, 264, 264] with every band resized to 10 m.

- uint8: Sentinel-2 is reflectance * 255, cut off, and wraps around above 1 (bright clouds and snow
  turn dark); Sentinel-1 maps mean +- 2 standard deviations of each band to 0..255, clipped. These
  are the modalities s2l2a_uint8, s2l1c_uint8 and s1grd_uint8, whose statistics packing measures.
- raw: Sentinel-2 int16 DN (which wraps above 32767), Sentinel-1 float32 dB, the usual modalities.

The database holds no dates and names no location, its seasons are in the order of a directory
listing, and two databases need not list locations in the same order: so one is packed at a time.
Values are parsed, not unpickled: nothing in a database is ever executed.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from seamo_fast.data.packing.sources.base import Reading, TileError
from seamo_fast.data.packing.sources.formats.ground import Ground, fingerprint
from seamo_fast.data.packing.sources.formats.lmdb import LmdbFile
from seamo_fast.data.packing.sources.rules.lost import absurd, any_measured, check_bands
from seamo_fast.data.shards import ArraySpec, Remark, array_names
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality, get_modality

_BANDS: Final = {2: "s1grd", 12: "s2l2a", 13: "s2l1c"}
_RAW: Final = {"s1grd": "float32", "s2l2a": "int16", "s2l1c": "int16"}
_MOST: Final = 2**27  # bytes of a value; the largest published ones have 16 MB
_PUSHED: Final = frozenset(
    ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BININT", "BININT1", "BININT2", "INT", "LONG1")
)
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class SSL4EOLmdb:
    """Reads an LMDB of SSL4EO-S12 v1.0; an item is a key and yields a sample.

    Args:
        path: The folder of the database, or its data.mdb.
        seasons: T; further ones are left out, missing ones are invalid groups.
        modalities: Some of those in the database, all if None.

    Raises:
        DataError: The database is damaged or empty, or a modality is not in it.
    """

    layout: ClassVar[str] = "ssl4eo-v1.0-lmdb"
    looked_for: ClassVar[str] = "data.mdb, the database of SSL4EO-S12 v1.0"
    remarks: tuple[str, ...] = ()
    release: str = "ssl4eo-s12-v1.0"

    def __init__(
        self, path: Path, seasons: int = 4, modalities: Sequence[str] | None = None
    ) -> None:
        self.path = path
        self.seasons = seasons
        with LmdbFile(path) as file:
            key = next(file.keys(), None)
            data, where = None if key is None else file.get(key, _MOST), str(file.path)
        if data is None:
            raise DataError(f"{path} holds no sample")
        found = {_modality(each).name: each for each in _arrays(data, where)}
        names = list(found) if modalities is None else list(modalities)
        for name in names:
            if name not in found:
                raise DataError(f"{path} has no modality {name!r}; it holds {', '.join(found)}")
        self.modalities = tuple(_modality(found[name]) for name in names)
        self.arrays = {
            array_names(_modality(found[name]))[0]: ArraySpec(
                found[name].dtype.name, (seasons, *found[name].shape[1:])
            )
            for name in names
        }
        self.settings = {"layout": self.layout, "seasons": seasons, "modalities": names}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a folder looks like this layout."""
        return path.name == "data.mdb" or (path / "data.mdb").is_file()

    def items(self) -> list[str]:
        """Returns the keys in ascending order of their numbers."""
        with LmdbFile(self.path) as file:
            keys = [key.decode(errors="backslashreplace") for key in file.keys()]  # noqa: SIM118
        return sorted(keys, key=lambda key: (len(key), key))

    def files(self, item: str) -> list[Path]:
        """Returns the one file of the database."""
        return [self.path / "data.mdb" if self.path.is_dir() else self.path]

    def estimate(self) -> int:
        """Returns the number of keys."""
        with LmdbFile(self.path) as file:
            return file.entries

    def read(self, item: str) -> Iterator[Reading]:
        """Yields the sample of a key.

        Raises:
            DataError: Its value is damaged.
        """
        found = self._stored(item)
        reading = Reading(item, {}, {}, {})
        for modality in self.modalities:
            name = modality.name
            spec = self.arrays[array_names(modality)[0]]
            tiles = np.zeros(spec.shape, spec.dtype)
            valid = [False] * self.seasons
            stored = found.get(name)
            if stored is None or stored.dtype != spec.dtype or stored.shape[1:] != spec.shape[1:]:
                came = "nothing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
                expected = f"{spec.dtype} {list(spec.shape)}"
                why = f"{came}, expected {expected}"
                reading.skipped.append(Remark(f"{item} {name}", why, "mismatch"))
                stored = tiles[:0]
            for season, tile in enumerate(stored[: self.seasons]):
                what = f"{item} {name} season {season}"
                try:
                    if not any_measured([tile], 0, modality.limit):
                        raise TileError("every pixel is nodata (0 or NaN)", "unmeasured")
                    reading.noted += check_bands(modality, [tile])
                except TileError as error:
                    reading.skipped.append(Remark(what, str(error), error.kind))
                else:
                    tiles[season], valid[season] = tile, True
                    reading.noted += absurd(what, modality, [tile])
            reading.arrays[name], reading.valid[name] = [tiles], valid
            reading.dates[name] = [None] * self.seasons
        yield reading

    def scan(self, item: str) -> Iterator[Ground]:
        """Yields what the tiles of a key hold; see `Source.scan`."""
        tiles = (tile for array in self._stored(item).values() for tile in array[: self.seasons])
        yield Ground(item, None, tuple(each for tile in tiles for each in fingerprint(tile)))

    def _stored(self, item: str) -> dict[str, np.ndarray]:
        """Returns the array [seasons, C, H, W] of each modality that a key has."""
        with LmdbFile(self.path) as file:
            data, where = file.get(item.encode(), _MOST), f"{file.path} key {item!r}"
        if data is None:
            raise DataError(f"{self.path} has no key {item!r}")
        return {_modality(each).name: each for each in _arrays(data, where)}


def _modality(array: np.ndarray) -> Modality:
    modality = get_modality(_BANDS[array.shape[1]]).on_one_grid(10)
    if array.dtype != np.uint8:
        return modality
    return replace(
        modality,
        name=f"{modality.name}_uint8",
        unit="uint8",
        mean=None,
        std=None,
        scale=255.0 if modality.unit == "dn" else 1.0,
        nodata=None,  # 0 is any reflectance below 1/255
    )


def _arrays(data: bytes, where: str) -> list[np.ndarray]:
    """Returns the arrays of a pickled (bytes, shape, bytes, shape, ...) tuple."""
    try:
        parts = _unpickled(data)
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        arrays = [_array(raw, shape) for raw, shape in pairs]
    except Exception as error:  # damaged values raise whatever the parser meets
        raise DataError(f"{where} holds no pickled (bytes, shape) tuple ({error})") from error
    if not arrays or len({_BANDS[each.shape[1]] for each in arrays}) != len(arrays):
        raise DataError(f"{where} holds no array, or two of one sensor")
    return arrays


def _array(raw: object, shape: object) -> np.ndarray:
    if not isinstance(raw, bytes) or not isinstance(shape, tuple):
        raise TypeError("parts are not bytes and shapes")
    if len(shape) != 4 or not all(type(n) is int and 0 < n < 2**16 for n in shape):
        raise ValueError(f"shape {shape!r}")
    if shape[1] not in _BANDS:
        raise ValueError(f"{shape[1]} bands; expected 2 (s1), 12 (s2a) or 13 (s2c)")
    wide = len(raw) != math.prod(shape)
    dtype = np.dtype(_RAW[_BANDS[shape[1]]] if wide else "uint8").newbyteorder("<")
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _unpickled(data: bytes) -> tuple[Any, ...]:
    """Returns a pickled tuple of bytes, integers and tuples of them; anything else is refused."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    marks: list[int] = []
    for code, argument, _ in pickletools.genops(data):
        if code.name in _PUSHED:
            stack.append(argument)
        elif code.name in _TUPLES or code.name == "TUPLE":
            start = marks.pop() if code.name == "TUPLE" else len(stack) - _TUPLES[code.name]
            stack[start:] = [tuple(stack[start:])]
        elif code.name == "MARK":
            marks.append(len(stack))
        elif code.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif code.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif code.name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"opcode {code.name}")
    if len(stack) != 1 or not isinstance(stack[0], tuple):
        raise ValueError(f"{len(stack)} values on the stack")
    return stack[0]
