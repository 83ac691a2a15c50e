"""A few kinds of disturbance at fixed moments, and that the drill's checks find what is wrong."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.drill import checks
from tests.drill.__main__ import Result, disturb
from tests.drill.kinds import ORDER, Ground, prepare
from tests.drill.run import TOTAL, Run

pytestmark = pytest.mark.timeout(900)  # on a busy machine processes start slowly
SEED = 9
SHORT = ("kill during a checkpoint", "power loss", "damaged record, stopped", "dead reader")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return prepare(tmp_path_factory.mktemp("drill"), spoilt=False)


@pytest.fixture(scope="module")
def results(ground: Ground) -> dict[str, Result]:
    """The drills, two at a time, as one process has one thread."""
    folder = ground.clean.parent
    numbers = [ORDER.index(kind) for kind in SHORT]
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda number: disturb(ground, folder, SEED, number), numbers)
        return {result.kind: result for result in done}


@pytest.mark.parametrize("kind", SHORT)
def test_a_disturbed_run_ends_like_the_undisturbed_one(
    results: dict[str, Result], kind: str
) -> None:
    result = results[kind]
    assert result.verdict == "ok", result.moments
    assert result.restarts >= 1


def twice(run: Run) -> None:
    file = run.folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:9], *lines[8:]]))


def lost(run: Run) -> None:
    file = run.folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:9], *lines[10:]]))


def other_loss(run: Run) -> None:
    file = run.folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[20]["loss"] *= 1 + 1e-15
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def other_weights(run: Run) -> None:
    file = run.checkpoints / f"step_{TOTAL:08d}" / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[0] = torch.nextafter(weights[name].view(-1)[0], torch.tensor(9.0))
    save_file(weights, file)


def half_checkpoint(run: Run) -> None:
    (run.checkpoints / "step_00000040" / "checkpoint.json").unlink()


def lost_checkpoint(run: Run) -> None:
    run.newest = TOTAL
    shutil.rmtree(run.checkpoints / f"step_{TOTAL:08d}")


def left_behind(run: Run) -> None:
    (run.checkpoints / ".step_00000040.1").mkdir()


def no_figure(run: Run) -> None:
    (run.folder / "reconstructions" / "step_00000008.png").unlink()


def half_figure(run: Run) -> None:
    (run.folder / "loss.png").write_bytes((run.folder / "loss.png").read_bytes()[:-9])


def other_samples(run: Run) -> None:
    text = run.samples.read_text().splitlines(keepends=True)
    run.samples.write_text("".join([*text[:5], text[5].replace("[", "[7, "), *text[6:]]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (twice, "metrics.jsonl has the steps"),
        (lost, "metrics.jsonl has the steps"),
        (other_loss, "metrics differ"),
        (half_checkpoint, "checkpoint.json is missing"),
        (lost_checkpoint, "checkpoint 48 was there, now 45"),
        (left_behind, r"left behind: checkpoints/\.step_00000040\.1"),
        (no_figure, "was not drawn"),
        (half_figure, "loss.png is not whole"),
        (other_samples, "step 6 saw the samples"),
    ],
)
def test_the_checks_find(
    ground: Ground, tmp_path: Path, fault: Callable[[Run], None], message: str
) -> None:
    run = copied(ground.whole, tmp_path / "copy")
    checks.check_ended(run, ground.whole)
    fault(run)
    with pytest.raises(Exception, match=message):
        checks.check_ended(run, ground.whole)


def test_the_checks_find_other_weights(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(ground.whole, tmp_path / "copy")
    other_weights(run)
    monkeypatch.setattr(checks.checkpoint_files, "verify", lambda _: {})
    with pytest.raises(AssertionError, match=" differs"):
        checks.check_ended(run, ground.whole)


def copied(run: Run, home: Path) -> Run:
    """Returns a run with copies of all files."""
    result = copy.copy(run)
    result.home = shutil.copytree(run.home, home)
    result.folder, result.samples = home / "run", home / "samples.jsonl"
    return result
