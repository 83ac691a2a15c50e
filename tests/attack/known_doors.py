"""Files and tensors that were once let in, or ended in a traceback: what their doors say today."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from seamo_fast import SeaMoBackbone, pretrain
from seamo_fast.checkpoint_files import record_digest
from seamo_fast.errors import SeaMoError
from tests.attack.ground import Ground
from tests.attack.isolate import Refused, command
from tests.attack.shards import Opened
from tests.attack.tensors import LEAST, good, model
from tests.attack.weights import read_header, with_header

EDITS: Final[dict[str, Any]] = {
    "width": 10**6,
    "image_size": 160_000,
    "depth": 20_000,
    "mlp_ratio": float("inf"),
    "heads": 2.0,
}


def refuses(door: Callable[[], object]) -> bool:
    """Whether a door refuses with one line; anything else that it raises goes on."""
    try:
        door()
    except (Refused, SeaMoError) as error:
        return "\n" not in str(error)
    return False


def config_of_terabytes(ground: Ground, folder: Path) -> str:
    found, values = read_header((ground.checkpoint / "model.safetensors").read_bytes())
    said = found["__metadata__"]
    config, modalities = json.loads(said["config"]), json.loads(said["modalities"])
    modalities[0]["std"][0] = float("nan")
    changed = {n: {"config": json.dumps({**config, n: v})} for n, v in EDITS.items()}
    changed["std"] = {"modalities": json.dumps(modalities)}
    path = folder / "w.safetensors"
    for name, metadata in changed.items():
        path.write_bytes(with_header({**found, "__metadata__": {**said, **metadata}}, values))
        if not refuses(lambda: SeaMoBackbone.from_checkpoint(path)):
            return f"{name} of {EDITS.get(name)} was built"
    return ""


def record_without_keys(ground: Ground, folder: Path) -> str:
    for key in ("files", "format", "step", "identity", "precision"):
        run = shutil.copytree(ground.run, folder / key)
        for older in sorted((run / "checkpoints").glob("step_*"))[:-1]:
            shutil.rmtree(older)
        path = max((run / "checkpoints").glob("step_*")) / "checkpoint.json"
        record = json.loads(path.read_text())
        record.pop("sha256")
        record.pop(key)
        path.write_text(json.dumps({**record, "sha256": record_digest(record)}))
        refuses(lambda run=run: SeaMoBackbone.from_checkpoint(run))  # type: ignore[misc]
        line = ("--config", ground.folder / "run.yaml", "--run.folder", run)
        if not refuses(lambda line=line: command(pretrain.main, *line)):  # type: ignore[misc]
            return f"a run resumed from a record without {key}"
    return ""


def manifest_of_terabytes(ground: Ground, folder: Path) -> str:
    def samples(manifest: dict[str, Any]) -> None:
        manifest["shards"][0]["samples"] = 2**31

    def shape(manifest: dict[str, Any]) -> None:
        manifest["arrays"]["s1grd_10m"]["shape"][2:] = [20_000, 20_000]

    def nothing(manifest: dict[str, Any]) -> None:
        manifest["shards"] = []

    for edit in (samples, shape, nothing):
        path = shutil.copytree(ground.tiff, folder / edit.__name__) / "manifest.json"
        manifest = json.loads(path.read_text())
        edit(manifest)
        path.write_text(json.dumps(manifest))
        if not refuses(lambda path=path: Opened(path.parent)):  # type: ignore[misc]
            return f"{edit.__name__} was read"
    return ""


def days_that_are_none(ground: Ground, folder: Path) -> str:
    x = {name: image[:1, :1] for name, image in good(np.random.default_rng(0)).items()}
    for dates in (
        torch.tensor([[18627]], dtype=torch.int16),
        torch.tensor([[20201231]]),
        torch.tensor([[float("nan")]]),
    ):
        try:
            model()(x, dates=dates)
        except (TypeError, ValueError):
            continue
        return f"{dates} was taken for a day"
    return ""


def hidden_minimum(ground: Ground, folder: Path) -> str:
    x, backbone = good(np.random.default_rng(0)), model().train()
    x["s1grd"][:] = LEAST
    valid = torch.tensor([True, False]).expand(2, 2, 2)
    backbone(x, valid=valid).sum().backward()
    gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
    return "" if all(each.isfinite().all() for each in gradients) else "a gradient is not finite"


CASES: Final = (
    config_of_terabytes,
    record_without_keys,
    manifest_of_terabytes,
    days_that_are_none,
    hidden_minimum,
)
KNOWN: Final = {case.__name__: case for case in CASES}
