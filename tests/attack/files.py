"""Files from strangers: datasets in every layout, archives, images, NetCDF."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from seamo_fast import pack as pack_command
from seamo_fast.data import ShardSet
from tests.attack import settings
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, command
from tests.attack.series import SERIES
from tests.data.packing import fuzzing, fuzzing_metadata
from tests.tasks.datasets import test_fuzz as readers
from tests.tasks.datasets.mutations import mutate

SECRET: Final = b"content of a local file"


def sources(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A damaged file in a dataset of any layout, packed; or one that says else of its numbers."""
    kind = str(rng.choice([each for each in fuzzing.KINDS if each != "ssl4eo-v1.0"]))
    pristine = ground.datasets / kind
    root = shutil.copytree(pristine, folder / "damaged")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    read = fuzzing.KINDS[kind][1]
    must: bool | None = None
    if kind in fuzzing.SAYING and rng.random() < 0.4:
        how, must = fuzzing_metadata.mutate(rng, root, path)
    else:
        how = fuzzing.mutate(rng, path, [pristine / each.relative_to(root) for each in files])

    def check(remarks: Sequence[object]) -> str:
        there = {each.name for each in folder.iterdir()}
        if not there <= {"damaged", "out"}:
            return f"wrote {there}"
        if must is None:
            return ""
        said = set(remarks) != ground.remarks[kind]
        return "" if said == must else f"{how}: said of it: {said}"

    return Attack(f"{kind} {path.name}: {how}", lambda: read(root, folder / "out"), check, 30.0)


def labelled(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A damaged file of a labelled dataset, every item read."""
    kinds = [each for each in readers.DATASETS if each not in ("sen1floods11", "burn_scars")]
    kind = str(rng.choice(kinds))
    root = shutil.copytree(ground.labelled / kind, folder / "damaged")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    path.write_bytes(mutate(rng, path.read_bytes()))
    opener = readers.DATASETS[kind][1]

    def door() -> int:
        dataset = opener(root)
        return sum(1 for number in range(len(dataset)) if dataset[number])

    def check(items: int) -> str:
        return "" if items else "a dataset without items"

    return Attack(f"{kind} {path.relative_to(root)}", door, check, 30.0)


def images(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """An image whose header claims more than it holds, among good ones."""
    ways = {
        "png": _png_claim,
        "jpg": _jpeg_claim,
        "tif": _tiff_claim,
        "tif deflate": _tiff_bomb,
    }
    how = str(rng.choice(list(ways)))
    suffix = how.split()[0]
    root = folder / "pictures"
    readers.make_pictures(root)
    path = root / f"a/9.{suffix}"
    claim = int(rng.choice([0, 1, 60_000, 65_535, 2**20, 2**31 - 1]))
    data = ways[how](rng, claim)
    path.write_bytes(data)
    # what claims less than it holds is an image; 33 columns of a JPEG are there in one row
    small = claim == 1 and b"\xff\xff\xff\xff" not in data and b"\0\x01\xff\xff" not in data

    def door() -> int:
        dataset = readers.ClassFolder(root)
        return sum(1 for number in range(len(dataset)) if dataset[number])

    def check(items: int) -> str:
        return "" if small else "it was read as an image"

    return Attack(f"{how} of side {claim}", door, check)


def _png_claim(rng: np.random.Generator, side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(int(rng.integers(10, 2**24))))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def _jpeg_claim(rng: np.random.Generator, side: int) -> bytes:
    import imagecodecs

    data = bytearray(imagecodecs.jpeg8_encode(np.zeros((24, 32, 3), np.uint8)))
    place = data.index(b"\xff\xc0")
    size = struct.pack(">HH", side % 2**16, int(rng.choice([side % 2**16, 33, 65_535])))
    if size == struct.pack(">HH", 24, 32):
        size = b"\xff\xff\xff\xff"
    data[place + 5 : place + 9] = size
    return bytes(data)


def _tiff(side: int, data: bytes, compression: int) -> bytes:
    """A TIFF of one strip that says its own size."""
    tags = [
        *((256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, compression)),
        *((262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, side)),
        (279, 4, 1, len(data)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def _tiff_claim(rng: np.random.Generator, side: int) -> bytes:
    return _tiff(side, bytes(int(rng.integers(1, 5000))), int(rng.choice([1, 5, 8])))


def _tiff_bomb(rng: np.random.Generator, side: int) -> bytes:
    return _tiff(max(side, 2), zlib.compress(bytes(2**26)), 8)


def archives(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A tar or zip with links, paths out of it, or more than it can hold, packed."""
    kind = str(rng.choice(["tar", "zarr"]))
    root = shutil.copytree(ground.datasets / kind, folder / "damaged")
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET * 100)
    path = next(each for each in root.rglob("*") if each.suffix in (".tar", ".zip"))
    name = str(
        rng.choice(["../outside/new", "/tmp/seamo-new", f"{outside}/new", "a/../../outside/new"])
    )
    how = str(rng.choice(["path", "link", "hard link", "device", "bomb", "many"]))
    if kind == "tar":
        _in_tar(path, name, how, outside)
    else:
        how = _in_zip(rng, path, name, how)

    def door() -> ShardSet:
        out = folder / "out"
        command(pack_command.main, root, out, "--workers", 1)
        return ShardSet(out)

    def check(shards: ShardSet) -> str:
        written = [str(p) for p in outside.iterdir() if p.name != "secret"]
        if written or Path("/tmp/seamo-new").exists():
            return f"wrote {written}"
        return (
            "" if all(len(s) for s in [shards]) and not stolen(folder / "out") else "stole a file"
        )

    return Attack(f"{kind} {how} {name}", door, check, 30.0)


def stolen(out: Path) -> bool:
    """Whether a local file's content is in the shards."""
    return any(SECRET in path.read_bytes() for path in out.rglob("*") if path.is_file())


def _in_tar(path: Path, name: str, how: str, outside: Path) -> None:
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(f"{name}.zarr.zip")
        kinds = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
        if how in kinds:
            member.type, member.linkname = kinds[how], str(outside / "secret")
            tar.addfile(member)
        elif how == "bomb":
            member.size = 2**20
            tar.addfile(member, io.BytesIO(bytes(2**20)))
        else:
            for number in range(2000 if how == "many" else 1):
                member.name = f"{name}{number}.zarr.zip"
                member.size = len(SECRET)
                tar.addfile(member, io.BytesIO(SECRET))


def _in_zip(rng: np.random.Generator, path: Path, name: str, how: str) -> str:
    import json

    with zipfile.ZipFile(path) as file:
        members = {each: file.read(each) for each in file.namelist()}
    if how == "bomb":
        key = next(each for each in members if each.startswith("bands/0"))
        members[key] = _bomb(str(rng.choice(["zip", "zstd", "blosc"])), members)
        how = "a chunk that is a bomb"
    elif how == "many":
        tree = json.loads(members["bands/.zarray"])
        tree["shape"][-1] = tree["chunks"][-1] = int(rng.choice([2**20, 2**31, 2**62, -1, 0]))
        members["bands/.zarray"] = json.dumps(tree).encode()
        how = f"a shape {tree['shape']}"
    else:
        members[name] = SECRET
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for each, data in members.items():
            file.writestr(each, data)
    return how


def _bomb(kind: str, members: dict[str, bytes]) -> bytes:
    """Returns a chunk of a few kB that unpacks to 3 GiB; of a zip the zip's deflate does that."""
    import imagecodecs

    if kind == "zip":
        return bytes(2**28)
    block = bytes(2**28)
    return (
        imagecodecs.zstd_encode(block) * 12 if kind == "zstd" else imagecodecs.blosc_encode(block)
    )


WAYS: Final = ("external", "link", "virtual", "soft", "huge", "chunk", "times", "units", "good")


def netcdf(rng: np.random.Generator, ground: Ground, folder: Path, how: str = "") -> Attack:
    """A NetCDF that leads to other files, or claims more than it holds, packed by its mapping."""
    how = how or str(rng.choice(WAYS))
    good = rng.integers(200, 4000, (2, 16, 16), dtype=np.uint16)
    _write_netcdf(folder, how, good)
    bands = {"unit": "dn", "gsd": 10, "bands": {"VV": "VV", "VH": "VH"}}
    mapping = {"name": "t", "format": "netcdf", "time": "t", "seasons": 2, "step": 1}
    (folder / "m.yaml").write_text(yaml.safe_dump({**mapping, "modalities": {"s1": bands}}))

    def door() -> ShardSet:
        options = ("--workers", 1, "--mapping", folder / "m.yaml")
        command(pack_command.main, folder / "source", folder / "out", *options)
        return ShardSet(folder / "out")

    def check(shards: ShardSet) -> str:
        if stolen(folder / "out"):
            return "a local file is in the shards"
        [grid] = shards.read(0).bands["s1"]
        right = how in ("good", "soft", "chunk")
        return "" if right and np.array_equal(grid[:, 1], good) else "a file that leads astray"

    return Attack(f"netcdf {how}", door, check, 30.0)


def _write_netcdf(folder: Path, how: str, good: np.ndarray) -> None:
    """Writes a file whose VV is wrong in some way; two local files hold a secret."""
    import h5py

    secret, other = folder / "secret", folder / "other.h5"
    secret.write_bytes(SECRET * 200)
    with h5py.File(other, "w") as file:
        file["VV"] = np.frombuffer(SECRET * 200, "u2", good.size).reshape(good.shape)
    (folder / "source").mkdir()
    with h5py.File(folder / "source/a.nc", "w") as file:
        file["t"] = np.array([0.0, 90.0]) if how != "times" else np.full(2, np.nan)
        file["t"].attrs["units"] = "x" * 10**5 if how == "units" else "days since 2020-01-01"
        file["VH"] = good
        if how == "external":
            file.create_dataset("VV", good.shape, "u2", external=[(str(secret), 0, 1024)])
        elif how == "link":
            file["VV"] = h5py.ExternalLink(str(other), "VV")
        elif how == "soft":
            file["VV"] = h5py.SoftLink("/VH")
        elif how == "virtual":
            layout = h5py.VirtualLayout(good.shape, "u2")
            layout[:] = h5py.VirtualSource(str(other), "VV", good.shape)
            file.create_virtual_dataset("VV", layout)
        elif how == "huge":
            file.create_dataset("VV", (2, 2**20, 2**20), "u2", chunks=(1, 64, 64))
        elif how == "chunk":
            file.create_dataset("VV", good.shape, "u2", chunks=(2, 16, 16), compression="gzip")
        else:
            file["VV"] = good


def strange(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """What is no regular file, where files are expected: pipes, sockets, links in a ring."""
    root = shutil.copytree(ground.series, folder / "source")
    (folder / "m.yaml").write_text(yaml.safe_dump(SERIES))
    path = root / "p0/s2_20200301.tif"
    path.unlink()
    how = str(rng.choice(["pipe", "ring", "folder", "dead link", "device", "empty", "far link"]))
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "empty":
        path.touch()
    else:
        goals = {"ring": path.name, "dead link": "nothing", "device": "/dev/zero"}
        path.symlink_to(goals.get(how, str(ground.series / "p0/s2_20200301.tif")))

    def door() -> ShardSet:
        options = ("--workers", 1, "--mapping", folder / "m.yaml")
        command(pack_command.main, root, folder / "out", *options)
        return ShardSet(folder / "out")

    def check(shards: ShardSet) -> str:
        wrong = settings.as_mapped(shards, yaml.safe_dump(SERIES).encode(), ground.series)
        if how != "far link" and not shards.manifest.skipped and not shards.manifest.noted:
            return "nothing is said of the missing file"
        return wrong

    return Attack(how, door, check, 30.0)
