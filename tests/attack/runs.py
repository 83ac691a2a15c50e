"""Runs of `finetune`: settings, folders of images, and what a run left to resume from."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from seamo_fast import finetune as finetune_command
from seamo_fast.tasks.finetuning import run as finetuning
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from tests.attack import images, trees, weights
from tests.attack.ground import Ground, finetune_line
from tests.attack.isolate import Attack, command
from tests.tasks.datasets.mutations import mutate

line = finetune_line
COUNTS: Final = ("epochs", "seeds", "bootstrap")
NUMBERS: Final = ("size", "patience", "shots", "clip", "label_smoothing")  # or null
FIXED: Final = ("data", "output", "checkpoint", "wandb", "method")
INTEGERS: Final = (0, -1, 1, 3, 7, 16, 48, 10**4, 2**20, 2**31, 2**40, 2**62, 2**64)
REALS: Final = (0.0, -1.0, 1.0, 0.5, 1e-300, 1e-9, 0.999999, 1e9, 1e30, 1e300)
STATE: Final = (
    *("survey.json", "survey.json", "best.safetensors", "best.safetensors", "record", "record"),
    *("checkpoint", "metrics.jsonl", "run.json", ".stopped"),
)  # fmt: skip


def settings(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A run with one or two absurd settings; most are of the type that is asked for."""
    known = {f.name: f.default for f in dataclasses.fields(FinetuneConfig) if f.name not in FIXED}
    words = [f"--method={rng.choice(['linear', 'frozen', 'lora', 'full'])}"]
    for name in rng.choice(list(known), int(rng.integers(1, 3)), replace=False):
        value = _absurd(rng, name, known[name])
        text = value if isinstance(value, str) else json.dumps(value)
        words.append(f"--{name}={text}")
    data, more = (ground.eurosat, ()) if rng.random() < 0.5 else (ground.masks, ["--classes=[a,b]"])
    given = (*line(ground, folder / "out", data=data, epochs=1), *more, *words)
    return Attack(" ".join(words)[:200], _finetuning(given), _results_in(folder / "out"), 60.0)


def _absurd(rng: np.random.Generator, name: str, usual: object) -> object:
    """Returns what a setting should not be."""
    values: tuple[object, ...] = trees.ABSURD
    if rng.random() < 0.8 and (name in NUMBERS or type(usual) in (int, float)):
        values = INTEGERS if type(usual) is int or name in NUMBERS[:3] else REALS
    value = values[int(rng.integers(len(values)))]
    # as many of these as somebody asks for are no fault of the input
    return 3 if name in COUNTS and isinstance(value, int) and value > 3 else value


def data(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A run on a folder of classes or masks, one image of which is wrong."""
    masks = bool(rng.random() < 0.5)
    root = shutil.copytree(ground.masks if masks else ground.eurosat, folder / "data")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    if rng.random() < 0.5:
        how = images.spoil(rng, path)
    else:
        path.write_bytes(mutate(rng, path.read_bytes()))
        how = f"{path.relative_to(root)} mutated"
    known = ["--classes=[a,b]"] if masks else []
    given = (*line(ground, folder / "out", data=root, epochs=1, method="frozen"), *known)
    return Attack(how, _finetuning(given), _results_in(folder / "out"), 30.0)


def resume(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A run that was stopped before its last epoch or its results, and whose folder is damaged."""
    run = shutil.copytree(ground.stopped, folder / "run")
    if rng.random() < 0.6:
        shutil.rmtree(weights.newest_of(run))
    how, signed = spoil_state(rng, run)
    if how.startswith(".stopped"):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"

    def check(status: int) -> str:
        # what a stranger signed is only sane: no run can know what another would have found
        return has_results(run) if signed else as_undisturbed(run, ground)

    return Attack(how, _finetuning(line(ground, run)), check, 30.0)


def finished(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Damaged results of a finished run, given again or as the first of two seeds."""
    run, seeds = folder / "run", bool(rng.random() < 0.5)
    done = shutil.copytree(ground.finetuned, run / "seed_0" if seeds else run)
    how = f"results.json {_spoil_json(rng, done / 'results.json')}"
    words = line(ground, run, seeds=2 if seeds else 1)
    return Attack(how, _finetuning(words), _results_in(run) if seeds else lambda _: "", 30.0)


def spoil_state(rng: np.random.Generator, run: Path) -> tuple[str, bool]:
    """Damages one file of a run's folder; returns how, and whether a stranger signed it."""
    which = str(rng.choice(STATE))
    path = run / which
    if which == "record":
        return f"record {weights.spoil_record(rng, run)}", True
    if which == "checkpoint":
        path = weights.newest_of(run) / str(rng.choice(["model", "optimizer"]))
        path = path.with_suffix(".safetensors")
    elif which == "metrics.jsonl":
        return weights.spoil_metrics(rng, path), False
    elif which == ".stopped":
        path.write_bytes(rng.bytes(20))
        return ".stopped of any bytes", False
    if path.suffix == ".safetensors":
        return f"{path.name} {_spoil_tensors(rng, path)}", False
    return f"{path.name} {_spoil_json(rng, path)}", False


def _spoil_json(rng: np.random.Generator, path: Path) -> str:
    data, way = path.read_bytes(), rng.random()
    if way < 0.1:
        path.unlink()
        path.mkdir() if way < 0.03 else os.mkfifo(path) if way < 0.06 else path.symlink_to("/dev")
        return "is no file"
    if path.suffix != ".json" or way < 0.4:
        data, how = trees.damage_text(rng, data)
    else:
        tree, how = trees.damage(rng, json.loads(data))
        data = json.dumps(tree).encode()
    path.write_bytes(data)
    return how


def _spoil_tensors(rng: np.random.Generator, path: Path) -> str:
    from safetensors.torch import load, save

    data, way = path.read_bytes(), rng.random()
    if way < 0.3:
        data = mutate(rng, data)
        how = "mutated"
    elif way < 0.6:
        state = load(data)
        name = list(state)[int(rng.integers(len(state)))]
        state[name].view(-1)[0] += 1
        data, how = save(state, weights.read_header(data)[0].get("__metadata__")), f"{name} + 1"
    else:
        data, how = weights.spoil_header(rng, data)
    path.write_bytes(data)
    return how


def _finetuning(words: tuple[object, ...]) -> Callable[[], int]:
    def door() -> int:
        finetuning.draw = lambda *_: None  # pictures take longer than all else
        return command(finetune_command.main, *words)

    return door


def _results_in(out: Path) -> Callable[[Any], str]:
    return lambda _: has_results(out)


def has_results(out: Path) -> str:
    """Whether a command that ended well has left finite results."""
    try:
        results = json.loads((out / "results.json").read_text(), parse_constant=_no_number)
    except (OSError, ValueError) as error:
        return f"no results: {error}"
    return "" if results else "empty results"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} in results.json")


def as_undisturbed(run: Path, ground: Ground) -> str:
    """Compares what a resumed run has left with that of the run that nobody disturbed."""
    for name in ("model.safetensors", "predictions.safetensors"):
        if not (run / name).exists():
            return f"no {name}"
        found, expected = (load_file(each / name) for each in (run, ground.finetuned))
        if found.keys() != expected.keys():
            return f"{name} has other tensors"
        for key, tensor in expected.items():
            if tensor.tobytes() != found[key].tobytes():
                return f"{key} of {name} differs"
    found, expected = (_results(each) for each in (run, ground.finetuned))
    return "" if found == expected else f"results differ: {found} {expected}"


def _results(run: Path) -> dict[str, Any]:
    tree = json.loads((run / "results.json").read_text())
    return {key: tree[key] for key in ("test", "confusion", "chosen_by_validation", "epochs")}
