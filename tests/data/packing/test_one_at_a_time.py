"""One process at a time writes a folder of shards; the others end with a line and touch nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from seamo_fast import files, stats
from seamo_fast.data import ShardSet
from seamo_fast.data.checks.measure import measure, store
from seamo_fast.data.packing.packer import pack
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.pack import main
from tests.data.packing.fuzzing import KINDS
from tests.data.packing.test_packer import Made, contents
from tests.tools import locked_by_another


@pytest.fixture
def hold() -> Iterator[Callable[[Path], int]]:
    """Returns a function that locks a folder in another process, whose number it returns."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(locked_by_another(folder))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    KINDS["geotiff"][0](tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--splits", "0.5,0.5")])
def test_the_second_pack_ends_with_a_line_and_touches_nothing(
    options: tuple[str, ...],
    source: Path,
    tmp_path: Path,
    hold: Callable[[Path], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main([str(source), str(out), "--workers", "1"]) == 0
    assert not (out / ".lock").exists()
    partial = out / ".shard-00007.12"  # the first is at work
    partial.mkdir()
    process = hold(out)
    before = contents(out)
    capsys.readouterr()
    assert main([str(source), str(out), "--workers", "1", *options]) == 2
    message = f"error: OUT {out} is in use by process {process}; wait for it, or choose another "
    assert capsys.readouterr().err == f"{message}folder\n"
    assert contents(out) == before
    assert partial.is_dir()
    assert main(["--check", str(source), "--workers", "1"]) == 0


def test_a_split_that_is_in_use_stops_a_pack(
    source: Path, tmp_path: Path, hold: Callable[[Path], int], capsys: pytest.CaptureFixture[str]
) -> None:
    process = hold(tmp_path / "out" / "val")
    splits = ["--splits", "0.5,0.5", "--workers", "1"]
    assert main([str(source), str(tmp_path / "out"), *splits]) == 2
    assert f"out/val is in use by process {process}" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["val"]


def test_packing_from_python_locks_too(tmp_path: Path, hold: Callable[[Path], int]) -> None:
    hold(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"OUT .*/out is in use by process"):
        pack(Made(), tmp_path / "out")


def test_stats_do_not_write_beside_a_pack(
    write_shards: Callable[..., Path],
    hold: Callable[[Path], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_shards(4)
    before = (path / "manifest.json").read_bytes()
    process = hold(path)
    assert stats.main([str(path), "--workers", "1"]) == 2
    expected = f"error: the shard set {path} is in use by process {process}; wait for it, or"
    assert capsys.readouterr().err.startswith(expected)
    assert (path / "manifest.json").read_bytes() == before


def test_statistics_of_other_shards_are_not_written(
    write_shards: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_shards(4)
    shards = ShardSet(path)
    profiles, _ = measure(shards)
    path.rename(tmp_path / "away")
    write_shards(8)  # packed again meanwhile
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="was packed again while it was measured; run the same"):
        store(shards, profiles, {}, normalize=True)
    assert (path / "manifest.json").read_bytes() == before


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    made, there = tmp_path / "a" / "made", tmp_path / "there"
    there.mkdir()
    for folder in (made, there):
        for _ in range(2):
            with files.locked(folder, "OUT", "folder"):
                assert (folder / ".lock").read_text() == str(os.getpid())
    assert not made.exists()
    assert list(there.iterdir()) == []


def test_a_lock_that_its_holder_removed_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the other process ends, and a third one comes."""
    lockf, calls = files.folders.fcntl.lockf, []

    def late(file: object, how: int) -> None:
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        lockf(file, how)

    monkeypatch.setattr(files.folders.fcntl, "lockf", late)
    with files.locked(tmp_path, "OUT", "folder"):
        assert len(calls) == 2
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.folders.fcntl, "lockf", fails)
    with (
        pytest.raises(ConfigError, match=r"^OUT .*out cannot be locked: No locks available$"),
        files.locked(tmp_path / "out", "OUT", "folder"),
    ):
        pass
