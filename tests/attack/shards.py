"""Shards from strangers: manifests, records, arrays, tiles."""

from __future__ import annotations

import json
import shutil
import zlib
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast.data import ShardSet, TileLoader
from seamo_fast.tiles import TileBatch
from tests.attack import trees
from tests.attack.ground import MODALITIES, SAMPLES, SEASONS, Ground, Stored, sample
from tests.attack.isolate import Attack

NAMES: Final = [modality.name for modality in MODALITIES]
EPOCH: Final = date(1970, 1, 1).toordinal()


class Opened:
    """A shard set that was let in, with every sample and the first batch read."""

    def __init__(self, folder: Path) -> None:
        self.shards = ShardSet(folder)
        self.batch: TileBatch = next(
            iter(TileLoader(self.shards, batch_size=2, seed=0, modalities=NAMES, seasons=SEASONS))
        )
        self.ids = [self.shards.id(number) for number in range(len(self.shards))]
        self.read = [self.shards.read(number, NAMES) for number in range(len(self.shards))]


def original(opened: Opened) -> str:
    """Compares what was read with what was written, by the names of the samples."""
    if len(set(opened.ids)) != len(opened.ids):
        return f"a sample is there twice: {opened.ids}"
    for modality in opened.shards.modalities:
        numbers = [*(modality.mean or ()), *(modality.std or ()), modality.scale, modality.offset]
        if not np.isfinite(numbers).all() or not 0 < abs(modality.scale) < 3.5e38:
            return f"{modality.name} is normalised by {numbers}"
    for id, read in zip(opened.ids, opened.read, strict=True):
        number = int(id.removeprefix("place-")) if id[:6] == "place-" else SAMPLES
        if number >= SAMPLES:
            return f"there is no sample {id!r}"
        wrong = differs(read, sample(number))
        if wrong:
            return f"{id}: {wrong}"
    return ""


def differs(read: Any, made: Stored) -> str:
    if not np.array_equal(read.valid, made.valid):
        return f"valid {read.valid.tolist()}"
    if not np.array_equal(read.dates[made.valid], made.days[made.valid]):
        return f"dates {read.dates.tolist()}"
    for name in NAMES:
        for grid, expected in zip(read.bands[name], made.grids[name], strict=True):
            if grid.dtype != expected.dtype or not np.array_equal(grid, expected):
                return f"other values of {name}"
    return ""


def manifest(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A manifest with one to three things wrong."""
    shards = shutil.copytree(ground.shards(str(rng.choice(["npy", "tiff"]))), folder / "shards")  # type: ignore[arg-type]
    path = shards / "manifest.json"
    tree, done = json.loads(path.read_text()), []
    for _ in range(int(rng.integers(1, 3))):
        tree, how = trees.damage(rng, tree)
        done.append(how)
    data = json.dumps(tree).encode()
    if rng.random() < 0.2:
        data, how = trees.damage_text(rng, data)
        done.append(how)
    path.write_bytes(data)
    return Attack("; ".join(done), lambda: Opened(shards), original)


def records(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Records with one thing wrong, signed again as a stranger would."""
    shards = shutil.copytree(ground.shards(str(rng.choice(["npy", "tiff"]))), folder / "shards")  # type: ignore[arg-type]
    path = shards / "shard-00000/records.json"
    tree, how = trees.damage(rng, json.loads(path.read_text()))
    data = json.dumps(tree).encode()
    if rng.random() < 0.15:
        data, how = trees.damage_text(rng, data)
    path.write_bytes(data)
    found = json.loads((shards / "manifest.json").read_text())
    found["shards"][0]["crc32"] = zlib.crc32(data)
    (shards / "manifest.json").write_text(json.dumps(found))

    def check(opened: Opened) -> str:
        return _as_said(opened, json.loads(data))

    return Attack(how, lambda: Opened(shards), check)


def _as_said(opened: Opened, said: Any) -> str:
    """Compares what was read with what the records say, taken by the word."""
    for read, id, record in zip(opened.read, opened.ids, said, strict=False):
        if type(record["id"]) is not str or id != record["id"]:
            return f"the id {record['id']!r} was read as {id!r}"
        for m, name in enumerate(NAMES):
            valid, dates = record["valid"][name], record["dates"][name]
            if [type(each) for each in valid] != [bool] * SEASONS:
                return f"valid {valid} was taken"
            if read.valid[:, m].tolist() != valid:
                return f"valid {valid} was read as {read.valid[:, m].tolist()}"
            for day, number, there in zip(dates, read.dates[:, m], valid, strict=True):
                if there and day and date.fromisoformat(day).toordinal() - EPOCH != number:
                    return f"the date {day!r} was read as {number}"
    return ""


def arrays(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """An array with a wrong header, length or value; now and then the manifest agrees with it."""
    shards = shutil.copytree(ground.npy, folder / "shards")
    path = sorted(shards.rglob("*.npy"))[int(rng.integers(8))]
    data = bytearray(path.read_bytes())
    how = str(rng.choice(["header", "number", "cut", "longer", "value", "text", "pickle", "link"]))
    place = int(rng.integers(128))
    if how == "header":
        data[place] ^= 1 << int(rng.integers(8))
    elif how == "number":
        data[8:10] = int(rng.integers(0, 2**16)).to_bytes(2, "little")
    elif how == "cut":
        del data[int(rng.integers(len(data))) :]
    elif how == "longer":
        data += bytes(int(rng.integers(1, 5000)))
    elif how == "value":
        data[128 + int(rng.integers(len(data) - 128))] ^= 255
    elif how == "text":
        header = _header(rng, path)
        data[10:128] = header.ljust(117)[:117] + b"\n"
    elif how == "pickle":
        path.unlink()
        np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
        data = bytearray(path.read_bytes())
    else:
        path.unlink()
        path.symlink_to("/dev/zero" if rng.random() < 0.5 else "/proc/self/mem")
        return Attack(f"{path.name} is a link", lambda: Opened(shards), original)
    path.write_bytes(data)
    return Attack(f"{path.name} {how} at {place}", lambda: Opened(shards), original)


def _header(rng: np.random.Generator, path: Path) -> bytes:
    shape = np.load(path, mmap_mode="r").shape
    huge = (2**40, *shape[1:])
    options = [
        {"descr": "|O", "fortran_order": False, "shape": shape},
        {"descr": "<u8", "fortran_order": False, "shape": shape},
        {"descr": "<f4", "fortran_order": True, "shape": shape},
        {"descr": "<u2", "fortran_order": False, "shape": huge},
        {"descr": ">u2", "fortran_order": False, "shape": shape},
        {"descr": [("a", "<u2")], "fortran_order": False, "shape": shape},
        {"descr": "<u2", "fortran_order": False, "shape": (-1, *shape[1:])},
        {"descr": "<u2", "shape": shape},
    ]
    return repr(options[int(rng.integers(len(options)))]).encode()


def tiles(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A tile of the compressed tier that was damaged, with a checksum that fits or not."""
    from tests.data.packing import fuzzing

    shards = shutil.copytree(ground.tiff, folder / "shards")
    files = sorted((shards / "shard-00000").rglob("*.tif"))
    path = files[int(rng.integers(len(files)))]
    how = fuzzing.mutate(rng, path, files)
    if rng.random() < 0.7:
        _sign(shards, path)
    return Attack(f"{path.name} {how}", lambda: Opened(shards), lambda opened: "")


def _sign(shards: Path, path: Path) -> None:
    """Gives a tile the checksum that it has, in its record and so in the manifest."""
    record, season = map(int, path.stem.split("_"))
    file = path.parents[1] / "records.json"
    tree = json.loads(file.read_text())
    tree[record]["crc32"][path.parent.name][season] = zlib.crc32(path.read_bytes())
    file.write_text(json.dumps(tree))
    said = json.loads((shards / "manifest.json").read_text())
    said["shards"][0]["crc32"] = zlib.crc32(file.read_bytes())
    (shards / "manifest.json").write_text(json.dumps(said))
