"""What a checkpoint folder holds, whether it is whole, and the tensors of its files.

A run keeps its checkpoints in folders `step_00000120` with `model.safetensors`,
`optimizer.safetensors` and `checkpoint.json`, which holds the size and SHA-256 of both. Training
writes them (`training.recovery.checkpoint`); everything that takes pretrained weights reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seamo_fast.errors import CheckpointError
from seamo_fast.files import brief, check_regular, read_json, shown

FORMAT: Final = 1
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
RECORD: Final = "checkpoint.json"
_ENTRIES: Final = {"format": int, "step": int, "files": dict}
_FILES: Final = {MODEL: dict, OPTIMIZER: dict}
_FILE: Final = {"size": int, "sha256": str}
_DTYPES: Final = ("F32", "F16", "BF16")
_STEP: Final = re.compile(r"step_(\d{8,})")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an OSError of the body, which reads `path`, into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read: {error.strerror}; make it and its folders "
            "readable, or copy it"
        ) from error


def step_folders(folder: Path) -> list[Path]:
    """Returns the checkpoints in `folder`, oldest first.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    with reading(folder):
        present = list(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in present if _STEP.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def newest_good(
    folder: Path,
    refused: Callable[[str], None],
    instead: str = "or start over with --run.resume none",
) -> Path | None:
    """Returns the newest undamaged checkpoint in `folder`, None if there are none at all.

    Args:
        folder: Where checkpoints live.
        refused: Called with the reason for each newer one that is not used.
        instead: What else can be done than to restore one of them.

    Raises:
        CheckpointError: There are checkpoints, but all are damaged.
    """
    reasons = []
    for path in reversed(step_folders(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            refused(f"{reason}; using {path.name} instead")
        return path
    if not reasons:
        return None
    raise CheckpointError(
        f"all {len(reasons)} checkpoints in {folder} are damaged ({reasons[0]}); "
        f"restore one, {instead}"
    )


def verify(path: Path) -> dict[str, Any]:
    """Checks every file of a checkpoint and returns its record.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the message names it.
    """
    with reading(path):
        return _verify(path)


def _verify(path: Path) -> dict[str, Any]:
    record = _read_record(path)
    for name in (MODEL, OPTIMIZER):
        expected = record["files"][name]
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            raise CheckpointError(f"checkpoint {path} is refused: {name} is missing")
        if size != expected["size"]:
            raise CheckpointError(
                f"checkpoint {path} is refused: {name} has {size} bytes instead of "
                f"{expected['size']}"
            )
        if sha256(file) != expected["sha256"]:
            raise CheckpointError(
                f"checkpoint {path} is refused: {name} has been altered (its SHA-256 differs)"
            )
    return record


def _read_record(path: Path) -> dict[str, Any]:
    def refused(why: str) -> CheckpointError:
        return CheckpointError(f"checkpoint {path} is refused: {RECORD} {why}")

    try:
        record: dict[str, Any] = read_json(path / RECORD)
        digest = record.pop("sha256")
    except FileNotFoundError:
        raise refused("is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise refused("is damaged") from None
    if digest != record_digest(record):
        raise refused("has been altered (its SHA-256 differs)")
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} is refused: its format is {shown(record.get('format'))}, this "
            f"version reads {FORMAT}"
        )
    wrong = wrong_entry(record, _ENTRIES) or wrong_entry(record["files"], _FILES)
    if wrong is None:
        entries = (wrong_entry(record["files"][name], _FILE) for name in _FILES)
        wrong = next(filter(None, entries), None)
    if wrong is not None:
        raise refused(f"{wrong}: this version did not write it")
    if _STEP.fullmatch(path.name) and int(path.name.removeprefix("step_")) != record["step"]:
        raise refused(f"is that of step {record['step']}")
    return record


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors of a safetensors file by name, and what the file says about itself.

    Raises:
        CheckpointError: The file is damaged or none of safetensors, or holds a dtype or a value
            that no model of this package has; the message names the tensor.
    """
    try:
        check_regular(file)
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            for name in names:
                dtype = opened.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise CheckpointError(
                        f"{file}: {brief(name)} has dtype {dtype}; expected {', '.join(_DTYPES)}"
                    )
            tensors = {name: opened.get_tensor(name) for name in names}
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or no safetensors file: {brief(error)}"
        ) from error
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise CheckpointError(
                f"{file}: {brief(name)} holds NaN or infinite values; take an earlier checkpoint"
            )
    return tensors, metadata


def _is_finite(tensor: Tensor) -> bool:
    # a sum takes a tenth of the time of isfinite, which decides where finite values overflow it
    return bool(tensor.sum(dtype=torch.float32).isfinite() or tensor.isfinite().all())


def wrong_entry(record: Mapping[str, Any], entries: Mapping[str, type]) -> str | None:
    """Returns what a message says of the first entry that is missing or of another type."""
    for key, kind in entries.items():
        if key not in record:
            return f"does not say {key}"
        if type(record[key]) is not kind or (kind is int and record[key] < 0):
            return f"has {key} {shown(record[key])}"
    return None


def record_digest(record: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a record without its own digest."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
