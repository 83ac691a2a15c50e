from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data.demo.dataset import (
    OPTICAL,
    VERSION,
    DemoSample,
    demo_sample,
    demo_shards,
)
from seamo_fast.data.demo.scene import OPTICAL_BANDS, make_scene
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.modalities import get_modality

SMALL = {"samples": 5, "size": 12, "seasons": 2, "seed": 4}


def digest(sample: DemoSample) -> str:
    checksum = hashlib.sha256(repr((sample.dates, sample.valid)).encode())
    for name in sorted(sample.arrays):
        for array in sample.arrays[name]:
            checksum.update(array.tobytes())
    return checksum.hexdigest()


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def many() -> list[DemoSample]:
    return [demo_sample(0, index, size=12, seasons=4) for index in range(200)]


def test_native_grids_are_area_means_of_the_scene() -> None:
    scene = make_scene(0, 0, size=96, seasons=4)
    arrays = demo_sample(0, 0, size=96, seasons=4).arrays["s2l2a"]
    layout = {
        96: ["B2", "B3", "B4", "B8"],
        48: ["B5", "B6", "B7", "B8A", "B11", "B12"],
        16: ["B1", "B9"],
    }
    for array, (edge, names) in zip(arrays, layout.items(), strict=True):
        assert array.dtype == np.uint16
        assert array.shape == (4, len(names), edge, edge)
        step = 96 // edge
        for channel, name in enumerate(names):
            fine = scene.optical[:, OPTICAL_BANDS.index(name)].astype(np.float64)
            exact = 1e4 * fine.reshape(4, edge, step, edge, step).mean(axis=(2, 4))
            noise = array[:, channel] - exact
            # 15 digital numbers and 0.4 % of the signal.
            spread = np.sqrt((15 + 0.004 * exact) ** 2 + 1 / 12)
            assert abs((noise / spread).std() - 1) < 0.1
            assert np.abs(noise / spread).max() < 6


def test_radar_is_stored_as_decibels_on_one_grid() -> None:
    (array,) = demo_sample(0, 1, size=48, seasons=4).arrays["s1grd"]
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, make_scene(0, 1, size=48, seasons=4).radar)


def test_statistics_fit_those_of_the_registry() -> None:
    samples = [demo_sample(0, index, size=48, seasons=4) for index in range(60)]
    for name in ("s2l2a", "s1grd"):
        modality = get_modality(name)
        for number, grid in enumerate(modality.grids):
            values = np.stack([sample.arrays[name][number] for sample in samples])
            for channel, band in enumerate(grid.bands):
                assert modality.mean is not None
                assert modality.std is not None
                away = (values[:, :, channel].mean() - modality.mean[band]) / modality.std[band]
                assert abs(away) < 0.7
                assert 0.4 < values[:, :, channel].std() / modality.std[band] < 2


def test_same_arguments_give_same_bytes_in_any_order() -> None:
    forwards = [digest(demo_sample(7, index, size=24, seasons=3)) for index in range(4)]
    backwards = [digest(demo_sample(7, index, size=24, seasons=3)) for index in (3, 2, 1, 0)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 4
    assert digest(demo_sample(8, 0, size=24, seasons=3)) not in forwards


def test_a_few_groups_are_missing(many: list[DemoSample]) -> None:
    for name, share in (("s2l2a", 0.03), ("s1grd", 0.02)):
        missing = ~np.array([sample.valid[name] for sample in many])
        assert 0.5 * share < missing.mean() < 1.6 * share


def test_a_few_tiles_have_a_stripe_of_nodata_on_all_grids(many: list[DemoSample]) -> None:
    striped = 0
    for sample in many:
        fine, middle, coarse = sample.arrays["s2l2a"]
        blank = coarse[:, 0] == 0
        for array, step in ((fine, 6), (middle, 3), (coarse, 1)):
            expected = blank.repeat(step, axis=1).repeat(step, axis=2)
            assert ((array == 0) == expected[:, None]).all()
        striped += blank.any()
        assert blank.any(axis=(1, 2)).sum() <= 1
        assert not blank.all(axis=(1, 2)).any()
    assert 0.015 < striped / len(many) < 0.08


def test_shards_hold_the_samples(tmp_path: Path) -> None:
    arguments = SMALL | {"samples": 40}
    shards = ShardSet(demo_shards(tmp_path, **arguments))
    assert len(shards) == 40
    assert shards.seasons == 2
    assert shards.modalities == (OPTICAL, get_modality("s1grd"))
    incomplete = 0
    for index in range(40):
        expected = demo_sample(4, index, size=12, seasons=2)
        record = shards.read(index)
        for column, name in enumerate(("s2l2a", "s1grd")):
            valid = np.array(expected.valid[name])
            np.testing.assert_array_equal(record.valid[:, column], valid)
            incomplete += int((~valid).sum())
            for stored, made in zip(record.bands[name], expected.arrays[name], strict=True):
                np.testing.assert_array_equal(stored[valid], made[valid])
                assert not stored[~valid].any()
            days = (record.dates[:, column].astype("datetime64[D]")).astype(object)
            assert days[valid].tolist() == np.array(expected.dates[name])[valid].tolist()
    assert incomplete


def test_modalities_are_described_as_by_the_first_of_this_version(tmp_path: Path) -> None:
    """Runs that began on other descriptions do not resume: raise VERSION if this changes."""
    manifest = json.loads((demo_shards(tmp_path, **SMALL) / "manifest.json").read_text())
    described = json.dumps(manifest["modalities"]).encode()
    assert hashlib.sha256(described).hexdigest()[:16] == "c6cab7803074769e"
    assert VERSION == 1


@pytest.mark.parametrize(
    ("index", "optical", "infrared", "radar", "day"),
    [
        (0, 1952.782, 2107.386, -15.09311, "2019-01-19"),
        (1, 1168.120, 1846.697, -14.56848, "2018-01-17"),
        (2, 1377.886, 2126.068, -11.97045, "2021-12-26"),
    ],
)
def test_samples_are_those_of_the_first_of_this_version(
    index: int, optical: float, infrared: float, radar: float, day: str
) -> None:
    """By their means, which other processors change in the last digits only."""
    sample = demo_sample(0, index, size=48, seasons=4)
    fine, middle, _ = sample.arrays["s2l2a"]
    assert fine.mean() == pytest.approx(optical, rel=1e-4)
    assert middle.mean() == pytest.approx(infrared, rel=1e-4)
    assert sample.arrays["s1grd"][0].mean(dtype=np.float64) == pytest.approx(radar, rel=1e-4)
    assert str(sample.dates["s1grd"][3]) == day


def test_second_call_writes_nothing(tmp_path: Path) -> None:
    folder = demo_shards(tmp_path, **SMALL)
    before = stamps(folder)
    assert demo_shards(tmp_path, **SMALL) == folder
    assert stamps(folder) == before


def test_arguments_decide_the_folder(tmp_path: Path) -> None:
    variants = [SMALL, *({**SMALL, key: value * 2} for key, value in SMALL.items())]
    folders = {demo_shards(tmp_path, **arguments) for arguments in variants}
    assert len(folders) == len(variants)
    assert {folder.parent for folder in folders} == {tmp_path}


def test_cache_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAMO_FAST_CACHE", str(tmp_path / "cache"))
    assert demo_shards(None, **SMALL).parent == tmp_path / "cache"
    monkeypatch.delenv("SEAMO_FAST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert demo_shards(None, **SMALL).parent == tmp_path / "home" / ".cache" / "seamo_fast"


@pytest.mark.parametrize("damage", ["truncated", "no manifest", "no records", "empty"])
def test_broken_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    folder = demo_shards(tmp_path, **SMALL)
    expected = {path.name: path.read_bytes() for path in folder.rglob("*.npy")}
    array = next(folder.rglob("s2l2a_10m.npy"))
    if damage == "truncated":
        array.write_bytes(array.read_bytes()[:-10])
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "no records":
        (array.parent / "records.json").unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    assert demo_shards(tmp_path, **SMALL) == folder
    assert len(ShardSet(folder)) == SMALL["samples"]
    assert {path.name: path.read_bytes() for path in folder.rglob("*.npy")} == expected


def start(root: Path, samples: int) -> subprocess.Popen[str]:
    program = (
        "import sys; from pathlib import Path; "
        "from seamo_fast.data.demo.dataset import demo_shards; "
        f"print(demo_shards(Path(sys.argv[1]), samples={samples}, size=24, seasons=2))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(root)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_ask_at_once_share_one_folder(tmp_path: Path) -> None:
    processes = [start(tmp_path, 40) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (folder,) = printed
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [Path(folder).name]
    shards = ShardSet(folder)
    assert len(shards) == 40
    for index in range(40):
        here = demo_sample(0, index, size=24, seasons=2)
        for name, grids in shards.read(index).bands.items():
            valid = np.array(here.valid[name])
            for stored, made in zip(grids, here.arrays[name], strict=True):
                np.testing.assert_array_equal(stored[valid], made[valid])


def test_killed_writer_leaves_nothing_that_hinders(tmp_path: Path) -> None:
    process = start(tmp_path, 200)
    while not list(tmp_path.glob(".*.partial/.shard*/*.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    folder = demo_shards(tmp_path, samples=200, size=24, seasons=2)
    assert len(ShardSet(folder)) == 200
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 100}, "multiple of 6"),
        ({"size": 0}, "multiple of 6"),
        ({"samples": 0}, "at least 1"),
        ({"seasons": 0}, "at least 1"),
    ],
)
def test_impossible_arguments_are_refused(
    tmp_path: Path, wrong: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        demo_shards(tmp_path, **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .* SEAMO_FAST_CACHE"):
        demo_shards(tmp_path / "file", **SMALL)


def test_failure_leaves_no_partial_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seamo_fast.data.demo.dataset.demo_sample", fail)
    with pytest.raises(DataError, match="no space left"):
        demo_shards(tmp_path, **SMALL)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
