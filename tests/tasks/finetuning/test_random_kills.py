"""Finetunings as a user starts them, killed at random moments: they end with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.drill.run import children
from tests.tasks.finetuning.test_kills import FILES, contents

KILLS = 4
LIMIT = 240.0  # seconds
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
SETTINGS = {
    "method": "full",
    "size": 32,
    "epochs": 5,
    "batch_size": 4,
    "bootstrap": 100,
    "seeds": 2,
    "classes": "[a,b]",
    "loss": "cross_entropy+dice",
    "drop_path": 0.2,
    "device": "cpu",
    "precision": "fp32",
    "compile": "off",
    "tensorboard": "false",
    "checkpoint_every": 2,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Command:
    """`finetune` on masks, whose every start resumes what the one before left."""

    def __init__(self, folder: Path, masks: Path, weights: Path, launcher: Sequence[str]) -> None:
        given = {**SETTINGS, "data": masks, "checkpoint": weights, "output": folder}
        words = [f"--{key}={value}" for key, value in given.items()]
        self._line = [sys.executable, *launcher, "-m", "seamo_fast.finetune", *words]
        self.folder = folder

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """Gives the command; no process outlives the body."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = self.folder.with_suffix(".log")
        with log.open("ab") as file:
            process = subprocess.Popen(self._line, stdout=file, stderr=file, env=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                for pid in (process.pid, *children(process)):
                    os.kill(pid, signal.SIGKILL)
                process.wait()

    def finish(self) -> float:
        """Waits for the good end; returns the seconds since its folder was there."""
        with self.started() as process:
            begun = self.wait(process)
            assert process.wait(LIMIT) == 0, self.folder.with_suffix(".log").read_text()[-2000:]
            return time.monotonic() - begun

    def wait(self, process: subprocess.Popen[bytes]) -> float:
        """Waits until the process has its folder; returns when that was."""
        end = time.monotonic() + LIMIT
        while not (self.folder / ".lock").exists():
            assert time.monotonic() < end
            if process.poll() is not None:
                break
            time.sleep(0.002)
        return time.monotonic()


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one process", "two ranks"])
def test_killed_runs_of_seeds_end_with_the_same_bits(
    launcher: Sequence[str], tmp_path: Path, masks: Path, small: Path
) -> None:
    whole = Command(tmp_path / "whole", masks, small, launcher)
    seconds = whole.finish()
    killed = Command(tmp_path / "killed", masks, small, launcher)
    moments = np.random.default_rng(len(launcher)).random(KILLS) * seconds * 0.6
    ended = []
    for moment in moments:
        (killed.folder / ".lock").unlink(missing_ok=True)
        with killed.started() as process:
            killed.wait(process)
            time.sleep(moment)
            ended.append(process.poll())
    assert ended.count(None) >= 2  # these were killed before their end
    killed.finish()
    for seed in ("seed_0", "seed_1"):
        for file in FILES:
            found, expected = (contents(each.folder / seed / file) for each in (killed, whole))
            assert found == expected, f"{seed}/{file} after kills at {moments} s of {seconds} s"
