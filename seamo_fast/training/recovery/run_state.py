"""The state of a run: data, plan, model and optimiser, and how many steps are done."""

from __future__ import annotations

from pathlib import Path

import torch

from seamo_fast.model.weights import model_metadata
from seamo_fast.training import batches, model_setup, optimizer, precision
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import checkpoint, resume, run_folder
from seamo_fast.training.recovery.checkpoint import Checkpoint
from seamo_fast.training.recovery.nonfinite import NonFiniteGuard
from seamo_fast.training.schedule import Stage
from seamo_fast.training.step import TrainingStep


class RunState:
    """A run before its first or next step, restored from a checkpoint if there is one.

    Nothing random is kept between steps: batches, views and weights follow from the seed. Every
    rank has this state; rank 0 alone writes to the run folder.

    Args:
        config: All settings.
        folder: The run folder, locked by the caller on rank 0.

    Attributes:
        shards: Where the samples come from.
        plan: The stages.
        device: Where the model is.
        dtype: Of matrix products.
        model: SeaMo, sharded and compiled as the settings ask for.
        train: The training step, with the optimiser.
        step: Steps that the run has done.
        saved: The step of the last checkpoint that this process began to write, -1 for none.
        guard: Counts the skipped steps.
        bad_records: Damaged records that were met, by any rank once a log line was written.
        writer: Writes the checkpoints, in a thread.

    Raises:
        SeaMoError: Settings, data or checkpoints cannot be used; on all ranks.
    """

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        with ranks.raise_on_all():
            ranks.check_batch(config.data.batch_size, config.optim.accumulate)
            self.shards = batches.open_shards(config.data.path)
            self.plan = batches.make_plan(config, self.shards)
            self.device = precision.choose_device(config.run.device)
            self.model = model_setup.make_model(config, self.shards, self.plan).to(self.device)
            self._identity = resume.identity(config, self.shards)
        found = resume.find(folder, config.run.resume, self._identity)
        chosen = config.run.precision if found is None else found.record["precision"]
        self.dtype = precision.choose_dtype(chosen, self.device)
        model_setup.prepare_model(self.model, config.run, self.device)
        sharding.shard(self.model, config.distributed, self.device, self.dtype)
        self.train = TrainingStep(
            self.model, self.model.count, config.optim, self.device, self.dtype
        )
        self.step = 0
        self.saved = -1
        self.guard = NonFiniteGuard(config.run.max_nonfinite)
        self.bad_records: set[str] = set()
        self.writer = checkpoint.Writer()
        if found is not None:
            self._restore(found)

    def _restore(self, found: Checkpoint) -> None:
        resume.restore(found, self.folder, self.model, self.train.optimizer)
        self.step = found.step
        self.guard.skipped = found.record["skipped_steps"]
        # older ones do not have it
        self.bad_records.update(found.record.get("bad_records", ()))

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.plan.total

    def save(self, stage: Stage) -> None:
        """Begins to write a checkpoint; all ranks take part.

        Args:
            stage: Of the last step.

        Raises:
            CheckpointError: The checkpoint before could not be written.
        """
        # copies: the next steps change the originals while these are written
        model = sharding.gather(self.model.state_dict())
        moments = sharding.gather(optimizer.get_state(self.model, self.train.optimizer))
        record = {
            "stage": stage.name,
            "precision": "bf16" if self.dtype == torch.bfloat16 else "fp32",
            "skipped_steps": self.guard.skipped,
            "bad_records": sorted(self.bad_records),
            "ranks": ranks.world(),
            "identity": self._identity,
        }
        metadata = model_metadata(self.config.model, self.model.modalities)
        folder = self.folder / run_folder.CHECKPOINTS
        with ranks.raise_on_all():
            if ranks.is_main():
                self.writer.save(
                    folder, self.step, model, moments, record, metadata, self.config.run.keep
                )
        self.saved = self.step
