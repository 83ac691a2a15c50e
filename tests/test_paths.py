"""Folders with spaces and letters of any script, and folders that may not be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seamo_fast import SeaMoBackbone, finetune, pack, pretrain, stats, view
from seamo_fast.data import ShardSet
from seamo_fast.data.demo.dataset import demo_shards
from tests.data.packing.saying import S2, counts, write_mapping, write_tiff
from tests.eurosat import make_eurosat

TINY = [
    *("--model.width=16", "--model.depth=1", "--model.heads=2", "--model.image_size=16"),
    *("--model.decoder_width=16", "--model.decoder_depth=1", "--model.decoder_heads=2"),
    *("--data.batch_size=2", "--run.steps_per_stage=1", "--run.device=cpu"),
    *("--run.precision=fp32", "--run.figure_samples=1", "--run.tensorboard=false"),
]
NAMES = ["with spaces", "Größe – 海 – Ñandú", "a'b\"c", "percent %s {x} [1] $HOME ~ #", "-dash"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with all of these names."""
    made = tmp_path.joinpath(*NAMES)
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_pack_stats_and_view(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write_tiff(folder / "in/p0/20200301.tif", counts())
    mapping = write_mapping(folder, {"s2": S2})
    out = folder / "shards"
    assert pack.main([str(folder / "in"), str(out), "--mapping", mapping, "--workers", "1"]) == 0
    np.testing.assert_array_equal(ShardSet(out).read(0).bands["s2"][0][0], counts())
    assert stats.main([str(out), "--workers", "1"]) == 0
    assert view.main([str(out), "--out", str(folder / "sheet.png")]) == 0
    assert (folder / "sheet.png").stat().st_size


def test_pretrain_resume_and_use(folder: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(
        demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2), folder / "shards"
    )
    run = folder / "run"
    line = [*TINY, "--data.path", str(shards), "--run.folder", str(run)]
    assert pretrain.main(line) == 0
    newest = max((run / "checkpoints").glob("step_*"))
    shutil.rmtree(newest)
    assert pretrain.main(line) == 0
    assert newest.is_dir()
    tokens = SeaMoBackbone.from_checkpoint(run)({"s1grd": torch.full((1, 2, 16, 16), -12.0)})
    assert tokens.isfinite().all()


def test_finetune(folder: Path) -> None:
    data = make_eurosat(folder / "data", "eurosat_rgb", 6)
    line = ["--data", str(data), "--output", str(folder / "out"), "--device", "cpu"]
    assert finetune.main(line) == 0
    assert any((folder / "out").iterdir())


def unprivileged(*words: object) -> subprocess.CompletedProcess[str]:
    """Runs a command that may not write where modes forbid it, though the tests run as root."""
    drop = []
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root without setpriv may write everywhere")
        given_up = "-dac_override,-dac_read_search"
        drop = ["setpriv", f"--bounding-set={given_up}", f"--inh-caps={given_up}"]
    line = [*drop, sys.executable, "-m", "seamo_fast", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert all(each in last for each in said), last


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    made = tmp_path / "read-only"
    made.mkdir()
    made.chmod(0o555)
    return made


def test_a_run_folder_that_may_not_be_written(tmp_path: Path, read_only: Path) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    line = ("pretrain", *TINY, "--data.path", shards, "--run.folder", read_only / "run")
    refused(unprivileged(*line), f"run.folder {read_only / 'run'} cannot be written", "Permission")
    assert list(read_only.iterdir()) == []


def test_shards_that_may_not_be_written(tmp_path: Path, read_only: Path) -> None:
    write_tiff(tmp_path / "in/p0/20200301.tif", counts())
    mapping = write_mapping(tmp_path, {"s2": S2})
    line = ("pack", tmp_path / "in", read_only / "out", "--mapping", mapping, "--workers", 1)
    refused(unprivileged(*line), str(read_only / "out"), "Permission denied")
    assert list(read_only.iterdir()) == []


def test_statistics_that_may_not_be_stored(tmp_path: Path) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    before = (shards / "manifest.json").read_bytes()
    shards.chmod(0o555)
    refused(unprivileged("stats", shards, "--workers", 1), str(shards), "Permission denied")
    assert (shards / "manifest.json").read_bytes() == before


def test_shards_that_may_only_be_read_are_trained_on(tmp_path: Path) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    for path in (*shards.rglob("*"), shards):
        path.chmod(0o555 if path.is_dir() else 0o444)
    line = ("pretrain", *TINY, "--data.path", shards, "--run.folder", tmp_path / "run")
    done = unprivileged(*line)
    assert done.returncode == 0, done.stderr
