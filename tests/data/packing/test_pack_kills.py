"""Kills of `python -m seamo_fast.pack`, of all of it and of single workers."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet

BANDS = {
    "s2c": (
        *(("B1", 60), ("B2", 10), ("B3", 10), ("B4", 10), ("B5", 20), ("B6", 20), ("B7", 20)),
        *(("B8", 10), ("B8A", 20), ("B9", 60), ("B10", 60), ("B11", 20), ("B12", 20)),
    ),
    "s1": (("VV", 10), ("VH", 10)),
}


def write_locations(root: Path, count: int, dates: int) -> None:
    """Writes SSL4EO-S12 v1.0 as published: for each location, date and band a TIFF file."""
    rng = np.random.default_rng(0)
    stamps = [f"2020{month:02d}05T054639" for month in (1, 4, 7, 10)][:dates]
    made: dict[tuple[str, int], np.ndarray] = {}
    for index in range(count):
        for kind, bands in BANDS.items():
            for stamp in stamps:
                folder = root / kind / f"{index:07d}"
                folder /= f"S1A_IW_GRDH_1SDV_{stamp}" if kind == "s1" else f"{stamp}_T43RCP"
                folder.mkdir(parents=True)
                for band, gsd in bands:
                    side = round(2640 / gsd)
                    key = (kind, side)
                    if key not in made:
                        noise = rng.integers(1, 9000, (side, side))
                        made[key] = noise.astype(np.float32 if kind == "s1" else np.uint16)
                    made[key][0] = index + 1
                    tifffile.imwrite(folder / f"{band}.tif", made[key])


def files_of(folder: Path) -> list[Path]:
    """Returns every file below a folder, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def start(source: Path, out: Path, size: int) -> subprocess.Popen[bytes]:
    """Starts packing with two workers, all in a process group of their own."""
    command = [sys.executable, "-m", "seamo_fast.pack", source, out, "--workers", "2"]
    return subprocess.Popen(
        [*map(str, command), "--shard_size", str(size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Returns the processes that packing started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def kill(process: subprocess.Popen[bytes], what: str) -> None:
    """Kills everything at once, the main process, or one worker."""
    try:
        if what == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif what == "worker" and (workers := workers_of(process)):
            os.kill(random.choice(workers), signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass  # it had ended
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30  # workers notice that the main process is gone
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("workers outlive the main process")


def drill(tmp_path: Path, count: int, dates: int, size: int, kills: int) -> int:
    """Kills packing so many times; returns at how many of them it was still at work."""
    source = tmp_path / "source"
    write_locations(source, count, dates)
    began = time.monotonic()
    whole = start(source, tmp_path / "whole", size)
    output = whole.communicate()[0].decode()
    assert whole.returncode == 0, output
    seconds = time.monotonic() - began
    hits = 0
    for number in range(kills):
        process = start(source, tmp_path / "out", size)
        time.sleep(random.uniform(0.2, 0.8) * seconds)
        kill(process, ("group", "main", "worker")[number % 3])
        if (tmp_path / "out" / "manifest.json").exists():
            shutil.rmtree(tmp_path / "out")  # finished: the next kill finds work again
        else:
            hits += 1
    last = start(source, tmp_path / "out", size)
    output = last.communicate()[0].decode()
    assert last.returncode == 0, output
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    for name in files_of(tmp_path / "whole"):
        assert filecmp.cmp(tmp_path / "out" / name, tmp_path / "whole" / name, shallow=False), name
    assert len(ShardSet(tmp_path / "out")) == count
    assert ShardSet(tmp_path / "out").verify() == []
    return hits


def test_killed_packs_are_continued(tmp_path: Path) -> None:
    assert drill(tmp_path, count=12, dates=1, size=2, kills=3) > 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_pack_stopped_by_a_signal_ends_with_its_status(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    write_locations(tmp_path / "source", count=24, dates=1)
    process = start(tmp_path / "source", tmp_path / "out", size=1)
    assert process.stdout is not None
    next(line for line in process.stdout if b"shard-00000" in line)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == status, output  # a shell adds 128 to what ended it
    assert not (tmp_path / "out" / "manifest.json").exists()
    said = "interrupted; run the same command (without --overwrite) again to resume\n"
    assert output.endswith(said) == (number == signal.SIGINT), output


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_locations_and_ten_kills(tmp_path: Path) -> None:
    assert drill(tmp_path, count=1000, dates=4, size=64, kills=10) >= 5
