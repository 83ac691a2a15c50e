"""The packer: deterministic, resumable, and plain about what went wrong."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from seamo_fast import stats, view
from seamo_fast.data import ShardSet
from seamo_fast.data.packing import sources
from seamo_fast.data.packing.disk_space import Room
from seamo_fast.data.packing.packer import Shard, pack
from seamo_fast.data.packing.sources import Reading, open_source
from seamo_fast.data.packing.sources.mapping_files import load_mapping
from seamo_fast.data.shards.manifest import ArraySpec, Remark
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.pack import main

MAPPING = {
    "name": "here",
    "format": "netcdf",
    "seasons": 2,
    "modalities": {"one": {"unit": "dn", "gsd": 10, "bands": {"A": "a"}}},
}


@dataclass
class Made:
    """A source of 1x1 tiles whose value is the item's number; some items are bad."""

    layout: ClassVar[str] = "made"
    looked_for: ClassVar[str] = "nothing"
    path: Path = Path("made")
    release: str = "made-1"
    modalities: tuple[Modality, ...] = (Modality("one", (Band("A", 10),), "dn"),)
    settings: dict[str, Any] = field(default_factory=lambda: {"kind": 1})
    arrays: dict[str, ArraySpec] = field(
        default_factory=lambda: {"one_10m": ArraySpec("uint16", (1, 1, 1, 1))}
    )
    count: int = 10
    bad: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()
    read_items: list[str] = field(default_factory=list)

    def files(self, item: str) -> list[Path]:
        return []

    def estimate(self) -> int:
        return self.count

    def items(self) -> list[str]:
        return [str(number) for number in range(self.count)]

    def read(self, item: str) -> Iterator[Reading]:
        self.read_items.append(item)
        if int(item) in self.broken:
            raise DataError("the place is broken")
        ok = int(item) not in self.bad
        skipped = [] if ok else [Remark(f"tile {item}", "it is bad", "unreadable")]
        values = np.full((1, 1, 1, 1), int(item), np.uint16)
        yield Reading(item, {"one": [values]}, {"one": [None]}, {"one": [ok]}, skipped)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def values(folder: Path) -> list[int]:
    shards = ShardSet(folder)
    return [int(shards.read(index).bands["one"][0][0, 0, 0, 0]) for index in range(len(shards))]


def test_bad_items_are_left_out_and_reported(tmp_path: Path) -> None:
    seen: list[Shard] = []
    manifest = pack(
        Made(bad=(1, 4, 5, 6, 7), broken=(8,)), tmp_path, shard_size=4, progress=seen.append
    )
    assert values(tmp_path) == [0, 2, 3, 9]
    assert [entry.name for entry in manifest.shards] == ["shard-00000", "shard-00002"]
    assert [shard.entry.samples for shard in seen] == [3, 0, 1]
    assert manifest.skipped[:2] == (
        Remark("tile 1", "it is bad", "unreadable"),
        Remark("1", "no tile of it can be used", "unusable"),
    )
    assert manifest.skipped[-1] == Remark("8", "the place is broken", "unreadable")
    assert ShardSet(tmp_path).manifest == manifest


@pytest.mark.parametrize(
    ("source", "message"),
    [(Made(bad=(3,)), "^tile 3: it is bad$"), (Made(broken=(3,)), "^3: the place is broken$")],
)
def test_stop_at_the_first_bad_item(tmp_path: Path, source: Made, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack(source, tmp_path, shard_size=2, on_bad="stop")
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000"]


def test_stop_holds_for_shards_of_an_earlier_run(tmp_path: Path) -> None:
    pack(Made(bad=(3,)), tmp_path)
    with pytest.raises(DataError, match=r"^tile 3: it is bad$"):
        pack(Made(bad=(3,)), tmp_path, on_bad="stop")


def test_what_was_skipped_once_stays_skipped(tmp_path: Path) -> None:
    first = pack(Made(bad=(3,)), tmp_path)
    again = Made(bad=(3,))
    assert pack(again, tmp_path) == first
    assert again.read_items == []
    assert first.skipped[0] == Remark("tile 3", "it is bad", "unreadable")


def test_a_mapping_of_the_package_is_a_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    class Series:
        layout = "series"
        arrays: ClassVar[dict[str, ArraySpec]] = {}

        def __init__(self, *arguments: Any) -> None:
            given.append(arguments)

    monkeypatch.setattr(sources, "Series", Series)
    mapping = load_mapping("worldcereal")
    open_source(tmp_path, "worldcereal", seasons=2, modalities=["s1grd"])
    open_source(tmp_path, mapping="worldcereal", seasons=2, modalities=["s1grd"])
    assert given == [(tmp_path, mapping, 2, ["s1grd"])] * 2


def test_another_source_is_not_taken_for_the_same(tmp_path: Path) -> None:
    pack(Made(), tmp_path)
    with pytest.raises(DataError, match="was packed from other items or with other settings"):
        pack(Made(path=Path("other")), tmp_path)


def test_statistics_survive_another_run(tmp_path: Path) -> None:
    manifest = pack(Made(), tmp_path, shard_size=4)
    measured = replace(manifest, statistics={"one": {}}, noted=(Remark("statistics", "odd"),))
    measured.save(tmp_path)
    assert pack(Made(), tmp_path, shard_size=4) == measured
    shutil.rmtree(tmp_path / "shard-00001")
    assert pack(Made(), tmp_path, shard_size=4) == manifest


def test_finished_shards_are_kept(tmp_path: Path) -> None:
    pack(Made(), tmp_path / "whole", shard_size=4)
    with pytest.raises(DataError):
        pack(Made(broken=(5,)), tmp_path / "out", shard_size=4, on_bad="stop")
    again = Made()
    seen: list[Shard] = []
    pack(again, tmp_path / "out", shard_size=4, progress=seen.append)
    assert [shard.kept for shard in seen] == [True, False, False]
    assert again.read_items == again.items()[4:]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_deleted_shard_is_packed_again(tmp_path: Path) -> None:
    pack(Made(), tmp_path, shard_size=4)
    before = contents(tmp_path)
    shutil.rmtree(tmp_path / "shard-00001")
    with pytest.raises(DataError, match=r"delete .*shard-00001 and run the same pack command"):
        ShardSet(tmp_path)
    pack(Made(), tmp_path, shard_size=4)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "other", [Made(settings={"kind": 2}), Made(count=3)], ids=["settings", "items"]
)
def test_shards_of_another_pack_are_not_mixed_in(tmp_path: Path, other: Made) -> None:
    pack(Made(), tmp_path, shard_size=4)
    before = contents(tmp_path)
    message = r"shard-00000 was packed from other items or with other settings; choose another"
    with pytest.raises(DataError, match=message):
        pack(other, tmp_path, shard_size=4)
    assert contents(tmp_path) == before


def test_folder_that_the_packer_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "shard-00000").mkdir()
    with pytest.raises(DataError, match=r"shard-00000 exists but was not written by this program"):
        pack(Made(), tmp_path)


@pytest.mark.parametrize("option", ["shard_size", "workers"])
def test_impossible_settings(tmp_path: Path, option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigError, match=rf"{option} must be 1 or more, but got 0"):
        pack(Made(), tmp_path, **options)
    with pytest.raises(ConfigError, match=r"seasons must be 1 or more, but got 0"):
        open_source(tmp_path, seasons=0)


@pytest.fixture
def series(tmp_path: Path, write_cube: Callable[..., None]) -> Path:
    """Five places with a mapping.yaml beside them."""
    for place in range(5):
        cube = np.random.default_rng(place).integers(0, 9999, (4, 3, 3)).astype(np.uint16)
        write_cube(tmp_path / "series" / f"{place}.nc", {"a": cube})
    (tmp_path / "series" / "3.nc").write_bytes(b"damaged")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return tmp_path / "series"


def command(series: Path, out: Path, *options: str) -> list[str]:
    return [str(series), str(out), "--mapping", str(series.parent / "mapping.yaml"), *options]


def test_result_does_not_depend_on_the_workers(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(series, tmp_path / "one", "--shard_size", "2", "--workers", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"packing 5 items: about 15 samples, [\d.]+ kB to write, .* free", lines.pop(0)
    )
    assert lines[:5] == [
        "packed shard-00000: 6 samples",
        "packed shard-00001: 3 samples, 1 skipped",
        "packed shard-00002: 3 samples",
        f"packed 12 samples of 5 items into {tmp_path / 'one'} (0.0 MB)",
        "skipped 1: 1 unreadable",
    ]
    assert lines[5].startswith("  3.nc: ")
    assert main(command(series, tmp_path / "two", "--shard_size", "2", "--workers", "2")) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_killed_pack_is_continued(series: Path, tmp_path: Path) -> None:
    main(command(series, tmp_path / "whole", "--shard_size", "1", "--workers", "1"))
    arguments = command(series, tmp_path / "out", "--shard_size", "1", "--workers", "1")
    script = f"""
import os, signal
from seamo_fast.pack import main
from seamo_fast.data.packing.sources.series import Series
sample = Series._sample
def killed(self, id, *rest):
    if id == "2/t001":
        os.kill(os.getpid(), signal.SIGKILL)
    return sample(self, id, *rest)
Series._sample = killed
main({arguments!r})
"""
    process = subprocess.run([sys.executable, "-c", script], check=False, stdout=subprocess.PIPE)
    assert process.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("[!.]*")) == ["shard-00000", "shard-00001"]
    assert len(list(out.glob(".shard-00002.*"))) == 1
    with pytest.raises(DataError, match="not packed to its end"):
        ShardSet(out)
    kept = {path.name: path.stat().st_ino for path in out.glob("shard-*")}
    assert main(arguments) == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.iterdir()}.items()


def test_full_disk_stops_the_pack_and_room_lets_it_go_on(
    tmp_path: Path,
    small_disk: Callable[[int], Path],
    write_cube: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in range(4):
        cube = np.random.default_rng(place).integers(0, 9999, (4, 80, 80)).astype(np.uint16)
        write_cube(tmp_path / "series" / f"{place}.nc", {"a": cube})
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    options = ("--shard_size", "1", "--workers", "1")
    disk = small_disk(256)
    out = disk / "out"
    assert main(command(tmp_path / "series", out, *options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: about 12 samples take 319.5 kB in ")
    assert "free; free some space, choose another folder" in error
    assert not out.exists()
    monkeypatch.setattr(Room, "check", lambda self, out: None)  # as if another program wrote
    assert main(command(tmp_path / "series", out, *options)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no space left to write" in error
    assert "then run the same command again (finished shards are kept)" in error
    finished = sorted(path.name for path in out.iterdir())
    assert finished == [f"shard-{number:05d}" for number in range(len(finished))] != []
    remount = ["mount", "-o", "remount,size=4m", str(disk)]
    subprocess.run(remount, check=True)
    assert main(command(tmp_path / "series", out, *options)) == 0
    assert len(ShardSet(out)) == 12
    assert ShardSet(out).verify() == []


def test_user_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(tmp_path / "nowhere"), "out"], "nowhere does not exist"),
        ([str(tmp_path / "empty"), "out"], "empty is empty; looked for ssl4eo-v1.0: folders s1,"),
        ([str(tmp_path), "out"], "has no known layout; looked for"),
        ([str(tmp_path), "out", "--layout", "zip"], "unknown layout 'zip'; expected auto, ssl4eo"),
        ([str(tmp_path), "out", "--layout", "series"], "a time series needs --mapping"),
        ([str(tmp_path), "out", "--layout", "ssl4eo-v1.0"], "is not ssl4eo-v1.0; looked for"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error


def test_unknown_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b", "--workrs", "1"]) == 2
    assert "'workrs'; the nearest known is 'workers'" in capsys.readouterr().err


def test_a_sample_that_no_memory_holds_is_named(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"a sample of .*series takes 180\.0 GB, too much for"):
        open_source(series, mapping=str(tmp_path / "mapping.yaml"), seasons=10**10)
    for command_of in (main, stats.main, view.main):
        given = command(series, tmp_path / "out", "--seasons", "10000000000")
        if command_of is not main:
            given.remove(str(tmp_path / "out"))
        assert command_of(given) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("inside", [".", "out", "one/two"])
def test_a_source_is_never_written_to(
    tmp_path: Path, inside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    assert main([str(source), str(source / inside)]) == 2
    assert "is inside the source" in capsys.readouterr().err
    assert list(source.iterdir()) == []
