"""What a run resumes from, and what a start by torchrun after a failure changes about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamo_fast.training.recovery import checkpoint, resume

IDENTITY = {"settings": {"seed": 3}}
RECORD = {"identity": IDENTITY, "precision": "fp32", "skipped_steps": 0}


def save(run: Path, step: int) -> Path:
    values = {"weight": torch.full((2,), float(step))}
    return checkpoint.save(run / "checkpoints", step, values, {}, RECORD, {}, 9)


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
