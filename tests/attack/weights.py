"""Weights and checkpoints from strangers, and the runs that resume from them."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from seamo_fast import SeaMoBackbone, pretrain
from seamo_fast.checkpoint_files import record_digest
from tests.attack import trees
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, command

CONFIG: Final = (
    *(("width", 10**6), ("width", 32.0), ("width", "16"), ("width", 0), ("width", -16)),
    *(("depth", 20_000), ("depth", 10**9), ("depth", True), ("heads", 3), ("heads", 2.0)),
    *(("image_size", 160_000), ("image_size", 2**40), ("patch_size", 2**20), ("patch_size", 0)),
    *(("mlp_ratio", float("inf")), ("mlp_ratio", float("nan")), ("mlp_ratio", 1e300)),
    *(("mlp_ratio", -4.0), ("mlp_ratio", "4"), ("fusion", "x"), ("fusion", ["tm"])),
    *(("fusion_depth", 10**6), ("fusion_window", -1), ("fusion_window", "2"), ("fusion_depth", 0)),
    *(("decoder_width", 10**7), ("decoder_depth", 10**6), ("decoder_heads", 0), ("strange", 1)),
    *(("date_embedding", "yes"), ("norm_pix", None), ("width", None), ("depth", [1])),
)  # fmt: skip
WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def read_header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header of a safetensors file and what follows it."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: Any, values: bytes, size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + values


def header(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A weights file whose header says something else, or whose bytes are damaged."""
    data = (ground.checkpoint / "model.safetensors").read_bytes()
    return _attack(folder, *spoil_header(rng, data))


def spoil_header(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Returns a safetensors file whose header or bytes are damaged, and how."""
    found, values = read_header(data)
    names = [name for name in found if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    how = str(rng.choice(["tree", "shape", "dtype", "offsets", "size", "cut", "text", "alias"]))
    size = None
    if how == "tree":
        found, how = trees.damage(rng, found)
    elif how == "shape":
        found[name]["shape"] = [int(rng.choice([2**31, 2**40, 0, 1])), 2]
    elif how == "dtype":
        found[name]["dtype"] = str(rng.choice(list(WIDTHS)))
    elif how == "offsets":
        found[name]["data_offsets"][int(rng.integers(2))] += int(rng.choice([-4, 4, 2**40]))
    elif how == "size":
        size = int(rng.choice([0, 1, 2**31, 2**62]))
    elif how == "alias":
        found[name]["data_offsets"] = found[names[0]]["data_offsets"]
    data = with_header(found, values, size)
    if how == "cut":
        data = data[: int(rng.integers(len(data)))]
    elif how == "text":
        data, how = trees.damage_text(rng, data)
    return data, f"{name} {how}"


def config(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A weights file whose config or modalities are not those of its tensors."""
    found, values = read_header((ground.checkpoint / "model.safetensors").read_bytes())
    metadata = found["__metadata__"]
    key = str(rng.choice(["config", "modalities"]))
    tree = json.loads(metadata[key])
    if key == "config" and rng.random() < 0.7:
        name, value = CONFIG[int(rng.integers(len(CONFIG)))]
        tree[name], how = value, f"{name} = {value!r}"
    else:
        tree, how = trees.damage(rng, tree)
    metadata[key] = json.dumps(tree)
    if rng.random() < 0.1:
        text, how = trees.damage_text(rng, metadata[key].encode())
        metadata[key] = text.decode(errors="replace")
    return _attack(folder, with_header(found, values), f"{key}: {how}")


def tensors(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A weights file whose tensors have other dtypes, or values that are none."""
    data = (ground.checkpoint / "model.safetensors").read_bytes()
    return _attack(folder, *spoil_tensors(rng, data))


def spoil_tensors(rng: np.random.Generator, data: bytes, of: str = "") -> tuple[bytes, str]:
    """Returns a safetensors file with one tensor wrong whose name begins with `of`, and how."""
    from safetensors.torch import load, save

    state, metadata = load(data), read_header(data)[0]["__metadata__"]
    names = [name for name in state if name.startswith(of)]
    name = names[int(rng.integers(len(names)))]
    how = str(rng.choice(["nan", "inf", "int", "double", "half", "bool", "less", "more", "shape"]))
    tensor = state[name].clone()
    if how in ("nan", "inf"):
        tensor.view(-1)[int(rng.integers(tensor.numel()))] = float(how)
    dtypes = {"int": torch.int64, "double": torch.float64, "half": torch.float16}
    tensor = tensor.to({**dtypes, "bool": torch.bool}.get(how, torch.float32))
    if how == "shape":
        tensor = tensor[None].contiguous()
    state[name] = tensor
    if how == "less":
        del state[name]
    elif how == "more":
        state[f"{name}.more"] = tensor.clone()
    return save(state, metadata), f"{name} {how}"


def _attack(folder: Path, data: bytes, what: str) -> Attack:
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    return Attack(what, lambda: SeaMoBackbone.from_checkpoint(path), lambda b: as_file(b, data))


def as_file(backbone: SeaMoBackbone, data: bytes) -> str:
    """Compares a backbone with the file, which is read without any library."""
    found, values = read_header(data)
    said = json.loads(found["__metadata__"]["config"])
    for name, value in said.items():
        came = getattr(backbone.config, name)
        if came != value or (type(came) is not type(value) and name != "mlp_ratio"):
            return f"config {name} {value!r} became {came!r}"
    described = json.loads(found["__metadata__"]["modalities"])
    for modality in described:
        numbers = [*(modality["mean"] or ()), *(modality["std"] or ()), modality.get("scale", 1.0)]
        if not all(isinstance(n, (int, float)) and abs(n) < 3.5e38 for n in numbers):
            return f"{modality['name']} is normalised by {numbers}"
    return differing(backbone.state_dict(), found, values)


def differing(state: Mapping[str, torch.Tensor], found: dict[str, Any], values: bytes) -> str:
    """Compares tensors with those of a safetensors file, whose header and values these are."""
    for name, tensor in state.items():
        entry = found[name]
        if entry["dtype"] not in ("F32", "F16", "BF16"):
            return f"{name} has dtype {entry['dtype']}"
        if not tensor.isfinite().all():
            return f"{name} is not finite"
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            expected = np.frombuffer(values[begin:end], "<f4").reshape(entry["shape"])
            if not np.array_equal(tensor.numpy(), expected):
                return f"{name} has other values"
    return ""


def record(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A checkpoint.json with one thing wrong, whose digest fits or not, at the backbone's door."""
    run = shutil.copytree(ground.run, folder / "run")
    what = spoil_record(rng, run)
    expected = SeaMoBackbone.from_checkpoint(ground.run).state_dict()

    def check(backbone: SeaMoBackbone) -> str:
        same = all(torch.equal(t, expected[n]) for n, t in backbone.state_dict().items())
        return "" if same else "other weights"

    return Attack(what, lambda: SeaMoBackbone.from_checkpoint(run), check)


def spoil_record(rng: np.random.Generator, run: Path) -> str:
    """Leaves one checkpoint of a run, and damages its record; returns how."""
    *older, newest = sorted((run / "checkpoints").glob("step_*"))
    for each in older:
        shutil.rmtree(each)
    path = newest / "checkpoint.json"
    tree = json.loads(path.read_text())
    tree.pop("sha256")
    tree, how = trees.damage(rng, tree)
    if rng.random() < 0.9:
        tree["sha256"] = record_digest(tree)
    data = json.dumps(tree).encode()
    if rng.random() < 0.1:
        data, how = trees.damage_text(rng, data)
    path.write_bytes(data)
    return how


def resume(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """A run with a damaged record, metrics or folder, of which the last step is done again."""
    run = shutil.copytree(ground.run, folder / "run")
    shutil.rmtree(newest_of(run))
    if rng.random() < 0.4:
        what = spoil_record(rng, run)
    else:
        path = run / "metrics.jsonl"
        what = spoil_metrics(rng, path)

    def door() -> int:
        arguments = ("--config", ground.folder / "run.yaml", "--run.folder", run)
        return command(pretrain.main, *arguments)

    def check(status: int) -> str:
        return "" if status else as_undisturbed(run, ground)

    return Attack(what, door, check, 60.0)


def newest_of(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


def spoil_metrics(rng: np.random.Generator, path: Path) -> str:
    """Damages the lines of metrics.jsonl; returns how."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = int(rng.integers(len(lines)))
    how = str(
        rng.choice(["text", "tree", "null", "list", "zeros", "half", "number", "gone", "dir"])
    )
    if how == "text":
        data, how = trees.damage_text(rng, path.read_bytes())
        path.write_bytes(data)
        return f"metrics {how}"
    if how == "tree":
        tree, how = trees.damage(rng, json.loads(lines[number]))
        lines[number] = json.dumps(tree).encode() + b"\n"
    elif how == "half":
        lines[-1] = lines[-1][: int(rng.integers(len(lines[-1])))]
    elif how in ("gone", "dir"):
        path.unlink()
        if how == "dir":
            path.mkdir()
        return f"metrics {how}"
    else:
        lines[number] = {
            "null": b"null\n",
            "list": b"[1]\n",
            "zeros": bytes(500),
            "number": b"7\n",
        }[how]
    path.write_bytes(b"".join(lines))
    return f"metrics line {number}: {how}"


def as_undisturbed(run: Path, ground: Ground) -> str:
    """Compares the last step with that of the run that nobody disturbed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    steps = [line["step"] for line in lines]
    if steps != sorted(set(steps)):
        return f"metrics.jsonl has the steps {steps}"
    if lines[-1]["loss"] != ground.metrics[-1]["loss"] or steps[-1] != ground.metrics[-1]["step"]:
        return f"the last step has loss {lines[-1]['loss']}, not {ground.metrics[-1]['loss']}"
    return ""
