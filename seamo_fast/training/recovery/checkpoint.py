"""Checkpoints: written whole or not at all, checked when read, without pickle.

A checkpoint folder (see `seamo_fast.checkpoint_files`) appears by one atomic rename. Nothing random
is kept: all randomness of a run follows from its seed and the number of the step.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast._version import __version__
from seamo_fast.checkpoint_files import (
    FORMAT,
    MODEL,
    OPTIMIZER,
    RECORD,
    read_tensors,
    record_digest,
    sha256,
    step_folders,
    verify,
)
from seamo_fast.errors import CheckpointError
from seamo_fast.files import replacing, sync, write_text


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds, read and verified.

    Attributes:
        step: Steps that the run had done.
        model: The model's state dict.
        optimizer: See `optimizer.get_state`.
        record: The other contents of `checkpoint.json`.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    record: dict[str, Any]

    def header(self) -> Checkpoint:
        """Returns it without the tensors' values, on the device "meta"."""
        return replace(self, model=_on_meta(self.model), optimizer=_on_meta(self.optimizer))


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    record: Mapping[str, Any],
    metadata: Mapping[str, str],
    keep: int,
) -> Path:
    """Writes a checkpoint and then removes the oldest beyond `keep`.

    Args:
        folder: Where checkpoints live.
        step: Steps that the run has done.
        model: The model's state dict.
        optimizer: See `optimizer.get_state`.
        record: Further contents of `checkpoint.json` (JSON-able).
        metadata: Of `model.safetensors`, see `model.weights.model_metadata`.
        keep: Checkpoints that stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: The disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"step_{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    needed = sum(t.numel() * t.element_size() for t in (*model.values(), *optimizer.values()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary.mkdir()
        with replacing(temporary / MODEL) as file:
            save_file(_on_host(model), file, dict(metadata))
        with replacing(temporary / OPTIMIZER) as file:
            save_file(_on_host(optimizer), file)
        _write_record(temporary, {**record, "step": step})
        temporary.rename(target)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _write_error(target, needed, error) from error
    for old in step_folders(folder)[:-keep]:
        if old != target:
            _remove(old)
    return target


class Writer:
    """Writes checkpoints in a thread, one at a time, while training continues."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "seamo_fast checkpoint")
        self._pending: Future[Path] | None = None

    def save(self, *arguments: Any) -> None:
        """Waits for the checkpoint before, then begins to write one; arguments as in `save`.

        Nothing may change the tensors any more. Raises as `wait` does.
        """
        self.wait()
        self._pending = self._pool.submit(save, *arguments)

    def check(self) -> None:
        """Raises as `wait` does if a checkpoint has failed already; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the checkpoint is on the disk.

        Raises:
            CheckpointError: It could not be written; earlier checkpoints are untouched.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is being written, whatever becomes of it."""
        try:
            if isinstance(error, OSError):
                self.wait()  # of a full disk a failed checkpoint says more
        finally:
            self._pool.shutdown()


def versions() -> dict[str, str]:
    """Returns the versions that a checkpoint was written with."""
    return {
        "seamo_fast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Args:
        path: A folder `step_...`.

    Raises:
        CheckpointError: A file is missing, truncated or altered, or holds what no run writes; the
            message names it.
    """
    record = verify(path)
    model, _ = read_tensors(path / MODEL)
    optimizer, _ = read_tensors(path / OPTIMIZER)
    return Checkpoint(record["step"], model, optimizer, record)


def set_aside_after(folder: Path, step: int) -> None:
    """Renames the checkpoints of steps after `step` to `unused_step_...`.

    They are damaged, or the run resumes from an earlier one. What killed processes left is removed.
    """
    _remove_leftovers(folder)
    for path in step_folders(folder):
        if int(path.name.removeprefix("step_")) > step:
            target = path.with_name(f"unused_{path.name}")
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in (MODEL, OPTIMIZER)
    }
    record = {"format": FORMAT, **record, "versions": versions(), "files": files}
    text = json.dumps({**record, "sha256": record_digest(record)}, indent=1)
    write_text(folder / RECORD, text)


def _on_meta(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _remove(path: Path) -> None:
    """Removes a checkpoint; a kill in between leaves nothing that looks like one."""
    hidden = path.with_name(f".{path.name}.old")
    with suppress(OSError):
        path.rename(hidden)
        shutil.rmtree(hidden)


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left; the run folder's lock makes this process the only one."""
    for path in folder.glob(".step_*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_error(target: Path, needed: int, error: Exception) -> CheckpointError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
    if not full:
        return CheckpointError(f"checkpoint {target} could not be written: {error}")
    free = shutil.disk_usage(target.parent if target.parent.exists() else Path.cwd()).free
    return CheckpointError(
        f"the disk is full: checkpoint {target} needs {needed / 2**20:.1f} MiB, "
        f"{free / 2**20:.1f} MiB are free; make room and give the same command again. "
        "Earlier checkpoints are untouched"
    )
