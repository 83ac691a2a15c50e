"""The `.npy` files of a shard set, mapped into memory."""

from __future__ import annotations

import mmap
import resource
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from seamo_fast.data.shards.manifest import ArraySpec
from seamo_fast.errors import DataError
from seamo_fast.files import brief, open_regular

_MOST: Final = 4096  # mapped files


def check_npy(path: Path, spec: ArraySpec, samples: int) -> int:
    """Returns where the values of a `.npy` file begin.

    Raises:
        DataError: Its header or length is not what the manifest says.
    """
    remedy = f"delete {path.parent} and run the same pack command again"
    try:
        with open_regular(path) as file:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except Exception as error:  # a damaged header raises whatever its parser meets
        raise DataError(f"{path} is not a .npy file ({brief(error)}); {remedy}") from error
    expected = (samples, *spec.shape)
    if shape != expected or dtype != spec.dtype or fortran:
        order = " in Fortran order" if fortran else ""
        raise DataError(
            f"{path} holds {dtype} {list(shape)}{order}, but the manifest says {spec.dtype} "
            f"{list(expected)}; {remedy}"
        )
    if size != offset + samples * spec.nbytes:
        raise DataError(
            f"{path} has {size} bytes instead of {offset + samples * spec.nbytes}; {remedy}"
        )
    return offset


class MappedArrays:
    """Maps files when they are first asked for, from any thread; forgets those used least.

    A file that stays mapped is read like memory; mapping it again costs page faults. Each mapping
    holds a file descriptor, so half of those that the process may open are used (`ulimit -n`).
    """

    def __init__(self) -> None:
        self._files: dict[tuple[int, str], tuple[Path, ArraySpec, int]] = {}
        self._reset()

    def _reset(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = _MOST if limit == resource.RLIM_INFINITY else min(limit // 2, _MOST)
        self._open: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def add(self, shard: int, name: str, path: Path, spec: ArraySpec, samples: int) -> None:
        """Checks an array of a shard, to be mapped later.

        Raises:
            DataError: Its header or length is not what the manifest says.
        """
        self._files[shard, name] = path, spec, check_npy(path, spec, samples)

    def get(self, shard: int, name: str) -> np.ndarray:
        """Returns all records [S, T, Cg, Hg, Wg] of an array, read-only.

        Raises:
            DataError: The file cannot be mapped.
        """
        key = shard, name
        with self._lock:
            if key not in self._open:
                self._open[key] = _map(*self._files[key])
                if len(self._open) > self._most:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(key)
            return self._open[key]


def _map(path: Path, spec: ArraySpec, offset: int) -> np.ndarray:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, spec.dtype, offset=offset).reshape(-1, *spec.shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
