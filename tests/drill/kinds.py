"""The kinds of disturbance. Each disturbs one run, checks what it caused, and says when it was.

A kind takes the place to work in and a random generator, and leaves a run that has ended well.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast import checkpoint_files
from seamo_fast.data.shards.shard_set import ShardSet
from tests.drill import checks
from tests.drill.run import EVERY, HUGE, TOTAL, Run, children, paused, write_shards

READ_AHEAD: Final = 10  # steps: what is needed later is not read yet
MORE_TRIES: Final = 5


class Skipped(Exception):  # noqa: N818 (not an error)
    """A kind that cannot be tried here; the text says why."""


@dataclass(frozen=True)
class Ground:
    """What the drills of one session share.

    Attributes:
        clean: Shards without fault.
        spoilt: Shards with two samples of values that are not finite or overflow.
        whole: The undisturbed run on the clean ones.
        whole_spoilt: The undisturbed run on the spoilt ones.
    """

    clean: Path
    spoilt: Path
    whole: Run
    whole_spoilt: Run


def prepare(folder: Path, spoilt: bool = True) -> Ground:
    """Writes the shards and does the undisturbed runs."""
    shards = folder / "clean", folder / "spoilt"
    runs = [Run(folder / f"whole-{path.name}", path) for path in shards]
    for path, run in zip(shards, runs, strict=True):
        if path.name == "clean" or spoilt:
            write_shards(path, spoilt=path.name == "spoilt")
            run.finish()
    return Ground(*shards, *runs)


@dataclass(frozen=True)
class Drill:
    """One disturbed run in the making.

    Attributes:
        ground: What it is compared with.
        home: A folder of its own, not made yet.
        rng: Chooses the moments.
    """

    ground: Ground
    home: Path
    rng: np.random.Generator

    def run(self, *options: str, shards: Path | None = None, folder: Path | None = None) -> Run:
        """Returns a new run on the clean shards or on others."""
        return Run(self.home / "job", shards or self.ground.clean, folder, options)

    def copy_of_shards(self) -> Path:
        """Returns a copy of the clean shards, to be damaged."""
        return shutil.copytree(self.ground.clean, self.home / "shards")

    def step(self, low: int, high: int) -> int:
        """Draws a step, `high` included."""
        return int(self.rng.integers(low, high + 1))


def wait(drill: Drill, run: Run, process: subprocess.Popen[bytes]) -> str:
    """Waits for a random moment: of the start, or after a step; returns it in words."""
    if drill.rng.random() < 0.2:
        seconds = drill.rng.uniform(0.1, 4)
        time.sleep(seconds)
        return f"{seconds:.1f} s after the start"
    step = drill.step(min(run.step() + 1, TOTAL), TOTAL)
    # mostly within the next step, at times in the figures that follow a stage
    seconds = 0.8 * drill.rng.random() ** 3
    run.wait_for_step(process, step)
    time.sleep(seconds)
    return f"step {step} + {1000 * seconds:.0f} ms"


def kill(drill: Drill) -> str:
    """SIGKILL at random moments, up to three of one run."""
    run, moments = drill.run(), []
    for _ in range(drill.step(1, 3)):
        with run.started() as process:
            moments.append(wait(drill, run, process))
            process.kill()
            if run.ended(process) == 0:
                moments[-1] += " (too late)"
        checks.check_disturbed(run)
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return ", ".join(moments)


def kill_checkpoint(drill: Drill) -> str:
    """SIGKILL while a checkpoint is written, when so many of its files are begun."""
    files, number = drill.step(0, 4), drill.step(1, TOTAL // EVERY)
    run = drill.run()
    for _ in range(MORE_TRIES):
        with run.started() as process:
            run.wait_for_step(process, EVERY * number)
            _wait_for_files(run, process, files)
            process.kill()
            run.ended(process)
        left = [f"{len([*path.iterdir()])} files" for path in run.checkpoints.glob(".step_*")]
        checks.check_disturbed(run)
        if left or files == 4:
            break
        shutil.rmtree(run.folder)
        run.newest = 0
    else:
        raise AssertionError(f"{MORE_TRIES} times no checkpoint was caught in the making")
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return f"checkpoint {EVERY * number}, {', '.join(left) or 'just renamed'}"


def _wait_for_files(run: Run, process: subprocess.Popen[bytes], files: int) -> None:
    """Returns when the temporary folder has so many files; if 4, when it is gone again."""
    seen = False
    while process.poll() is None:
        temporary = next(run.checkpoints.glob(".step_*"), None)
        seen = seen or temporary is not None
        if files == 4 and seen and temporary is None:
            return
        try:
            if temporary and files < 4 and len([*temporary.iterdir()]) >= files:
                return
        except FileNotFoundError:
            return


def sigterm(drill: Drill) -> str:
    """SIGTERM at a random moment."""
    return _signal(drill, signal.SIGTERM)


def sigint(drill: Drill) -> str:
    """Ctrl-C at a random moment."""
    return _signal(drill, signal.SIGINT)


def _signal(drill: Drill, number: signal.Signals) -> str:
    run = drill.run()
    twice = drill.rng.random() < 0.3
    with run.started() as process:
        moment = wait(drill, run, process)
        process.send_signal(number)
        if twice:
            time.sleep(drill.rng.uniform(0, 0.03))
            process.send_signal(number)
        status = run.ended(process)
    checks.check_disturbed(run)
    assert status in (0, 128 + number, -number), f"exit status {status}, {run.last_line()}"
    assert status or run.newest == TOTAL, "the status is that of a finished run"
    if f"stopped by {number.name}" in run.output:
        assert status == 128 + number, f"exit status {status}"
        assert run.newest == run.step(), "the step at which it was stopped is not saved"
        assert f"after step {run.newest} of {TOTAL}, which is saved" in run.output
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return f"{'twice ' if twice else ''}{moment}"


def disk_full(drill: Drill) -> str:
    """The disk fills up; a checkpoint, the metrics or a figure is the first that finds no room."""
    with small_disk(drill.home / "disk", mebibytes=64) as disk:
        run = drill.run("--run.tensorboard", "true", folder=disk / "run")
        step, left = drill.step(1, TOTAL - EVERY), int(drill.rng.integers(0, 2**23))
        filler = disk / "filler"
        with run.started() as process:
            run.wait_for_step(process, step)
            with paused(process):
                free = shutil.disk_usage(disk).free
                with filler.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, max(free - left, 1))
            status = run.ended(process)
        # late in a run what is left may be enough
        assert status in (0, 2), f"exit status {status}, {run.last_line()}"
        if status == 2:
            assert "No space left" in run.output or "the disk is full" in run.output
        filler.unlink()
        checks.check_disturbed(run)
        run.finish()
        checks.check_ended(run, drill.ground.whole)
    enough = "" if status else ", enough"
    return f"step {step}, {left / 2**20:.1f} MiB left{enough}"


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mounts a tmpfs of a size; what a failed drill leaves in it is copied beside it."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skipped(f"a small tmpfs needs the right to mount ({error})") from error
    try:
        yield folder
    except AssertionError:
        shutil.copytree(folder / "run", folder.with_name("run"))
        raise
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def spoilt_batches(drill: Drill) -> str:
    """Samples with values that overflow: their steps are passed over, also when killed between."""
    whole = drill.ground.whole_spoilt
    hit = {note["step"] for note in whole.steps_seen() if HUGE in note["ids"]}
    lines = checks.lines_of(whole)
    assert {line["step"] for line in lines if line["loss"] is None} == hit
    assert [line["skipped"] for line in lines] == [
        sum(step <= line["step"] for step in hit) for line in lines
    ]
    run = drill.run(shards=drill.ground.spoilt)
    with run.started() as process:
        moment = wait(drill, run, process)
        process.kill()
        run.ended(process)
    checks.check_disturbed(run)
    run.finish()
    checks.check_ended(run, whole)
    return f"steps {', '.join(map(str, sorted(hit)))}; killed {moment}"


def damaged_record(drill: Drill) -> str:
    """Bytes of a record flip on the disk: it is left out and reported, also over a kill."""
    shards = drill.copy_of_shards()
    run = drill.run(shards=shards)
    with run.started() as process:
        step, sample = _pause_before(drill, run, process, lambda number: _flip(shards, number))
        later = drill.step(step + 1, TOTAL - 1)
        run.wait_for_step(process, later)
        process.kill()
        run.ended(process)
    reported = f"(demo-{sample}) fails the checksum" in run.output
    checks.check_disturbed(run)
    run.finish()
    assert reported or f"(demo-{sample}) fails the checksum" in run.output, "it is not reported"
    whole = Run(drill.home / "whole", shards)
    whole.finish()
    checks.check_ended(run, whole)
    return f"step {step}, sample {sample}; killed at step {later}"


def damaged_record_stops(drill: Drill) -> str:
    """The same with `data.on_bad stop`: the run ends by name and goes on when it is restored."""
    return _lose_and_restore(drill, _flip, "fails the checksum")


def deleted_shard(drill: Drill) -> str:
    """A shard is deleted before it is read, and restored after the run has ended of it."""

    def delete(shards: Path, number: int) -> None:
        shutil.rmtree(_file(shards, number).parent)

    return _lose_and_restore(drill, delete, "cannot be read")


def truncated_shard(drill: Drill) -> str:
    """A file of a shard is cut to half before it is read, and restored."""

    def truncate(shards: Path, number: int) -> None:
        file = _file(shards, number)
        os.truncate(file, file.stat().st_size // 2)

    return _lose_and_restore(drill, truncate, "cannot be read")


def _lose_and_restore(drill: Drill, lose: Callable[[Path, int], None], message: str) -> str:
    shards = drill.copy_of_shards()
    run = drill.run("--data.on_bad", "stop", shards=shards)
    with run.started() as process:
        step, sample = _pause_before(drill, run, process, lambda number: lose(shards, number))
        status = run.ended(process)
    assert status == 2, f"exit status {status}, {run.last_line()}"
    assert message in run.output, run.last_line()
    checks.check_disturbed(run)
    shutil.rmtree(shards)
    shutil.copytree(drill.ground.clean, shards)
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return f"step {step}, sample {sample}"


def _pause_before(
    drill: Drill, run: Run, process: subprocess.Popen[bytes], damage: Callable[[int], None]
) -> tuple[int, int]:
    """Damages, at a random step, a sample that is not read yet; returns both."""
    run.wait_for_step(process, drill.step(1, 8))
    with paused(process):
        step = run.step()
        used: dict[int, int] = {}
        for note in drill.ground.whole.steps_seen():
            for number in note["ids"]:
                used.setdefault(number // 2, note["step"])  # a shard holds two
        later = [shard for shard, first in used.items() if first > step + READ_AHEAD]
        number = 2 * int(drill.rng.choice(later)) + drill.step(0, 1)
        damage(number)
    return step, number


def _file(shards: Path, number: int) -> Path:
    return Path(ShardSet(shards).describe(number).split(" record ")[0]) / "s2l2a_10m.npy"


def _flip(shards: Path, number: int) -> None:
    """Flips bytes in the middle of a record's values."""
    file = _file(shards, number)
    record = np.load(file, mmap_mode="r+")[number % 2]
    record ^= 1
    record.flush()


def emptied_shard(drill: Drill) -> str:
    """A file that is mapped is emptied: the system ends the process, nothing hangs."""
    shards = drill.copy_of_shards()
    run = drill.run(shards=shards)
    with run.started() as process:
        step = drill.step(EVERY, TOTAL - 2 * READ_AHEAD)
        run.wait_for_step(process, step)
        for file in shards.rglob("s2l2a_10m.npy"):
            os.truncate(file, 0)
        status = run.ended(process)
    assert status == -signal.SIGBUS, f"exit status {status}, {run.last_line()}"
    assert "Bus error" in run.output
    checks.check_disturbed(run)
    shutil.rmtree(shards)
    shutil.copytree(drill.ground.clean, shards)
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return f"step {step}"


def dead_reader(drill: Drill) -> str:
    """The thread that reads batches dies: the run ends of it and does not hang."""
    run = drill.run()
    # none of those that the first stage reads ahead and does not need
    batches = int(drill.rng.choice([*range(8), *range(8 + READ_AHEAD, TOTAL - 8)]))
    with run.started(SEAMO_FAST_DRILL_READER=str(batches)) as process:
        status = run.ended(process)
    assert status not in (0, -signal.SIGKILL), "the run did not notice"
    assert "the drill ends this reader" in run.output, run.last_line()
    checks.check_disturbed(run)
    run.finish()
    checks.check_ended(run, drill.ground.whole)
    return f"batch {batches}"


def power_loss(drill: Drill) -> str:
    """A kill, and then a file of the newest checkpoint and the last line of metrics are torn."""
    run = drill.run()
    with run.started() as process:
        run.wait_for_step(process, drill.step(2 * EVERY + 4, TOTAL - 2))
        process.kill()
        run.ended(process)
    checks.check_disturbed(run)
    newest, before = checkpoint_files.step_folders(run.checkpoints)[:-3:-1]
    file = drill.rng.choice(sorted(newest.iterdir()))
    how = str(drill.rng.choice(["cut to half", "emptied", "with a flipped bit", "deleted"]))
    _tear(file, how, drill.rng)
    metrics = run.folder / "metrics.jsonl"
    os.truncate(metrics, metrics.stat().st_size - drill.step(2, 100))
    run.newest = 0
    run.finish()
    assert f"checkpoint {newest} is refused: {file.name}" in run.output
    assert f"using {before.name} instead" in run.output
    checks.check_ended(run, drill.ground.whole)
    return f"{newest.name}/{file.name} {how}"


def _tear(file: Path, how: str, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    if how == "with a flipped bit":
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    if how == "deleted":
        file.unlink()
    else:
        file.write_bytes(data[: {"cut to half": len(data) // 2, "emptied": 0}.get(how)])


def kill_rank(drill: Drill) -> str:
    """SIGKILL of one of two ranks; torchrun starts them again."""
    run, moments = drill.run(), []
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc_per_node=2", "--max-restarts=5"]
    with run.started(launcher) as process:
        for _ in range(drill.step(1, 2)):
            moments.append(wait(drill, run, process))
            if ranks := children(process):
                os.kill(int(drill.rng.choice(ranks)), signal.SIGKILL)
        status = run.ended(process)
    assert status == 0, f"exit status {status}, {run.last_line()}"
    checks.check_ended(run, drill.ground.whole, checks.RANKS_TOLERANCE)
    return ", ".join(moments)


KINDS: Final[dict[str, Callable[[Drill], str]]] = {
    "kill": kill,
    "kill during a checkpoint": kill_checkpoint,
    "SIGTERM": sigterm,
    "SIGINT": sigint,
    "disk full": disk_full,
    "values not finite": spoilt_batches,
    "damaged record, skipped": damaged_record,
    "damaged record, stopped": damaged_record_stops,
    "deleted shard": deleted_shard,
    "truncated shard": truncated_shard,
    "emptied shard": emptied_shard,
    "dead reader": dead_reader,
    "power loss": power_loss,
    "kill of a rank": kill_rank,
}
# which kind the drill's runs are, over and over: kills are most of them
ORDER: Final = (
    *("kill", "kill during a checkpoint", "SIGTERM", "power loss", "disk full"),
    *("kill", "kill during a checkpoint", "SIGINT", "values not finite", "damaged record, skipped"),
    *("kill", "kill during a checkpoint", "damaged record, stopped", "deleted shard"),
    *("kill of a rank", "dead reader", "truncated shard", "power loss", "emptied shard"),
    "kill during a checkpoint",
)
