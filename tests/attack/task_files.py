"""Finetuned weights: what their file says of the task, and the tensors of their head."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from seamo_fast import evaluate
from seamo_fast import finetune as finetune_command
from seamo_fast.tasks.finetuning.model import TaskModel
from tests.attack import runs, trees, weights
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, command

TASK: Final[tuple[tuple[str, Any], ...]] = (
    *(("seasons", 2**10), ("seasons", 2**62), ("seasons", True), ("seasons", 0)),
    *(("classes", ["a"] * 10**5), ("classes", ["a", "a"]), ("classes", ["a\nb", "\x1b[2J"])),
    *(("classes", ["x" * 10**6, "y"]), ("classes", []), ("classes", {"a": 1}), ("classes", "ab")),
    *(("head", "fpn"), ("head", "attention"), ("head", "linear"), ("head", ["linear"])),
    *(("task", "change"), ("task", "mask"), ("task", "multilabel"), ("task", None)),
    *(("channels", {}), ("channels", {"a": ["s2l2a", [0]]}), ("channels", {"a": ["x", [2**70]]})),
    ("channels", {"optic": ["s2l2a", [2**40] * 12], "radar": ["s1grd", [0, 0]]}),
    ("channels", {f"m{n}": ["s2l2a", list(range(12))] for n in range(10**4)}),
)  # fmt: skip


def metadata(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A finetuned file that says something else of its task."""
    return _loading(folder, *_spoil_task(rng, _any_of(rng, ground)))


def tensors(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A finetuned file with a wrong header, or a wrong tensor of its head."""
    data = _any_of(rng, ground)
    if rng.random() < 0.5:
        return _loading(folder, *weights.spoil_header(rng, data))
    return _loading(folder, *weights.spoil_tensors(rng, data, "head."))


def given(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A damaged finetuned file, given to a command as the weights to begin with."""
    data = (ground.finetuned / "model.safetensors").read_bytes()
    ways: Sequence[Callable[[np.random.Generator, bytes], tuple[bytes, str]]]
    ways = (_spoil_task, weights.spoil_header, weights.spoil_tensors)
    data, how = ways[int(rng.integers(3))](rng, data)
    path, out = folder / "weights.safetensors", folder / "out"
    path.write_bytes(data)
    if rng.random() < 0.5:
        probes = ("--baselines=[]", "--shots=[]", "--output", out, "--cache=false")
        more = (path, "--data", ground.eurosat, "--method=ridge", "--bootstrap=100", *probes)
        door, name = (lambda: command(evaluate.main, *more)), "evaluate"
    else:
        more = runs.line(ground, out, checkpoint=path, epochs=1)
        door, name = (lambda: command(finetune_command.main, *more)), "finetune"
    return Attack(f"{name}: {how}", door, lambda _: runs.has_results(out), 30.0)


def _any_of(rng: np.random.Generator, ground: Ground) -> bytes:
    files = sorted(ground.task_models.iterdir())
    return files[int(rng.integers(len(files)))].read_bytes()


def _spoil_task(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Returns a file that says something else of its task, and what."""
    found, values = weights.read_header(data)
    known = found["__metadata__"]
    tree = json.loads(known["task"])
    if rng.random() < 0.5:
        key, value = TASK[int(rng.integers(len(TASK)))]
        tree[key], how = value, f"{key} = {str(value)[:60]}"
    else:
        tree, how = trees.damage(rng, tree)
    known["task"] = json.dumps(tree)
    if rng.random() < 0.2:
        text, how = trees.damage_text(rng, known["task"].encode())
        known["task"] = text.decode(errors="replace")
    return weights.with_header(found, values), f"task: {how}"


def _loading(folder: Path, data: bytes, what: str) -> Attack:
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    return Attack(what, lambda: TaskModel.load(path), lambda model: as_file(model, data))


def as_file(model: TaskModel, data: bytes) -> str:
    """Compares a model of a task with its file, which is read without any library."""
    found, values = weights.read_header(data)
    said = json.loads(found["__metadata__"]["task"])
    channels = {name: [known, list(each)] for name, (known, each) in model.channels.items()}
    came = {"task": model.task, "classes": list(model.classes), "head": model.head.name,
            "channels": channels, "seasons": model.seasons}  # fmt: skip
    if came != said or type(model.seasons) is not int:
        return f"{said} became {came}"
    if min(map(min, (each for _, each in channels.values()))) < 0:
        return f"channels {channels}"
    wrong = weights.differing({f"head.{n}": t for n, t in model.head.state_dict().items()},
                              found, values)  # fmt: skip
    return wrong or weights.as_file(model.backbone, data)
