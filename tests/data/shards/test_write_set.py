"""Writing is all or nothing: a killed or failed writer leaves only whole shards."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.shards import array_files
from seamo_fast.data.shards import write_shard as folder_module
from seamo_fast.data.shards.array_files import tiff_name
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.manifest import Encoding
from seamo_fast.data.shards.write_shard import ShardReport, finished_entry
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality, get_modality
from tests.conftest import Shut

ONE = Modality("one", (Band("A", 10),), "dn", nodata=0)


def add(writer: ShardWriter, values: np.ndarray) -> None:
    writer.add("x", {"one": [values]}, {"one": [None] * 2}, {"one": [True] * 2})


def ramp(size: int = 8) -> np.ndarray:
    return np.arange(1, 2 * size * size + 1, dtype=np.uint16).reshape(2, 1, size, size)


def test_set_appears_only_when_finished(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, [ONE], 2, shard_size=2)
    seen = []
    for _ in range(3):
        add(writer, ramp())
        seen.append(sorted(path.name for path in tmp_path.glob("[!.]*")))
    assert seen == [[], ["shard-00000"], ["shard-00000"]]
    writer.finish()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "manifest.json",
        "shard-00000",
        "shard-00001",
    ]
    assert len(ShardSet(tmp_path)) == 3


def test_a_shard_reports_its_own_samples_and_what_a_killed_run_left_is_removed(
    tmp_path: Path,
) -> None:
    for name in (".shard-00000.k1ll3d", ".shard-00007.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one_10m.npy").write_bytes(b"half")
    (tmp_path / ".notes").mkdir()
    writer = ShardWriter(tmp_path, [ONE], 2, shard_size=2)
    for name in "abcde":
        writer.add(name, {"one": [ramp()]}, {"one": [None] * 2}, {"one": [True] * 2})
    writer.finish()
    reports = [ShardReport.load(tmp_path / f"shard-0000{n}") for n in range(3)]
    assert [report.items for report in reports] == [["a", "b"], ["c", "d"], ["e"]]
    assert {path.name for path in tmp_path.glob(".*")} == {".notes"}


@pytest.mark.parametrize(
    ("encoding", "files"),
    [
        ("npy", ["one_10m.npy"]),
        ("tiff", [tiff_name(0, 0), tiff_name(0, 1), "one_10m"]),
    ],
)
def test_a_shard_is_on_the_disk_before_its_name_appears(
    tmp_path: Path, order_on_disk: list[str], encoding: Encoding, files: list[str]
) -> None:
    writer = ShardWriter(tmp_path / "out", [ONE], 2, encoding=encoding)
    add(writer, ramp())
    writer.finish()
    shard, manifest = (order_on_disk.index(f"rename {n}") for n in ("shard-00000", "manifest.json"))
    assert {f"sync {name}" for name in files} <= set(order_on_disk[:shard])
    for name in ("records.json", "report.json"):
        assert order_on_disk.index(f"rename {name}") < shard
        assert any(each.startswith(f"sync .{name}") for each in order_on_disk[:shard])
    assert order_on_disk[shard + 1] == "sync out"
    assert any(each.startswith("sync .manifest.json") for each in order_on_disk[shard:manifest])
    assert order_on_disk[-1] == "sync out"
    assert manifest == len(order_on_disk) - 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (ramp(6), r"array one_10m must be uint16 \[2, 1, 8, 8\], but got uint16 \[2, 1, 6, 6\]"),
        (ramp().astype(np.int16), r"must be uint16 \[2, 1, 8, 8\], but got int16"),
    ],
)
def test_sample_unlike_the_first_leaves_nothing_behind(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    writer = ShardWriter(tmp_path, [ONE], 2)
    add(writer, ramp())
    with pytest.raises(ValueError, match=message):
        add(writer, values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (ramp().astype(np.float64), r"one_10m must have one of the dtypes uint8, .* got float64"),
        (ramp()[:1], r"array one_10m must be \[2, 1, H, W\], but got \[1, 1, 8, 8\]"),
        (ramp()[:, :, 0, 0], r"array one_10m must be \[2, 1, H, W\], but got \[2, 1\]"),
        (ramp().repeat(2, axis=1), r"must be \[2, 1, H, W\], but got \[2, 2, 8, 8\]"),
    ],
)
def test_first_sample_must_fit_the_modality(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add(ShardWriter(tmp_path, [ONE], 2), values)


def test_missing_modality_is_stored_as_zeros(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, [ONE], 2)
    add(writer, ramp())
    writer.add("y", {}, {"one": [None] * 2}, {"one": [False] * 2})
    with pytest.raises(ValueError, match=r"'one' must come as 1 grids, but got none"):
        writer.add("z", {}, {"one": [None] * 2}, {"one": [False, True]})
    assert list(tmp_path.iterdir()) == []


def test_existing_shards_are_not_touched(shards: ShardSet) -> None:
    with pytest.raises(DataError, match=r"holds shards already; choose another folder"):
        ShardWriter(shards.path, [ONE], 2)
    assert ShardSet(shards.path).verify() == []


def test_nothing_added(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample of nothing could be packed into"):
        ShardWriter(tmp_path / "out", [ONE], 2, source="nothing").finish()


@pytest.mark.parametrize(
    ("value", "state"), [(0, "no valid pixel"), (7, "the same value in every valid pixel")]
)
def test_band_without_variation_cannot_be_normalised(
    tmp_path: Path, value: int, state: str
) -> None:
    writer = ShardWriter(tmp_path, [ONE], 2)
    add(writer, np.full((2, 1, 8, 8), value, np.uint16))
    with pytest.raises(DataError, match=rf"band A of modality 'one' has {state}"):
        writer.finish()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/out: Not a directory"):
        ShardWriter(tmp_path / "file" / "out", [ONE], 2)


@pytest.mark.parametrize("when", ["open", "close"])
def test_full_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = ShardWriter(tmp_path, [ONE], 2, shard_size=3000)
    module, name = {"open": (folder_module, "array_writer"), "close": (array_files, "sync")}[when]
    monkeypatch.setattr(module, name, full)
    message = r"no space left to write .*shard-00000: 0\.8 MB are needed .* MB are free; free some"
    with pytest.raises(DataError, match=message):  # noqa: PT012 (either call may fail)
        add(writer, ramp())
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_finished_shards(small_disk: Callable[[int], Path]) -> None:
    out = small_disk(256) / "out"
    writer = ShardWriter(out, [ONE], 2, shard_size=6)
    message = r"no space left to write .*; free some space or choose another folder"
    with pytest.raises(DataError, match=message):  # noqa: PT012 (some call fails)
        for _ in range(100):
            add(writer, ramp(64))
    assert sorted(path.name for path in out.iterdir()) == ["shard-00000", "shard-00001"]
    for folder in out.iterdir():
        assert np.load(folder / "one_10m.npy").shape == (6, 2, 1, 64, 64)


def test_killed_writer_leaves_whole_shards(tmp_path: Path) -> None:
    script = f"""
import os, signal, numpy as np
from seamo_fast.data import ShardWriter
from seamo_fast.modalities import Band, Modality
writer = ShardWriter({str(tmp_path)!r}, [Modality("one", (Band("A", 10),), "dn")], 1, shard_size=2)
for index in range(5):
    values = np.full((1, 1, 4, 4), index, np.uint16)
    writer.add(str(index), {{"one": [values]}}, {{"one": [None]}}, {{"one": [True]}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.glob("shard-*")) == ["shard-00000", "shard-00001"]
    for number, folder in enumerate(sorted(tmp_path.glob("shard-*"))):
        values = np.load(folder / "one_10m.npy")
        assert values[:, 0, 0, 0, 0].tolist() == [2 * number, 2 * number + 1]
    with pytest.raises(DataError, match="not packed to its end"):
        ShardSet(tmp_path)


@given(
    values=st.lists(st.integers(0, 65535), min_size=6, max_size=60),
    cut=st.integers(1, 5),
    nodata=st.sampled_from([None, 0, 65535]),
)
@settings(max_examples=60, deadline=None)
def test_statistics_do_not_depend_on_the_grouping(
    values: list[int], cut: int, nodata: int | None
) -> None:
    modality = Modality("x", (Band("A", 10),), "dn", nodata=nodata)
    parts = [np.array(part, np.uint16) for part in (values[:cut], values[cut:])]
    total = BandStatistics(1)
    for part in parts:
        one = BandStatistics(1)
        one.add(modality, [part.reshape(1, 1, 1, -1)], np.array([True]))
        total.merge(BandStatistics.from_dict(one.to_dict()))
    kept = np.array([value for value in values if value != nodata], np.float64)
    assert total.count[0] == len(kept)
    if len(kept):
        assert total.mean[0] == pytest.approx(kept.mean(), rel=1e-12, abs=1e-12)
        assert total.squares[0] == pytest.approx(kept.var() * len(kept), rel=1e-9, abs=1e-6)


def test_statistics_leave_out_invalid_groups_and_nan(write_shards: Callable[..., Path]) -> None:
    radar = Modality("r", (Band("VV", 10),), "db")
    values = np.array([[1.0, np.nan, 3.0], [100.0, 100.0, 100.0]], np.float32)
    statistics = BandStatistics(1)
    statistics.add(radar, [values.reshape(2, 1, 1, 3)], np.array([True, False]))
    measured = statistics.apply(radar, "here")
    assert (measured.mean, measured.std, measured.release) == ((2.0,), (1.0,), "here")
    assert get_modality("s1grd").release != "here"


def test_a_shard_of_another_user_is_not_called_damaged(tmp_path: Path, shut: Shut) -> None:
    records = tmp_path / "shard-00000" / "records.json"
    records.parent.mkdir()
    records.write_text("[]")
    message = rf"{records.parent} cannot be read \(Permission denied\); make it readable"
    with shut(records), pytest.raises(DataError, match=message):
        finished_entry(records.parent)
    for text in ("[", '["x"]', '{"a": 1}', '"abc"', "[1]"):
        records.write_text(text)
        with pytest.raises(DataError, match=r"is damaged .*; delete it and run again"):
            finished_entry(records.parent)
