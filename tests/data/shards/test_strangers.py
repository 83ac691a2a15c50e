"""Shard sets of strangers: what they say is compared with what is there, before it costs memory."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast import pretrain, stats, view
from seamo_fast.data import ShardSet
from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.data.shards.array_files import encode_tiff
from seamo_fast.data.shards.write_set import write_manifest
from seamo_fast.data.shards.write_shard import ShardReport
from seamo_fast.errors import DataError
from seamo_fast.profile.__main__ import main as profile
from tests.data.shards.test_shard_set import edit_manifest
from tests.tools import memory_below

Edit = Callable[[dict[str, Any]], object]
BIG = 2**31


def refusal(path: Path) -> str:
    """What opening says; it must not take the memory that the manifest speaks of."""
    with memory_below(2**23), pytest.raises(DataError) as error:
        ShardSet(path)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 2000
    return message


def edit_records(folder: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """Edits the records of the first shard and signs them anew."""
    where = folder / "shard-00000" / "records.json"
    records = json.loads(where.read_text())
    edit(records)
    where.write_text(json.dumps(records))
    crc32 = zlib.crc32(where.read_bytes())
    edit_manifest(folder, lambda manifest: manifest["shards"][0].update(crc32=crc32))


@pytest.mark.parametrize("encoding", ["npy", "tiff"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m["shards"][0].update(samples=BIG),
            r"(holds .* but the manifest says uint16 \[2147483648, 3, 2, 12, 12\]"
            r"|records.json has \d+ bytes, too few for the 2147483648 samples of the manifest)",
        ),
        (
            lambda m: m["arrays"]["s1grd_10m"].update(shape=[3, 2, 9000, 9000]),
            r"(holds .* but the manifest says float32 \[4, 3, 2, 9000, 9000\]"
            r"|a tile of array s1grd_10m has 648000000 bytes; of a TIFF file at most 268435456)",
        ),
        (
            lambda m: m["arrays"]["s1grd_10m"].update(shape=[3, 2, 2000, 2000]),
            r"(holds .* but the manifest says float32 \[4, 3, 2, 2000, 2000\]"
            r"|_0.tif holds float32 \[12, 12, 2\], but the manifest says .*\[2000, 2000, 2\])",
        ),
        (
            lambda m: (
                m.update(seasons=BIG)
                or [a["shape"].__setitem__(0, BIG) for a in m["arrays"].values()]
            ),
            r"(holds .* but the manifest says uint16 \[4, 2147483648, 2, 12, 12\]"
            r"|a size of array optic_10m is \d+)",
        ),
        (lambda m: m["shards"].append(m["shards"][0]), "names shard-00000 twice"),
        (lambda m: m["shards"].clear(), "names no shards"),
        (lambda m: (m["modalities"].clear(), m["arrays"].clear()), "names no modalities"),
        (lambda m: m["shards"][0].update(samples=0), "samples of 'shard-00000' is 0"),
        (lambda m: m["shards"][0].update(samples=4.0), r"samples of 'shard-00000' is 4\.0"),
        (lambda m: m["shards"][0].update(samples=True), "samples of 'shard-00000' is True"),
        (lambda m: m["shards"][0].update(extra=1), "unexpected keyword argument 'extra'"),
        (lambda m: m["shards"][0].pop("crc32"), "crc32"),
        (lambda m: m.update(seasons=3.0), r"seasons is 3\.0; expected int"),
        (lambda m: m.update(seasons="3"), "seasons is '3'; expected int"),
        (lambda m: m.update(source=["x"]), r"source is \['x'\]; expected str"),
        (
            lambda m: m.update(noted=[{"what": 1, "why": "", "kind": ""}]),
            "a remark is .*; expected",
        ),
        (
            lambda m: m["arrays"]["s1grd_10m"].update(shape="3212"),
            "a shape is '3212'; expected list",
        ),
        (lambda m: m["arrays"]["s1grd_10m"].update(shape=[3, 2, 12, "x"]), "a size of .* is 'x'"),
        (
            lambda m: m["arrays"]["s1grd_10m"].update(shape=[9] * 10**5),
            r"records of shape \[9, 9, ",
        ),
        (
            lambda m: m["modalities"][1].update(std=[1.0, 1e-320]),
            "1e-320|inf, of its mean, scale or 1 / std",
        ),
        (
            lambda m: m["modalities"][1].update(mean=[1.0, 1e39]),
            r"1e\+39, of its mean, scale or 1 / std",
        ),
        (lambda m: m["modalities"][1].update(mean=["1", "2"]), "mean must be finite numbers"),
        (lambda m: m["modalities"][1].update(std=None), "'s1grd' has no statistics; pack the data"),
        (lambda m: m["modalities"][1].update(scale=True), "scale must be finite numbers"),
        (lambda m: m["modalities"][1].update(scale=0), "has scale 0; expected"),
        (lambda m: m["modalities"][1].update(name=7), "name must be text"),
        (lambda m: m["modalities"][1].update(name="s1\ngrd"), "must consist of letters"),
        (lambda m: m["modalities"][1].update(name="x" * 10**6), "describes the arrays"),
        (lambda m: m["modalities"][0]["bands"][0].update(gsd=-10), "gsd of band 'A' must be a"),
        (lambda m: m["modalities"][0]["bands"][0].update(gsd="10"), "gsd of band 'A' must be a"),
        (lambda m: m["modalities"][0]["bands"][0].update(name=None), "name must be text"),
        (lambda m: m["modalities"].append(7), "modality 7 is not described as expected"),
        (
            lambda m: m["modalities"][0].update(
                bands=[{"name": f"A{n}", "gsd": 10} for n in range(2000)]
            ),
            "'optic' has 2000 bands; expected at most 1024",
        ),
    ],
)
def test_impossible_manifests(
    write_shards: Callable[..., Path], encoding: str, edit: Edit, message: str
) -> None:
    path = write_shards(6, encoding=encoding)
    edit_manifest(path, edit)
    found = refusal(path)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc", "", "shard-00000/../x", "shard-1\0", "shard-00000\n", "shard-" + "0" * 300],
)
def test_shards_are_named_as_folders_of_the_set(
    write_shards: Callable[..., Path], name: str
) -> None:
    path = write_shards(6)
    edit_manifest(path, lambda m: m["shards"][0].update(name=name))
    assert "names a shard" in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"format": 1, "format": 1}', r"it has the key 'format' twice"),
        (b'{"format": 1, "seasons": NaN}', "it has NaN in place of a number"),
        (b'{"format": 1, "seasons": -Infinity}', "it has -Infinity in place of a number"),
        (b"[" * 100_000, "it is nested too deep"),
        (b"[" + b"[]," * 2**23 + b"[]]", r"it takes \d+ MiB of memory or more; JSON may take 1024"),
        (b"\xff\xfe\xff", "decode|Decode"),
    ],
    ids=["twice", "NaN", "infinite", "deep", "large", "no text"],
)
def test_json_of_strangers(write_shards: Callable[..., Path], text: bytes, message: str) -> None:
    path = write_shards(6)
    (path / "manifest.json").write_bytes(text)
    with pytest.raises(DataError, match=rf"manifest.json cannot be read .*({message})"):
        ShardSet(path)
    path = write_shards(6, name="records")
    (path / "shard-00000" / "records.json").write_bytes(text)
    edit_manifest(path, lambda m: m["shards"][0].update(crc32=zlib.crc32(text)))
    with pytest.raises(DataError, match=rf"records.json is not as expected .*({message})"):
        ShardSet(path).groups(0)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["manifest.json", "shard-00000/records.json", "shard-00000/s1grd_10m.npy"]
)
def test_a_named_pipe_is_no_part_of_a_set(write_shards: Callable[..., Path], name: str) -> None:
    path = write_shards(6)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(DataError, match=r"it is a named pipe; expected a regular file"):
        ShardSet(path).groups(0)


def test_a_tile_that_is_a_named_pipe_is_a_damaged_record(write_shards: Callable[..., Path]) -> None:
    path = write_shards(6, encoding="tiff")
    tile = path / "shard-00000" / "s1grd_10m" / "00000_0.tif"
    tile.unlink()
    os.mkfifo(tile)
    (bad,) = ShardSet(path).verify()
    assert "00000_0.tif cannot be read (it is a named pipe" in bad


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop(), "expected a list of 4 records"),
        (lambda r: r.append(r[0]), "expected a list of 4 records"),
        (lambda r: r[0].update(id=7), "an id is no text"),
        (lambda r: r[0].pop("id"), r"KeyError\('id'\)"),
        (lambda r: r[0]["valid"]["optic"].pop(), "inhomogeneous|must be"),
        (lambda r: r[0]["valid"].update(optic=["false"] * 3), "valid and dates must be"),
        (lambda r: r[0]["valid"].update(optic=[0, 1, 2]), "valid and dates must be"),
        (
            lambda r: [each["dates"].update(optic=each["dates"]["optic"][:1]) for each in r],
            "inhomog",
        ),
        (lambda r: r[0]["dates"].update(optic=[1, 2, 3]), "fromisoformat"),
        (lambda r: r[0]["dates"].update(optic=["2020-02-30", None, None]), "day is out of range"),
        (lambda r: r[0]["dates"].update(optic="2020"), "Invalid isoformat"),
        (lambda r: r[0]["crc32"].update(optic_10m=-1), "a crc32 is none"),
        (lambda r: r[0]["crc32"].update(optic_10m=2**32), "a crc32 is none"),
        (lambda r: r[0]["crc32"].update(optic_10m=2.5), "a crc32 is none"),
        (lambda r: r[0]["crc32"].update(optic_10m=[1, 2, 3]), "inhomogeneous"),
        (lambda r: r.__setitem__(0, 5), "not subscriptable"),
        (
            lambda r: r.__setitem__(0, {"id": "a", "valid": [], "dates": [], "crc32": []}),
            "list ind",
        ),
    ],
)
def test_impossible_records(
    write_shards: Callable[..., Path],
    edit: Callable[[list[dict[str, Any]]], object],
    message: str,
) -> None:
    path = write_shards(6)
    edit_records(path, edit)
    with pytest.raises(DataError, match=r"records.json is not as expected .*; delete ") as error:
        ShardSet(path).groups(0)
    assert re.search(message, str(error.value)), error.value


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"id":"place-0"', '"id":"x","id":"place-0"'),
        ('"id":"place-0","place":"place-0"', '"id":"place-0","id":"a\\u003a"'),
        ('"id":"place-0","place":"place-0"', '"id":"x","id":"place-0"'),
        ('"valid":{', '"valid":{"s1grd":[],'),
    ],
)
def test_a_record_that_says_something_twice(
    write_shards: Callable[..., Path], old: str, new: str
) -> None:
    path = write_shards(6)
    where = path / "shard-00000" / "records.json"
    where.write_text(where.read_text().replace(old, new, 1))
    crc32 = zlib.crc32(where.read_bytes())
    edit_manifest(path, lambda manifest: manifest["shards"][0].update(crc32=crc32))
    with pytest.raises(
        DataError, match=r"records.json is not as expected .*it has the key .* twice"
    ):
        ShardSet(path).groups(0)


def test_names_with_colons_and_escapes_are_read(write_shards: Callable[..., Path]) -> None:
    path = write_shards(6)
    edit_records(path, lambda records: [r.update(id='a:"\\é', place="::") for r in records])
    assert ShardSet(path).id(0) == 'a:"\\é'


def test_twice_the_records_of_half_the_seasons(write_shards: Callable[..., Path]) -> None:
    """As many numbers as expected, in another shape."""
    path = write_shards(4)

    def split(records: list[dict[str, Any]]) -> None:
        for each in records:
            each["valid"] = {
                name: [[valid[0]], [valid[1]], [valid[2]]] for name, valid in each["valid"].items()
            }

    edit_records(path, split)
    with pytest.raises(DataError, match=r"valid and dates must be \[3\] in each record"):
        ShardSet(path).groups(0)


def test_a_tile_that_claims_more_than_the_manifest_is_not_decoded(
    write_shards: Callable[..., Path],
) -> None:
    """A damaged record, where another tile has the shape of the manifest; else no set."""
    path = write_shards(6, encoding="tiff")
    tiles = sorted(path.glob("shard-*/s1grd_10m/*_0.tif"))
    huge = encode_tiff(np.zeros((2, 3000, 3000), np.float32))
    tiles[0].write_bytes(b"none")
    tiles[1].write_bytes(huge)
    shards = ShardSet(path)
    message = r"00001_0.tif holds float32 \[3000, 3000, 2\], but the"
    with memory_below(2**23):
        bad = [str(error) for error in shards.verify()]
        with pytest.raises(DataError, match=message):
            shards.read(1, verify=False)
    assert len(bad) == 2
    for tile in tiles:
        tile.write_bytes(huge)
    assert re.search(r"_0.tif holds float32 \[3000, 3000, 2\], but the manifest", refusal(path))


def test_a_set_whose_numbers_hold_is_read_as_before(write_shards: Callable[..., Path]) -> None:
    for encoding in ("npy", "tiff"):
        shards = ShardSet(write_shards(6, name=encoding, encoding=encoding))
        loader = TileLoader(
            shards, batch_size=3, seed=0, modalities=["s1grd"], seasons=2, on_bad="stop"
        )
        assert next(iter(loader)).bands["s1grd"][0].shape == (3, 2, 2, 12, 12)


@pytest.mark.parametrize("command", ["pretrain", "stats", "view", "profile"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["shards"].append(m["shards"][0]), "names shard-00000 twice"),
        (lambda m: m["shards"].clear(), "names no shards"),
        (lambda m: m["shards"][0].update(samples=BIG), "but the manifest says"),
        (lambda m: m["shards"][0].update(name="../x"), "names a shard '../x'"),
    ],
)
def test_every_command_ends_with_one_line(
    write_shards: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    edit: Edit,
    message: str,
) -> None:
    path = write_shards(6)
    edit_manifest(path, edit)
    run = [f"--run.folder={tmp_path / 'run'}", "--run.tensorboard=false"]
    status = {
        "pretrain": lambda: pretrain.main([f"--data.path={path}", *run]),
        "stats": lambda: stats.main([str(path)]),
        "view": lambda: view.main([str(path), f"--out={tmp_path / 'sheet.png'}"]),
        "profile": lambda: profile(["step", f"--data.path={path}", f"--profile.folder={tmp_path}"]),
    }[command]()
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", None),
        ('{"items": 5}', "items is 5; expected list"),
        ('{"settings": []}', r"settings is \[\]; expected dict"),
        ('{"files": "x"}', "files is 'x'; expected list"),
        ('{"noted": [5]}', "must be an iterable"),
        ('{"extra": 5}', "unexpected keyword argument 'extra'"),
        ("[" * 100_000, "it is nested too deep"),
        ('{"items": [], "items": []}', "it has the key 'items' twice"),
    ],
)
def test_reports_of_strangers(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "report.json").write_text(text)
    if message is None:
        assert ShardReport.load(tmp_path).items == []
        return
    with pytest.raises(DataError, match=rf"was not written by this program \(.*{message}"):
        ShardReport.load(tmp_path)


def test_statistics_of_a_report_that_are_none(write_shards: Callable[..., Path]) -> None:
    path = write_shards(4)
    shards = ShardSet(path)
    report = ShardReport.load(path / "shard-00000")
    plain = [replace(each, mean=None, std=None) for each in shards.modalities]
    for wrong in ({}, {"count": [1]}, {"count": [1, 1, 1], "mean": ["x"] * 3, "squares": [1] * 3}):
        report.statistics["optic"] = wrong
        with pytest.raises(DataError, match=r"a report.json in .* holds no statistics of optic \("):
            write_manifest(
                path, plain, shards.manifest.arrays, shards.manifest.shards, [report],
                source="", release="",
            )  # fmt: skip
