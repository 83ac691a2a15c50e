"""A small pretraining run as a user starts it: a process, given again after each disturbance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast.data import ShardWriter
from seamo_fast.data.demo.dataset import OPTICAL, RADAR, demo_sample

SAMPLES: Final = 64
SHARD: Final = 2  # samples: a shard is opened when its first sample is needed
BATCH: Final = 4
TOTAL: Final = 48  # steps: half an epoch of single seasons, then two and a half of both
STAGE_ENDS: Final = (8, TOTAL)
EVERY: Final = 5  # steps between checkpoints, of 9 MB and some 30 ms
KEEP: Final = 3
HUGE: Final = 9  # sample of the spoilt shards whose values overflow
NOT_A_NUMBER: Final = 21  # sample of the spoilt shards whose radar is NaN and infinite
LIMIT: Final = 600.0  # seconds after which a process hangs

SETTINGS: Final = """\
data: {{path: {shards}, batch_size: 4}}
model: {{width: 128, depth: 2, heads: 2, image_size: 16, patch_size: 4,
         decoder_width: 64, decoder_depth: 1, decoder_heads: 2}}
optim: {{blr: 0.1}}
schedule: {{single_season: {{epochs: 1, data_fraction: 0.5}}, multi_season: {{epochs: 2.5}}}}
run: {{folder: {folder}, device: cpu, precision: fp32, figure_samples: 1, tensorboard: false,
       log_every: 1, checkpoint_every: 5, keep: 3}}
"""


def write_shards(folder: Path, spoilt: bool = False) -> Path:
    """Writes the drill's samples; two of the spoilt ones are not what they should be."""
    writer = ShardWriter(folder, (OPTICAL, RADAR), 2, source="drill", shard_size=SHARD)
    for number in range(SAMPLES):
        sample = demo_sample(0, number, size=24, seasons=2)
        radar = sample.arrays[RADAR.name][0]
        if spoilt and number in (HUGE, NOT_A_NUMBER):
            sample.valid[RADAR.name][:] = [True, True]
        if spoilt and number == HUGE:
            radar *= np.float32(1e37)
        if spoilt and number == NOT_A_NUMBER:
            radar[:, 0], radar[:, 1] = np.nan, np.inf
        writer.add(f"demo-{number}", *sample)
    writer.finish()
    return folder


class Run:
    """One run: its folder, and the processes that work on it one after the other.

    Args:
        home: A new folder for settings, output and the samples that were seen.
        shards: What is trained on.
        folder: The run folder; `home/run` if None.
        options: Settings besides, as on the command line.
    """

    def __init__(
        self, home: Path, shards: Path, folder: Path | None = None, options: Sequence[str] = ()
    ) -> None:
        home.mkdir(parents=True)
        self.home = home
        self.shards = shards
        self.folder = folder or home / "run"
        self.samples = home / "samples.jsonl"
        self.options = options
        self.starts = 0
        self.newest = 0  # step of the newest good checkpoint seen so far
        self._config = home / "config.yaml"
        self._config.write_text(SETTINGS.format(shards=shards, folder=self.folder))

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def output(self) -> str:
        """What the newest process said."""
        return self._log().read_text(encoding="utf-8")

    @contextmanager
    def started(
        self, launcher: Sequence[str] = (), **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Gives the command (again); no process outlives the body."""
        self.starts += 1
        script = str(Path(__file__).with_name("noting.py"))
        command = [sys.executable, *launcher, script, "--config", str(self._config), *self.options]
        environment = {"SEAMO_FAST_DRILL_SAMPLES": str(self.samples), **environment}
        with self._log().open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment},
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                for pid in (*children(process), process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait()

    def finish(self) -> None:
        """Gives the command again and waits for its good end."""
        with self.started() as process:
            assert self.ended(process) == 0, f"the command ends with {self.last_line()}"

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """Waits for the end of a process; returns its exit status."""
        try:
            return process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs; the last line is {self.last_line()}") from None

    def wait_for_step(self, process: subprocess.Popen[bytes], step: int) -> None:
        """Returns when a step was logged, or the process has ended."""
        deadline = time.monotonic() + LIMIT
        while self.step() < step and process.poll() is None:
            assert time.monotonic() < deadline, f"it hangs before step {step}"
            time.sleep(0.001)

    def step(self) -> int:
        """Returns the newest step that the run has logged."""
        file = self.folder / "metrics.jsonl"
        try:
            whole = file.read_bytes().rpartition(b"\n")[0]
        except FileNotFoundError:
            return 0
        return int(json.loads(whole.rpartition(b"\n")[2])["step"]) if whole else 0

    def steps_seen(self) -> list[dict[str, Any]]:
        """Returns the notes of all steps that all processes did, see `noting`."""
        lines = self.samples.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def last_line(self) -> str:
        """Returns the last line of the newest process, for messages."""
        return repr((self.output.splitlines() or [""])[-1])

    def _log(self) -> Path:
        return self.home / f"output-{self.starts}.txt"


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Returns the processes that a process has started: the ranks of torchrun."""
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in file.read_text().split()]


@contextmanager
def paused(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stops a process for the body, so that what it does next is known."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
