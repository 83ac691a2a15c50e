"""Small files that unpack to more than memory holds, and archives that lead out of themselves.

Each is packed in a process that may take little memory.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from tests.attack.isolate import Attack, Outcome, isolate
from tests.data.packing.published import stored_bands, times_of, write_group
from tests.data.packing.saying import S2, counts, write_mapping, write_tiff

BOMB = 2**28  # bytes
ALLOWED = 2**27


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.attack.isolate.MEMORY", ALLOWED)


def packed(source: Path, out: Path, mapping: str | None = None) -> Outcome:
    """Packs in a process of its own, which may take `ALLOWED` bytes."""

    def door() -> None:
        pack(open_source(source, mapping=mapping), out)

    return isolate(lambda: Attack("a bomb", door, lambda _: "", 60.0))[1]


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Changes the members of a zip file; they are deflated."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def deflate_bomb(members: dict[str, bytes]) -> None:
    members[next(name for name in members if name.startswith("bands/0"))] = bytes(BOMB)


def text_bomb(members: dict[str, bytes]) -> None:
    members["bands/.zarray"] = b" " * BOMB + members["bands/.zarray"]


def zstd_bomb(members: dict[str, bytes]) -> None:
    _chunk(members, {"id": "zstd", "level": 1}, imagecodecs.zstd_encode(bytes(BOMB)))


def blosc_bomb(members: dict[str, bytes]) -> None:
    codec = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    _chunk(members, codec, imagecodecs.blosc_encode(bytes(BOMB)))


def zlib_bomb(members: dict[str, bytes]) -> None:
    _chunk(members, {"id": "zlib", "level": 1}, zlib.compress(bytes(BOMB)))


def _chunk(members: dict[str, bytes], codec: dict[str, object], data: bytes) -> None:
    assert len(data) < BOMB // 100
    array = json.loads(members["bands/.zarray"])
    members["bands/.zarray"] = json.dumps({**array, "compressor": codec}).encode()
    for name in members:
        if name.startswith("bands/0"):
            members[name] = data


@pytest.mark.parametrize("change", [deflate_bomb, text_bomb, zstd_bomb, blosc_bomb, zlib_bomb])
def test_zarr(tmp_path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    folder = tmp_path / "source/train/S2L2A"
    folder.mkdir(parents=True)
    path = folder / "a.zarr.zip"
    times = np.stack([times_of("2020-01-01", 4)])
    write_group(path, "s2l2a", stored_bands("s2l2a", 1, (1, 4)), times, ["0000001"])
    rewrite(path, change)
    outcome = packed(tmp_path / "source", tmp_path / "out")
    assert outcome.verdict == "refused", outcome
    assert "a.zarr.zip" in outcome.text


def tiff(side: int, compression: int, data: bytes) -> bytes:
    """A TIFF of one strip; only the header says how large it is."""
    tags = [
        *((256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16), (259, 3, 1, compression)),
        *((262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, side)),
        (279, 4, 1, len(data)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


CLAIM = r"20200301.tif says that it holds \d+ bytes of pixels"
SMALL = "20200301.tif cannot be read .DeflateError"
TIFFS: dict[str, tuple[Callable[[], bytes], str]] = {
    "deflate": (lambda: tiff(16_384, 8, zlib.compress(bytes(BOMB))), CLAIM),
    "deflate, a small image": (lambda: tiff(8, 8, zlib.compress(bytes(BOMB))), SMALL),
    "zstd": (lambda: tiff(16_384, 50000, imagecodecs.zstd_encode(bytes(BOMB))), CLAIM),
    "lzw": (lambda: tiff(16_384, 5, imagecodecs.lzw_encode(bytes(BOMB // 16))), CLAIM),
    "packed bits": (lambda: tiff(16_384, 32773, b"\x81\x00" * 10_000), CLAIM),
    "nothing behind the header": (lambda: tiff(2**31, 1, bytes(64)), CLAIM),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff(tmp_path: Path, kind: str) -> None:
    make, message = TIFFS[kind]
    bands = {**S2, "bands": {"B2": 1}, "files": r"(\d{8})\.tif"}
    write_tiff(tmp_path / "in/p0/20200301.tif", counts(0, 1))
    (tmp_path / "in/p1").mkdir()
    (tmp_path / "in/p1/20200301.tif").write_bytes(make())
    outcome = packed(tmp_path / "in", tmp_path / "out", write_mapping(tmp_path, {"s2": bands}))
    assert outcome.verdict == "accepted", outcome
    shards = ShardSet(tmp_path / "out")
    [grid] = shards.read(0).bands["s2"]
    np.testing.assert_array_equal(grid[0, 0], counts(0, 1)[0])
    assert re.match(message, shards.manifest.skipped[0].why)


NAMES = ("../outside/new.zarr.zip", "a/../../outside/new.zarr.zip", "{outside}/new.zarr.zip")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_tar_is_never_left(tmp_path: Path, name: str, kind: bytes) -> None:
    """Members with a path out of the archive, and links out of it: nothing is written or read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret.zarr.zip"
    write_group(secret, "s2l2a", stored_bands("s2l2a", 7, (4,)), times_of("2020-01-01", 4))
    good = tmp_path / "good.zarr.zip"
    write_group(good, "s2l2a", stored_bands("s2l2a", 1, (4,)), times_of("2020-01-01", 4))
    folder = tmp_path / "source/train/S2L2A"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "ssl4eos12_shard_000001.tar", "w") as tar:
        tar.add(good, "ssl4eos12_train_0000001.zarr.zip")
        member = tarfile.TarInfo(name.format(outside=outside))
        member.type, member.linkname = kind, str(secret)
        member.size = len(b"new") if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"new"))
    outcome = packed(tmp_path / "source", tmp_path / "out")
    assert outcome.verdict == "accepted", outcome
    assert [path.name for path in outside.iterdir()] == ["secret.zarr.zip"]
    assert len(ShardSet(tmp_path / "out")) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_zip_is_never_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "source/train/S2L2A"
    folder.mkdir(parents=True)
    times = np.stack([times_of("2020-01-01", 4)])
    path = folder / "a.zarr.zip"
    write_group(path, "s2l2a", stored_bands("s2l2a", 1, (1, 4)), times, ["0000001"])
    rewrite(path, lambda members: members.update({name.format(outside=tmp_path): b"new"}))
    outcome = packed(tmp_path / "source", tmp_path / "out")
    assert outcome.verdict == "accepted", outcome
    assert list((tmp_path / "outside").iterdir()) == []
    assert len(ShardSet(tmp_path / "out")) == 1
