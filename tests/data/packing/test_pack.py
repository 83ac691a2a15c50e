"""The pack command: formats, splits, verification, room, and what a failed pack leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from seamo_fast import stats, view
from seamo_fast.data import ShardSet
from seamo_fast.data.packing import report
from seamo_fast.data.packing.disk_space import Room, estimate
from seamo_fast.data.packing.packer import Plan, pack
from seamo_fast.data.packing.sources import Reading, open_source
from seamo_fast.data.shards.manifest import Manifest
from seamo_fast.errors import DataError
from seamo_fast.pack import main

PATTERN = r"S2/(?P<place>\w+)\.tif"
BANDS = {"A": 1, "B": 2}
MAPPING = {
    "name": "here",
    "format": "geotiff",
    "seasons": 1,
    "modalities": {"opt": {"unit": "dn", "gsd": 10, "bands": BANDS, "files": PATTERN}},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight places of 40 x 40 pixels, a mapping.yaml beside them."""
    (tmp_path / "source" / "S2").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for place in range(8):
        values = rng.integers(1, 200, (40, 40, 2)).astype(np.uint16)
        tifffile.imwrite(
            tmp_path / "source" / "S2" / f"p{place}.tif",
            values,
            photometric="minisblack",
            planarconfig="contig",
        )
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return tmp_path / "source"


@pytest.fixture
def run(source: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Returns a function that packs the source: exit status, output, errors."""

    def call(out: Path, *options: str) -> tuple[int, str, str]:
        mapping = ["--mapping", str(source.parent / "mapping.yaml"), "--workers", "1"]
        status = main([str(source), str(out), *mapping, *options])
        return (status, *capsys.readouterr())

    return call


Run = Callable[..., tuple[int, str, str]]


def test_formats_hold_the_same(run: Run, tmp_path: Path) -> None:
    status, out, _ = run(tmp_path / "npy", "--verify")
    assert status == 0
    assert "verified 8 samples" in out
    status, out, _ = run(tmp_path / "tiff", "--format", "tiff", "--verify")
    assert status == 0
    assert "verified 8 samples" in out
    npy, tiff = ShardSet(tmp_path / "npy"), ShardSet(tmp_path / "tiff")
    assert npy.modalities == tiff.modalities
    for index in range(8):
        np.testing.assert_array_equal(
            npy.read(index).bands["opt"][0], tiff.read(index).bands["opt"][0]
        )


def test_splits_of_the_command(run: Run, tmp_path: Path) -> None:
    status, out, _ = run(tmp_path / "out", "--splits", "0.5,0.5", "--verify")
    assert status == 0
    assert len(ShardSet(tmp_path / "out" / "train")) + len(ShardSet(tmp_path / "out" / "val")) == 8
    assert "train: packed" in out
    status, _, error = run(tmp_path / "cells", "--splits", "0.5,0.5", "--split_cell", "1")
    assert status == 2
    assert "the position of p0 is unknown, so it has no cell" in error
    assert not list((tmp_path / "cells").glob("*"))
    status, _, error = run(tmp_path / "cells", "--split_cell", "1")
    assert (status, error) == (
        2,
        "error: split_cell needs splits, such as --splits 0.9,0.05,0.05\n",
    )


def test_what_does_not_fit_is_not_started(
    run: Run, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    out = small_disk(40) / "out"
    status, _, error = run(out)
    assert status == 2
    assert error.startswith(f"error: about 8 samples take 59.4 kB in {out}, but ")
    assert not out.exists()


def test_estimate_counts_what_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_source(source, mapping=str(tmp_path / "mapping.yaml"))
    plan = Plan(tmp_path / "out", shard_size=3)
    before = estimate(opened, plan)
    assert (before.samples, before.needed) == (8, 8 * (6400 + 1024))
    pack(opened, plan.out, shard_size=3)
    shutil.rmtree(plan.out / "shard-00001")
    assert estimate(opened, plan).needed == 3 * (6400 + 1024)
    tiff = estimate(opened, Plan(tmp_path / "other", encoding="tiff"))
    assert 8 * 3000 < tiff.needed < before.needed
    read = opened.read

    def first_is_empty(item: str) -> Iterator[Reading]:
        for reading in read(item):
            if item == opened.items()[0]:
                reading.arrays, reading.valid = {}, {name: [False] for name in reading.valid}
            yield reading

    monkeypatch.setattr(opened, "read", first_is_empty)
    second = estimate(opened, Plan(tmp_path / "other", encoding="tiff"))
    assert 8 * 3000 < second.needed < before.needed
    with pytest.raises(DataError, match=r"about 5 samples take 2\.0 TB in out, but 1\.0 MB are"):
        Room(5, 2 * 10**12, 10**6).check(Path("out"))


def test_failed_pack_does_not_block_its_folder(run: Run, source: Path, tmp_path: Path) -> None:
    good = (tmp_path / "mapping.yaml").read_text()
    (tmp_path / "mapping.yaml").write_text(good.replace("gsd: 10", "gsd: 10\n    nodata: 0"))
    files = sorted(source.rglob("*.tif"))
    contents = {file: file.read_bytes() for file in files}
    for file in files[1:]:
        file.write_bytes(b"damaged")
    tifffile.imwrite(
        files[0], np.zeros((40, 40, 2), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    status, _, error = run(tmp_path / "out", "--shard_size", "2")
    assert status == 2
    assert "no sample of series: source could be packed into" in error
    assert "p1 opt: p1.tif cannot be read (TiffFileError" in error
    assert "; and 12 more" in error
    assert not (tmp_path / "out").exists()
    for file, data in contents.items():
        file.write_bytes(data)
    assert run(tmp_path / "out")[0] == 0
    assert len(ShardSet(tmp_path / "out")) == 8


def test_overwrite(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--shard_size", "2")[0] == 0
    status, _, error = run(tmp_path / "out", "--shard_size", "3")
    assert status == 2
    assert "was packed from other items or with other settings" in error
    assert "--overwrite" in error
    assert run(tmp_path / "out", "--shard_size", "3", "--overwrite")[0] == 0
    assert len(list((tmp_path / "out").glob("shard-*"))) == 3
    assert run(tmp_path / "out", "--overwrite", "--workers", "0")[0] == 2
    assert len(ShardSet(tmp_path / "out")) == 8  # nothing is deleted before all is checked
    (tmp_path / "mine" / "shard-00000").mkdir(parents=True)
    assert "was not written by this program" in run(tmp_path / "mine", "--overwrite")[2]
    assert (tmp_path / "mine" / "shard-00000").is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layout", "terramesh"), "a mapping describes a series; leave out --layout terramesh"),
        (("--modalities", "[opt,opt]"), "modalities must be some, each once"),
        (("--modalities", "[]"), "modalities must be some, each once"),
    ],
)
def test_options_that_contradict(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    status, _, error = run(tmp_path / "out", *options)
    assert status == 2
    assert message in error


@pytest.mark.parametrize("command", [stats.main, view.main])
def test_unfinished_and_split_folders_are_named(
    run: Run, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "split", "--splits", "0.5,0.5")[0] == 0
    assert command([str(tmp_path / "split")]) == 2
    assert "holds the shard sets train, val; name one" in capsys.readouterr().err
    (tmp_path / "split" / "train" / "manifest.json").unlink()
    assert command([str(tmp_path / "split" / "train")]) == 2
    assert "was not packed to its end" in capsys.readouterr().err


def test_verification_finds_what_the_disk_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = report.summary

    def spoil(split: str, manifest: Manifest, items: int, out: Path) -> Iterator[str]:
        file = out / "shard-00000" / "opt_10m.npy"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        return summary(split, manifest, items, out)

    monkeypatch.setattr(report, "summary", spoil)
    status, _, error = run(tmp_path / "out", "--verify")
    assert status == 2
    assert error.startswith("error: 1 of 8 samples are damaged; the first: ")
    assert "(p7) fails the checksum of opt_10m.npy" in error
