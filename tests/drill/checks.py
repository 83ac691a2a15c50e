"""What must hold after each disturbance, and of a run that ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from seamo_fast import checkpoint_files
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.drill.run import BATCH, KEEP, SAMPLES, STAGE_ENDS, TOTAL, Run

RANKS_TOLERANCE = 1e-5  # relative, of losses: sums over ranks are in another order
EXACT = ("step", "stage", "loss", "grad_norm", "lr", "skipped")


def lines_of(run: Run) -> list[dict[str, Any]]:
    """Returns what metrics.jsonl says of numerics and data; each step must be there once."""
    lines = read_metrics(run.folder / "metrics.jsonl")
    steps = [line["step"] for line in lines]
    assert steps == list(range(1, len(steps) + 1)), f"metrics.jsonl has the steps {steps}"
    return [{k: v for k, v in line.items() if k.startswith(EXACT)} for line in lines]


def bad_records(run: Run) -> int:
    """Returns how many damaged records the last line of metrics.jsonl reports."""
    return int(read_metrics(run.folder / "metrics.jsonl")[-1]["bad_records"])


def check_disturbed(run: Run) -> None:
    """After a disturbance: checkpoints are whole, none was lost, metrics reach as far as they."""
    found = checkpoint_files.step_folders(run.checkpoints)
    for path in found:
        checkpoint_files.verify(path)
    newest = _step(found[-1]) if found else 0
    assert newest >= run.newest, f"checkpoint {run.newest} was there, now {newest} is the newest"
    run.newest = newest
    assert len(lines_of(run)) >= newest, f"metrics.jsonl ends before checkpoint {newest}"


def check_ended(run: Run, whole: Run, tolerance: float = 0.0) -> None:
    """A run that ended is as the undisturbed one: to the bit, or losses to a tolerance."""
    check_disturbed(run)
    for mine, expected in zip(lines_of(run), lines_of(whole), strict=True):
        assert _same(mine, expected, tolerance), f"metrics differ: {mine} instead of {expected}"
    assert bad_records(run) == bad_records(whole), "not as many damaged records are reported"
    if not tolerance:  # AdamW makes steps out of the rounding of gradients that are zero
        mine, expected = (_weights(each) for each in (run, whole))
        assert mine.keys() == expected.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, expected[name]), f"{name} differs"
    check_samples(run, samples_of(whole))
    check_files(run, whole)


def samples_of(whole: Run) -> dict[int, list[int]]:
    """Returns the samples of each step of an undisturbed run, after counting each epoch's."""
    seen = {note["step"]: note["ids"] for note in whole.steps_seen()}
    assert list(seen) == list(range(1, TOTAL + 1))
    begin, size = 0, SAMPLES // 2
    for end in STAGE_ENDS:
        ids = [number for step in range(begin + 1, end + 1) for number in seen[step]]
        for first in range(0, len(ids), size):
            epoch = ids[first : first + size]
            assert len(set(epoch)) == len(epoch), "a sample comes twice in an epoch"
        begin, size = end, SAMPLES
    return seen


def check_samples(run: Run, expected: Mapping[int, list[int]]) -> None:
    """Each process saw at each step the samples of the undisturbed run, and every step was done."""
    notes = run.steps_seen()
    for note in notes:
        share = BATCH // note["world"]
        ids = expected[note["step"]][note["rank"] * share :][:share]
        assert note["ids"] == ids, f"step {note['step']} saw the samples {note['ids']}, not {ids}"
    assert {note["step"] for note in notes} == set(expected), "a step was not done"


def check_files(run: Run, whole: Run) -> None:
    """Nothing temporary is left, the figures are all there, and no more checkpoints than asked."""
    names = {path.relative_to(run.folder) for path in run.folder.rglob("*")}
    hidden = {str(name) for name in names if name.name.startswith(".")} - {".lock"}
    assert not hidden, f"left behind: {', '.join(sorted(hidden))}"
    for path in whole.folder.rglob("*.png"):
        image = run.folder / path.relative_to(whole.folder)
        assert image.is_file(), f"{image} was not drawn"
        assert image.read_bytes().endswith(b"IEND\xaeB`\x82"), f"{image} is not whole"
    found = checkpoint_files.step_folders(run.checkpoints)
    assert _step(found[-1]) == TOTAL
    assert len(found) <= KEEP


def _same(mine: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> bool:
    if not tolerance:
        return mine == expected
    return mine.keys() == expected.keys() and all(
        math.isclose(mine[key], value, rel_tol=tolerance) if type(value) is float
        else mine[key] == value
        for key, value in expected.items()
    )  # fmt: skip


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_files.step_folders(run.checkpoints)[-1] / checkpoint_files.MODEL)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
