"""Where a run begins: at step 0, or at a checkpoint, whatever ranks and strategy wrote it."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from seamo_fast.checkpoint_files import step_folders, wrong_entry
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.files import brief, shown
from seamo_fast.training import optimizer
from seamo_fast.training.config import PretrainConfig, differences, to_dict
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import checkpoint, run_folder
from seamo_fast.training.recovery.checkpoint import Checkpoint

_LOG: Final = logging.getLogger(__name__)


def identity(config: PretrainConfig, shards: ShardSet) -> dict[str, Any]:
    """Returns what a run must have in common with a checkpoint to resume from it."""
    return {
        **to_dict(config),
        "shards": {
            "samples": len(shards),
            "seasons": shards.seasons,
            "order": [modality.name for modality in shards.modalities],
            "modalities": {m.name: json.loads(json.dumps(m.to_dict())) for m in shards.modalities},
            "contents": zlib.crc32(str([s.crc32 for s in shards.manifest.shards]).encode()),
        },
    }


def find(folder: Path, resume: str, identity: dict[str, Any]) -> Checkpoint | None:
    """Returns the checkpoint that a run resumes from, None for a new run.

    Rank 0 alone reads it; on the other ranks its tensors have shapes but no values ("meta").

    Args:
        folder: The run folder; an earlier run in it is moved to a subfolder.
        resume: The setting `run.resume`.
        identity: Of this run, see the function of this name.

    Raises:
        CheckpointError: The checkpoints cannot be used.
        ConfigError: They belong to another run, or the ranks have different settings or data.
    """
    return read_on_main(identity, lambda: _read(folder, resume, identity))


def read_on_main(
    identity: dict[str, Any], read: Callable[[], Checkpoint | None]
) -> Checkpoint | None:
    """Returns a checkpoint that rank 0 alone reads; other ranks get its tensors on "meta".

    Args:
        identity: What all ranks must have in common.
        read: Returns the checkpoint that the run resumes from.

    Raises:
        ConfigError: The ranks have different settings or data.
        SeaMoError: What `read` raises.
    """
    main = ranks.from_main(identity)
    found = None
    with ranks.raise_on_all():
        other = differences(main, identity)
        if other:
            raise ConfigError(
                f"rank {ranks.rank()} differs from rank 0 ({'; '.join(other[:4])}); give all "
                "ranks the same settings and the same data"
            )
        if ranks.is_main():
            found = read()
    header = ranks.from_main(None if found is None else found.header())
    return found if ranks.is_main() else header


def _read(folder: Path, resume: str, identity: dict[str, Any]) -> Checkpoint | None:
    if ranks.restarted() and step_folders(folder / run_folder.CHECKPOINTS):
        # the first start of this command has already obeyed `resume`: now the run folder counts
        resume = "auto"
    start = run_folder.find_start(folder, resume, _LOG.warning)
    if start is None:
        return None
    found = checkpoint.load(start)
    _check_record(start, found.record)
    run_folder.check_same(start, found.record["identity"], identity)
    run_folder.make_room(folder, start, _LOG.warning)
    _LOG.info(f"resuming at step {found.step}, from {start}")
    return found


def _check_record(start: Path, record: dict[str, Any]) -> None:
    """Raises CheckpointError unless a checkpoint says all that a run resumes with."""
    wrong = wrong_entry(record, {"identity": dict, "precision": str, "skipped_steps": int})
    bad = record.get("bad_records", [])  # older ones do not have it
    if wrong is None and record["precision"] not in ("bf16", "fp32"):
        wrong = f"has precision {shown(record['precision'])}"
    if wrong is None and not (isinstance(bad, list) and all(isinstance(b, str) for b in bad)):
        wrong = f"has bad_records {shown(bad)}"
    if wrong is not None:
        raise CheckpointError(
            f"checkpoint {start} is refused: its record {wrong}; take another one, or start over "
            "with --run.resume none"
        )


def restore(found: Checkpoint, folder: Path, model: nn.Module, built: torch.optim.AdamW) -> None:
    """Gives model and optimiser the state of a checkpoint; all ranks take part.

    Args:
        found: From `find`.
        folder: The run folder, whose later checkpoints are set aside.
        model: Sharded or not.
        built: Its optimiser.

    Raises:
        CheckpointError: Parameters or the optimiser's state do not fit the model.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | found.model.keys()):
        here, there = (each[name].shape if name in each else None for each in (own, found.model))
        if here != there:
            raise CheckpointError(
                f"the checkpoint of step {found.step} has {brief(name)} of shape {there}, but this "
                f"run's model {here}"
            )
    model.load_state_dict({n: sharding.spread(t, own[n]) for n, t in found.model.items()})
    optimizer.set_state(model, built, found.optimizer)
    with ranks.raise_on_all():
        if ranks.is_main():
            checkpoint.set_aside_after(folder / run_folder.CHECKPOINTS, found.step)
