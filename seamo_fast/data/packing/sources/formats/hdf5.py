"""HDF5 and NetCDF-4 files whose numbers are their own.

HDF5 lets a file name others: for a variable's bytes (external storage, which may be any file), for
parts of it (virtual), for what stands under a name (external links). A file from a stranger could
so have any file of this machine read as pixels: what would lead out of a file is refused by name.
Filters that HDF5 does not bring along are refused too: it would load them as native code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from seamo_fast.errors import DataError
from seamo_fast.files import check_regular

# deflate, shuffle, fletcher32, szip, nbit, scaleoffset, and LZF, which h5py brings
_FILTERS: Final = frozenset((1, 2, 3, 4, 5, 6, 32000))
_MOST_LINKS: Final = 16


def open_hdf5(path: Path) -> Any:
    """Opens a file for reading, with h5py.

    Raises:
        DataError: h5py is not installed.
        OSError: It cannot be opened, or is no regular file.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"reading {path.name} needs h5py; install it with `pip install 'seamo_fast[geo]'`"
        ) from None
    check_regular(path)
    return h5py.File(path, "r")


def own_variable(file: Any, path: Path, name: str) -> Any:
    """Returns a variable of an open file, None if there is none of that name.

    Raises:
        DataError: Its numbers, or it itself, are in another file, or need a plugin.
    """
    _check_links(file, path, name)
    found = file.get(name)
    if not hasattr(found, "ndim"):
        return None
    where = f"{path}: variable {name}"
    if found.external:
        other = found.external[0][0]
        raise DataError(f"{where} has its numbers in another file, {other}; {_remedy(path)}")
    if found.is_virtual:
        raise DataError(f"{where} is virtual, made of other variables or files; {_remedy(path)}")
    properties = found.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, title = properties.get_filter(number)
        if code not in _FILTERS:
            title = title.decode("utf-8", "replace") or "unnamed"
            raise DataError(
                f"{where} is packed with filter {code} ({title}), which needs a plugin; "
                f"write it with deflate: `h5repack -f GZIP=1 {path.name} NEW`"
            )
    return found


def _check_links(file: Any, path: Path, name: str) -> None:
    """Raises DataError if the way to a name leads to another file."""
    import h5py

    group, parts = file, _parts(name)
    for _ in range(_MOST_LINKS):
        if not parts or not isinstance(group, h5py.Group):
            return
        part = parts.pop(0)
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{path}: {name} is a link to another file, {link.filename}; {_remedy(path)}"
            )
        if isinstance(link, h5py.SoftLink):
            group = file if link.path.startswith("/") else group
            parts = _parts(link.path) + parts
        else:
            group = group.get(part)
    raise DataError(f"{path}: {name} is behind more than {_MOST_LINKS} links")


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _remedy(path: Path) -> str:
    return f"store its numbers in {path.name} itself"
