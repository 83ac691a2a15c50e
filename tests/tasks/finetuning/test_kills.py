"""A finetuning that is killed anywhere ends, given again, with the bits of one that was not."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.run import finetune
from tests.forkserver import FORK
from tests.tasks.finetuning.conftest import Settings

FINETUNING = "seamo_fast.tasks.finetuning"
# where the process kills itself: before that call of a function, so that all before is written
PHASES = {
    "survey": (f"{FINETUNING}.survey", "write_json", 1),
    "first step": (f"{FINETUNING}.fit.step", "Step.__call__", 1),
    "step": (f"{FINETUNING}.fit.step", "Step.__call__", 5),
    "validation": (f"{FINETUNING}.fit.judge", "Judge._run", 2),
    "best": (f"{FINETUNING}.fit.state", "save_file", 2),
    "checkpoint": ("seamo_fast.training.recovery.checkpoint", "_write_record", 3),
    "test": (f"{FINETUNING}.fit.judge", "Judge._run", 3),
    "predictions": (f"{FINETUNING}.results.write", "save_file", 1),
    "model": (f"{FINETUNING}.model", "save_file", 1),
    "results": (f"{FINETUNING}.results.write", "write_text", 1),
}
QUICK = ("best", "test")
FILES = ("model.safetensors", "predictions.safetensors")


def run_killed(config: FinetuneConfig, module: str, name: str, calls: int) -> None:
    torch.set_num_threads(1)
    owner: Any = import_module(module)
    if "." in name:
        kind, name = name.split(".")
        owner = getattr(owner, kind)
    function, left = getattr(owner, name), [calls]

    def killing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, killing)
    finetune(config)


def phases() -> list[Any]:
    return [
        pytest.param(phase, marks=[] if phase in QUICK else [pytest.mark.slow]) for phase in PHASES
    ]


@pytest.mark.parametrize("phase", phases())
def test_the_same_command_ends_with_the_same_bits(
    phase: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"checkpoint_every": 2, "drop_path": 0.2, "mixup": 0.5, "method": "full"}
    finetune(settings(output="whole", **changes))
    killed = settings(output=None, **changes)
    process = FORK.Process(target=killed_in, args=(tmp_path, killed, *PHASES[phase]))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    finetune(killed)
    (folder,) = (tmp_path / "runs").iterdir()
    for file in FILES:
        assert contents(folder / file) == contents(tmp_path / "whole" / file), file


def contents(file: Path) -> dict[str, Any]:
    """All that a safetensors file holds; the order of its metadata is random."""
    with safe_open(file, framework="np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        found = {name: (each.dtype, each.shape, each.tobytes()) for name, each in tensors.items()}
        return {**found, "metadata": opened.metadata()}


def killed_in(folder: Path, *arguments: Any) -> None:
    os.chdir(folder)
    run_killed(*arguments)
