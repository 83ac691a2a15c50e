"""A shard is kept only while the files that it came from are what they were: all layouts."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.sources.fingerprint import fingerprint
from seamo_fast.data.packing.sources.images import index_images
from seamo_fast.data.shards.write_shard import ShardReport
from seamo_fast.pack import main
from tests.data.packing.fuzzing import KINDS
from tests.data.packing.test_packer import contents

LAYOUTS = ("ssl4eo-v1.0", "geotiff", "zarr", "tar", "lmdb", "netcdf")


@dataclass
class Packs:
    """Packs a source, an item a shard, and keeps what is printed."""

    source: Path
    out: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *options: str, source: Path | None = None) -> tuple[int, str, str]:
        mapping = ["--mapping", "worldcereal"] if (self.source / "a.nc").exists() else []
        arguments = [str(source or self.source), str(self.out), *mapping, *options]
        index_images.cache_clear()  # as in a process of its own
        size = ["--shard_size", "1", "--workers", "1"]
        status = main([*arguments, *size])
        return (status, *self.capsys.readouterr())

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.source.rglob("*") if path.is_file())


@pytest.fixture
def packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Packs:
    """GeoTIFFs of two places."""
    KINDS["geotiff"][0](tmp_path / "a" / "source")
    return Packs(tmp_path / "a" / "source", tmp_path / "out", capsys)


def touch(path: Path) -> None:
    """Gives a file the time that a copy of it has."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_changed_is_noticed(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    KINDS[layout][0](source)
    packs = Packs(source, tmp_path / "out", capsys)
    assert packs()[0] == 0
    before = contents(tmp_path / "out")
    assert packs()[0] == 0  # nothing has changed
    assert contents(tmp_path / "out") == before
    touch(packs.files[0])
    status, _, error = packs()
    assert (status, error.count("\n")) == (2, 1)
    assert re.search(
        r"error: \S+shard-00000 was packed from other files: 1 of its 1 items have changed: \S+ was"
        r" \d+ files of \d+ bytes, changed 20\S+Z, \w{16}, and is \d+ files of \d+ bytes, changed",
        error,
    )
    assert "--verify to compare pixels" in error
    assert contents(tmp_path / "out") == before


def test_two_sources_of_one_name_are_not_mixed(packs: Packs, tmp_path: Path) -> None:
    assert packs()[0] == 0
    other = tmp_path / "b" / "source"
    shutil.copytree(packs.source, other, copy_function=shutil.copyfile)
    (packs.out / "manifest.json").unlink()
    shutil.rmtree(packs.out / "shard-00000")  # the second is looked at before the first is packed
    before = contents(packs.out)
    status, _, error = packs(source=other)
    assert status == 2
    assert "shard-00001 was packed from other files: 1 of its 1 items have changed" in error
    assert contents(packs.out) == before
    assert packs()[0] == 0


@pytest.mark.parametrize("change", ["content", "more", "fewer", "size"])
def test_each_change_of_an_item_counts(packs: Packs, change: str) -> None:
    assert packs()[0] == 0
    file = packs.files[0]
    if change == "fewer":
        file.unlink()
    elif change == "more":  # a second file of the same tile, which can then not be used
        shutil.copy2(file, file.with_suffix(".TIF"))
    elif change == "size":
        state = file.stat()
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        file.write_bytes(file.read_bytes())
    status, _, error = packs()
    assert status == 2
    assert "was packed from other files" in error


def test_a_copy_goes_on_when_its_pixels_are_the_same(packs: Packs, tmp_path: Path) -> None:
    assert packs()[0] == 0
    before = {name: data for name, data in contents(packs.out).items() if "report" not in name}
    for file in packs.files:
        touch(file)
    status, _, error = packs()
    assert status == 2
    assert "(the first of 2 such shards)" in error
    status, out, error = packs("--verify")
    assert (status, error) == (0, "")
    assert "verified 2 samples" in out
    assert before.items() <= contents(packs.out).items()
    assert not list(packs.out.glob(".*"))
    assert packs()[0] == 0  # the shards know the copies now


@pytest.mark.parametrize("splits", [(), ("--splits", "0.5,0.5")])
def test_verify_finds_pixels_that_names_sizes_and_times_do_not_show(
    packs: Packs, splits: tuple[str, ...]
) -> None:
    assert packs(*splits)[0] == 0
    file = packs.source / "S2L2A" / "380D_378R_2_3.tif"
    state, data = file.stat(), bytearray(file.read_bytes())
    data[-600] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    before = contents(packs.out)
    assert packs(*splits)[0] == 0
    status, _, error = packs(*splits, "--verify")
    assert status == 2
    assert re.search(r"shard-00000 holds other pixels or dates than the source: see 380D", error)
    assert "--verify" not in error
    assert contents(packs.out) == before


def test_the_shards_of_what_changed_are_packed_again_when_they_are_deleted(packs: Packs) -> None:
    assert packs()[0] == 0
    kept = (packs.out / "shard-00001").stat().st_ino
    touch(next(file for file in packs.files if "380" in file.name))
    assert "delete such shards and give the same command again" in packs()[2]
    shutil.rmtree(packs.out / "shard-00000")
    assert packs()[0] == 0
    assert (packs.out / "shard-00001").stat().st_ino == kept
    assert len(ShardSet(packs.out)) == 2


def test_shards_of_earlier_versions_are_kept_and_said_so(packs: Packs) -> None:
    assert packs()[0] == 0
    for shard in packs.out.glob("shard-*"):
        report = ShardReport.load(shard)
        report.files = []
        report.save(shard)
    for file in packs.files:
        touch(file)
    status, out, _ = packs()
    assert status == 0
    assert "kept 2 shards of an earlier version, which wrote down nothing of the files" in out
    status, out, _ = packs("--verify")
    assert status == 0
    assert "earlier version" not in out
    assert "earlier version" not in packs()[1]
    touch(packs.files[0])
    assert packs()[0] == 2


def test_a_damaged_list_of_fingerprints_is_no_match(packs: Packs) -> None:
    assert packs()[0] == 0
    report = ShardReport.load(packs.out / "shard-00000")
    report.files *= 4
    report.save(packs.out / "shard-00000")
    status, _, error = packs()
    assert (status, error.count("\n")) == (2, 1)
    assert "was not written by this program (4 files for 1 items)" in error


def test_a_fingerprint_opens_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "there").write_bytes(b"content")
    os.utime(tmp_path / "there", ns=(0, 1606770251 * 10**9 + 1))
    files = [tmp_path / name for name in ("there", "pipe", "gone", "there")]
    assert re.match(r"3 files of 7 bytes, changed \S+, \w{16}$", fingerprint(tmp_path, files))
    one = fingerprint(tmp_path, files[:1])
    assert one.startswith("1 files of 7 bytes, changed 2020-11-30T21:04:11Z, ")
    os.utime(tmp_path / "there", ns=(0, 1606770251 * 10**9 + 2))
    assert fingerprint(tmp_path, files[:1]) != one
    assert fingerprint(tmp_path, []) == fingerprint(Path("elsewhere"), [])
