"""What a checkpoint folder holds, and whether it is whole.

A run keeps its checkpoints in folders `step_00000120` with `model.safetensors`,
`optimizer.safetensors` and `checkpoint.json`, which holds the size and SHA-256 of both. Training
writes them (`training.recovery.checkpoint`); everything that takes pretrained weights reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from seamo_fast.errors import CheckpointError

FORMAT: Final = 1
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
RECORD: Final = "checkpoint.json"
_STEP: Final = re.compile(r"step_(\d{8,})")


def step_folders(folder: Path) -> list[Path]:
    """Returns the checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step_*") if _STEP.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def newest_good(folder: Path, refused: Callable[[str], None]) -> Path | None:
    """Returns the newest undamaged checkpoint in `folder`, None if there are none at all.

    Args:
        folder: Where checkpoints live.
        refused: Called with the reason for each newer one that is not used.

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
        "restore one, or start over with --run.resume none"
    )


def verify(path: Path) -> dict[str, Any]:
    """Checks every file of a checkpoint and returns its record.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the message names it.
    """
    record = _read_record(path)
    for name, expected in record["files"].items():
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
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
        digest = record.pop("sha256")
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} is refused: {RECORD} is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"checkpoint {path} is refused: {RECORD} is damaged") from None
    if digest != record_digest(record):
        raise CheckpointError(
            f"checkpoint {path} is refused: {RECORD} has been altered (its SHA-256 differs)"
        )
    if record["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} is refused: its format is {record['format']}, this version reads "
            f"{FORMAT}"
        )
    return record


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
