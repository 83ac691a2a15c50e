"""The run folder: one process at a time, and where a run resumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from signal import Signals
from typing import Any, Final

from seamo_fast import checkpoint_files, files
from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.files import brief, write_text
from seamo_fast.training.config import differences

CHECKPOINTS: Final = "checkpoints"
METRICS: Final = "metrics.jsonl"
WANDB: Final = "wandb"
PROBE: Final = "probe"
_STOPPED: Final = ".stopped"
_SHOWN: Final = 4
_INSTEAD: Final = "choose another --run.folder, or start over with --run.resume none"
_CONTENTS: Final = (
    CHECKPOINTS, METRICS, WANDB, PROBE, "config.yaml", "tensorboard", "loss.png", "reconstructions"
)  # fmt: skip


def locked(folder: Path) -> AbstractContextManager[None]:
    """Makes the run folder and keeps other processes out of it; see `files.locked`."""
    return files.locked(folder, "run.folder", "--run.folder")


def note_stop(folder: Path, stopped: Signals | None) -> None:
    """Notes which signal asked a run to stop, for processes that torchrun starts in its place."""
    if stopped is None:
        (folder / _STOPPED).unlink(missing_ok=True)
    else:
        write_text(folder / _STOPPED, stopped.name)


def stopped_by(folder: Path) -> Signals | None:
    """Returns what `note_stop` noted."""
    with suppress(FileNotFoundError, KeyError, UnicodeDecodeError):
        return Signals[(folder / _STOPPED).read_text(encoding="utf-8")]
    return None


def find_start(folder: Path, resume: str, warn: Callable[[str], None]) -> Path | None:
    """Returns the checkpoint a run resumes from, None for a new run.

    Args:
        folder: The run folder.
        resume: `auto`, `none`, or a checkpoint or run folder.
        warn: Called with a message for each refused checkpoint and moved run.

    Raises:
        CheckpointError: There are checkpoints but none is good, or `resume` holds none.
    """
    if resume == "none":
        _move_aside(folder, warn)
        return None
    if resume == "auto":
        return checkpoint_files.newest_good(folder / CHECKPOINTS, warn)
    source = Path(resume)
    with checkpoint_files.reading(source):
        start = _newest(source, warn)
    if start is None:
        raise CheckpointError(
            f"--run.resume {resume} is neither auto, none, a checkpoint nor a run"
        )
    return start


def _newest(source: Path, warn: Callable[[str], None]) -> Path | None:
    """Returns a checkpoint folder itself, or the newest good checkpoint of a run folder."""
    if (source / checkpoint_files.RECORD).is_file():
        return source
    return checkpoint_files.newest_good(source / CHECKPOINTS, warn)


def make_room(folder: Path, start: Path, warn: Callable[[str], None]) -> None:
    """Moves the folder's own run aside if this one resumes from another folder's checkpoint."""
    if start.resolve().parent != (folder / CHECKPOINTS).resolve():
        _move_aside(folder, warn)


def check_same(
    start: Path, old: Mapping[str, Any], new: Mapping[str, Any], instead: str = _INSTEAD
) -> None:
    """Raises ConfigError naming the settings on which a checkpoint and this run disagree.

    Args:
        start: The checkpoint.
        old: Its run's settings.
        new: This run's.
        instead: What else can be done than to give the same settings.
    """
    found = differences(old, new)
    if found:
        shown = "; ".join(found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigError(
            f"{start} belongs to a run of another configuration ({brief(shown)}{more}); give the "
            f"same settings, {instead}"
        )


def _move_aside(folder: Path, warn: Callable[[str], None]) -> None:
    target = files.move_aside(folder, _CONTENTS)
    if target is not None:
        warn(f"the earlier run was moved to {target}")
