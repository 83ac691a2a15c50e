"""Damages files of every layout, reads them, and says what went other than a named error.

`run(kind, seed, count, folder)` is one campaign, in a process of its own: a crash, a hang, more
memory than `_MEMORY`, any exception but DataError, and a file outside of the folder are failures.
Every second case changes what a file says of its numbers instead of its bytes. Numbers that are
packed and that a plain library does not find in the files, or another meaning of them, must come
with a remark.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import resource
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.leaks.together import find_together
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards import Remark
from seamo_fast.errors import DataError
from tests.data.packing import fuzzing_metadata
from tests.data.packing.published import stored_bands, times_of, write_group, write_lmdb

_MEMORY: Final = 2**30  # bytes beyond what the process has at its start
_LARGE: Final = (0, 1, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def write_v10(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, dtype, bands in (("s2a", "u2", 12), ("s1", "f4", 2)):
        stamp = "20200604T054639_T43RCP" if name == "s2a" else "S1A_IW_GRDH_1SDV_20200604T010800"
        folder = root / name / "0000001" / stamp
        folder.mkdir(parents=True)
        s2 = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"]
        for band in (s2 if bands == 12 else ["VV", "VH"]):  # fmt: skip
            size = {"B1": 44, "B9": 44}.get(band, 264)
            size = 132 if band in ("B5", "B6", "B7", "B8A", "B11", "B12") else size
            values = rng.integers(1, 9000, (size, size)).astype(dtype)
            tifffile.imwrite(folder / f"{band}.tif", values, planarconfig="separate")


def write_terramesh(root: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(2):
        for folder, bands, dtype in (("S2L2A", 12, "i2"), ("S2L1C", 13, "i2"), ("S1RTC", 2, "f8")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            values = rng.integers(1, 9000, (16, 16, bands)).astype(dtype)
            tifffile.imwrite(
                root / folder / f"38{n}D_378R_2_3.tif",
                values,
                photometric="minisblack",
                planarconfig="contig",
                compression="zlib" if n else None,
                predictor=bool(n and dtype == "i2"),
            )


def write_zarrs(root: Path) -> None:
    for name in ("s2l2a", "s1grd"):
        folder = root / "train" / {"s2l2a": "S2L2A", "s1grd": "S1GRD"}[name]
        folder.mkdir(parents=True)
        times = np.stack([times_of("2020-01-01", 4)] * 2)
        bands = stored_bands(name, 1, (2, 4))
        write_group(folder / "a.zarr.zip", name, bands, times, ["0000001", "0000002"])


def write_tars(root: Path) -> None:
    folder = root / "S2L2A"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for n in range(2):
            single = root / "single.zarr.zip"
            bands = stored_bands("s2l2a", n, (4,))
            write_group(single, "s2l2a", bands, times_of("2020-01-01", 4))
            tar.add(single, f"ssl4eos12_train_{n:07d}.zarr.zip")
            single.unlink()


def write_database(root: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [[rng.integers(1, 255, (4, 13, 8, 8)).astype(np.uint8)] for _ in range(40)]
    write_lmdb(root, samples)
    (root / "lock.mdb").unlink()


def write_cubes(root: Path) -> None:
    import h5py

    root.mkdir()
    with h5py.File(root / "a.nc", "w") as file:
        file["t"] = np.arange(11170, 11770, 50)
        file["t"].attrs["units"] = np.bytes_("days since 1990-01-01")
        rng = np.random.default_rng(0)
        for band in ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12", "VV", "VH"):
            values = rng.integers(1, 9000, (12, 8, 8)).astype(np.int16)
            options: dict[str, Any] = (
                {"compression": "gzip", "shuffle": True} if band < "B5" else {}
            )
            file.create_dataset(band, data=values, **options)
            file[band].attrs["_Unsigned"] = np.bytes_("true")


def write_npy_shards(root: Path) -> None:
    source = root.parent / "terramesh_for_shards"
    write_terramesh(source)
    pack(open_source(source), root, shard_size=1)
    shutil.rmtree(source)


def write_tiff_shards(root: Path) -> None:
    source = root.parent / "terramesh_for_shards"
    write_terramesh(source)
    pack(open_source(source), root, shard_size=1, encoding="tiff")
    shutil.rmtree(source)


def read_dataset(root: Path, out: Path) -> tuple[Remark, ...]:
    """Packs what can be read; raises nothing but DataError."""
    mapping = "worldcereal" if (root / "a.nc").exists() else None
    source = open_source(root, mapping=mapping)
    source.estimate()
    find_together(source, Splits((0.5, 0.5)))
    pack(source, out)
    shards = ShardSet(out)
    assert shards.verify() == []
    remarks = (*shards.manifest.skipped, *shards.manifest.noted)
    planes = fuzzing_metadata.independent(root)
    if planes is not None and not any(each.kind in ("metadata", "override") for each in remarks):
        changed = fuzzing_metadata.changed(shards, planes)
        assert not changed, f"silent change of {changed}"
    return remarks


def read_shards(root: Path, out: Path) -> tuple[Remark, ...]:
    """Reads every record; raises nothing but DataError."""
    shards = ShardSet(root)
    shards.verify()
    return ()


Reader = Callable[[Path, Path], tuple[Remark, ...]]
KINDS: Final[dict[str, tuple[Callable[[Path], None], Reader]]] = {
    "ssl4eo-v1.0": (write_v10, read_dataset),
    "geotiff": (write_terramesh, read_dataset),
    "zarr": (write_zarrs, read_dataset),
    "tar": (write_tars, read_dataset),
    "lmdb": (write_database, read_dataset),
    "netcdf": (write_cubes, read_dataset),
    "npy-shards": (write_npy_shards, read_shards),
    "tiff-shards": (write_tiff_shards, read_shards),
}


# Those whose files say something of their numbers.
SAYING: Final = ("ssl4eo-v1.0", "geotiff", "zarr", "netcdf")
_WAYS: Final = ("cut", "flip", "number", "block", "head", "text", "extend")


def mutate(rng: np.random.Generator, path: Path, others: list[Path]) -> str:
    """Damages a file in place; returns how."""
    data = bytearray(path.read_bytes())
    how = str(rng.choice([*_WAYS, "flip", "number", "swap", "empty", "archive"]))
    where = int(rng.integers(max(len(data), 1)))
    if rng.random() < 0.5:  # most of what a parser believes lies near the ends
        where = int(rng.choice([where % 512, max(len(data) - 1 - where % 512, 0)]))
    if how == "swap":
        data = bytearray(others[int(rng.integers(len(others)))].read_bytes())
    elif how == "empty":
        data.clear()
    elif how == "archive":
        data = bytearray(_tricks(rng, bytes(data), path))
    else:
        _change(rng, data, how, where)
    path.write_bytes(data)
    return f"{how} at {where}"


def _change(rng: np.random.Generator, data: bytearray, how: str, where: int) -> None:
    if how == "cut":
        del data[where:]
    elif how == "flip":
        for _ in range(int(rng.integers(1, 20))):
            if data:
                data[(where + int(rng.integers(64))) % len(data)] ^= 1 << int(rng.integers(8))
    elif how == "number":
        size = int(rng.choice([1, 2, 4, 8]))
        value = _LARGE[int(rng.integers(len(_LARGE)))] % 256**size
        order: Any = str(rng.choice(["little", "big"]))
        data[where : where + size] = value.to_bytes(size, order)
    elif how == "block":
        data[where : where + 512] = bytes(rng.integers(0, 256, 512, np.uint8))
    elif how == "head":
        data[:16] = bytes(rng.integers(0, 256, 16, np.uint8))
    elif how == "text":
        _replace_digits(rng, data)
    else:
        data += bytes(rng.integers(0, 256, int(rng.integers(1, 5000)), np.uint8))


def _replace_digits(rng: np.random.Generator, data: bytearray) -> None:
    """Puts an absurd number, or no number at all, where text holds one."""
    digits = [n for n, byte in enumerate(data[:200000]) if 48 <= byte < 58]
    if digits:
        n = int(rng.choice(digits))
        text = rng.choice(["-1", "99999999999", "1e308", "null", '"a"', "[]", "NaN", "0", "{}"])
        data[n : n + 1] = str(text).encode()


def _tricks(rng: np.random.Generator, data: bytes, path: Path) -> bytes:
    """Adds members with names and kinds that an unpacker should not follow."""
    name = str(
        rng.choice(["../../escaped", "/proc/escaped", "a/../../../escaped", "S2L2A/..", "\n"])
    )
    buffer = io.BytesIO(data)
    try:
        if path.suffix == ".tar":
            with tarfile.open(fileobj=buffer, mode="a") as tar:
                member = tarfile.TarInfo(f"{name}.zarr.zip")
                kinds = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"S"]
                member.type = kinds[int(rng.integers(len(kinds)))]
                member.linkname, member.size = "/etc/passwd", 0
                tar.addfile(member)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as file:
                file.writestr(f"{name}/.zarray", "{}")
                file.writestr("bands/0.0.0.0.0", bytes(int(rng.integers(1, 2**25))))  # a bomb
                file.writestr("bands/.zattrs", "[" * 100000)
    except (tarfile.TarError, zipfile.BadZipFile, OSError):
        return data
    return buffer.getvalue()


def _names(message: str, damaged: list[Path]) -> bool:
    """Whether an error names a damaged file, or the folder or archive that it lies in."""
    parts = {part for path in damaged for part in (*path.parts, path.stem)}
    return any(part in message for part in parts)


def _campaign(kind: str, seed: int, count: int, folder: Path, reports: Any) -> None:
    logging.getLogger("tifffile").disabled = True
    write, read = KINDS[kind]
    pristine, damaged = folder / "pristine", folder / "damaged"
    write(pristine)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + _MEMORY, pages + _MEMORY))
    files = sorted(each.relative_to(pristine) for each in pristine.rglob("*") if each.is_file())
    usual = read(pristine, folder / "out")
    shutil.rmtree(folder / "out", ignore_errors=True)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        shutil.copytree(pristine, damaged)
        chosen = [files[int(rng.integers(len(files)))] for _ in range(int(rng.integers(1, 3)))]
        must: bool | None = None
        if number % 2 and kind in SAYING:
            chosen = chosen[:1]
            how, must = fuzzing_metadata.mutate(rng, damaged, damaged / chosen[0])
            done = [(str(chosen[0]), how)]
        else:
            done = [(str(each), mutate(rng, damaged / each, [pristine / f for f in files]))
                    for each in chosen]  # fmt: skip
        reports.send(("started", number, str(done)))
        try:
            remarks = read(damaged, folder / "out")
            if must is not None and (set(remarks) != set(usual)) != must:
                said = "said of what changes nothing" if remarks else "nothing said"
                reports.send(("failed", number, f"{done}: {said}: {remarks[:2]}"))
        except DataError as error:
            if must is False:
                reports.send(("failed", number, f"{done}: {error} changes nothing"))
            if not _names(str(error), chosen):
                reports.send(("failed", number, f"{done}: {error} does not name it"))
        except BaseException as error:  # noqa: BLE001 (anything else is a failure)
            reports.send(("failed", number, f"{done}: {type(error).__name__}: {error}"))
        extra = {each.name for each in folder.iterdir()} - {"pristine", "damaged", "out"}
        if extra:
            reports.send(("failed", number, f"{done}: wrote {extra}"))
        shutil.rmtree(damaged)
        shutil.rmtree(folder / "out", ignore_errors=True)


def run(kind: str, seed: int, count: int, folder: Path, timeout: float = 60.0) -> list[str]:
    """Runs one campaign of `count` damaged datasets in an empty folder; returns its failures.

    A case that takes more than `timeout` seconds hangs.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    inside = folder / "here"
    inside.mkdir(parents=True)
    process = context.Process(target=_campaign, args=(kind, seed, count, inside, sender))
    process.start()
    sender.close()
    failures, last = [], "the start"
    while True:
        try:
            if not receiver.poll(timeout):
                process.kill()
                failures.append(f"{kind} hangs at {last}")
                break
            state, number, text = receiver.recv()
        except EOFError:
            break
        last = f"number {number}: {text}"
        if state == "failed":
            failures.append(f"{kind} seed {seed} {last}")
    process.join()
    if process.exitcode and not failures:
        failures.append(f"{kind} died ({process.exitcode}) at {last}")
    if [each.name for each in folder.iterdir()] != ["here"]:
        failures.append(f"{kind} wrote {sorted(each.name for each in folder.iterdir())}")
    return failures
