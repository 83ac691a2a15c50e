"""What a run resumes from, and what a start by torchrun after a failure changes about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seamo_fast.errors import CheckpointError
from seamo_fast.training import optimizer
from seamo_fast.training.config import OptimConfig
from seamo_fast.training.recovery import checkpoint, resume
from seamo_fast.training.recovery.checkpoint import Checkpoint

IDENTITY = {"settings": {"seed": 3}}
RECORD = {"identity": IDENTITY, "precision": "fp32", "skipped_steps": 0}
ONE = {"weight": torch.ones(1)}


def save(run: Path, step: int) -> Path:
    values = {"weight": torch.full((2,), float(step))}
    return checkpoint.save(run / "checkpoints", step, values, ONE, RECORD, {}, 9)


@pytest.mark.parametrize("restarted", [False, True])
def test_until_its_first_checkpoint_a_restarted_run_obeys_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(int(restarted)))
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    save(other, 7)
    found = resume.find(run, str(other), IDENTITY)
    assert found is not None
    assert found.step == 7
    save(run, 9)
    found = resume.find(run, str(other), IDENTITY)
    assert found is not None
    assert found.step == (9 if restarted else 7)
    assert (run / "previous-1").exists() == (not restarted)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"identity": None}, "its record has identity None"),
        ({"precision": 16}, "its record has precision 16"),
        ({"precision": "fp8"}, "its record has precision 'fp8'"),
        ({"skipped_steps": "0"}, "its record has skipped_steps '0'"),
        ({"skipped_steps": -1}, "its record has skipped_steps -1"),
        ({"bad_records": {}}, "its record has bad_records {}"),
        ({"bad_records": [1]}, r"its record has bad_records \[1\]"),
    ],
)
def test_a_record_that_a_run_cannot_resume_with(
    tmp_path: Path, edit: dict[str, Any], message: str
) -> None:
    checkpoint.save(tmp_path / "checkpoints", 3, ONE, ONE, {**RECORD, **edit}, {}, 9)
    with pytest.raises(
        CheckpointError, match=rf"step_00000003 is refused: {message}; take another"
    ):
        resume.find(tmp_path, "auto", IDENTITY)


@pytest.mark.parametrize("missing", RECORD)
def test_a_record_without_an_entry(tmp_path: Path, missing: str) -> None:
    left = {key: value for key, value in RECORD.items() if key != missing}
    checkpoint.save(tmp_path / "checkpoints", 3, ONE, ONE, left, {}, 9)
    with pytest.raises(CheckpointError, match=f"its record does not say {missing}; take another"):
        resume.find(tmp_path, "auto", IDENTITY)


@pytest.mark.parametrize(
    ("parameters", "moments", "message"),
    [
        ({"weight": (3, 2)}, {}, r"step 3 has bias of shape None, but this run's model .*\[3\]"),
        ({"weight": (3, 2), "bias": (3,), "x": (1,)}, {}, r"has x of shape .* but .* model None"),
        ({"weight": (2, 3), "bias": (3,)}, {}, r"has weight of shape torch.Size\(\[2, 3\]\)"),
        (None, {"bias.exp_avg": (3,)}, "optimiser state of bias does not fit"),
        (
            None,
            {"bias.exp_avg": (3,), "bias.exp_avg_sq": (4,), "bias.step": ()},
            "of bias does not",
        ),
        (None, {"bias.exp_avg": (3,), "bias.exp_avg_sq": (3,), "bias.step": (3,)}, "of bias does"),
        (None, {"x.step": ()}, "names x.step, which the model lacks"),
    ],
)
def test_tensors_that_do_not_fit_the_model(
    tmp_path: Path,
    parameters: dict[str, tuple[int, ...]] | None,
    moments: dict[str, tuple[int, ...]],
    message: str,
) -> None:
    model: Any = torch.nn.Linear(2, 3)
    built = optimizer.build(model, OptimConfig())
    state = model.state_dict() if parameters is None else parameters
    found = Checkpoint(
        3,
        {name: torch.zeros(getattr(shape, "shape", shape)) for name, shape in state.items()},
        {name: torch.zeros(shape) for name, shape in moments.items()},
        {},
    )
    with pytest.raises(CheckpointError, match=message):
        resume.restore(found, tmp_path, model, built)
