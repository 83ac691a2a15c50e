"""The state of a finetuning on the disk: checkpoints, and the best weights so far.

Nothing random is kept between steps: batches, augmentation and what is dropped follow from the
seed. So a run that is killed at any moment ends with the bits of one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast import checkpoint_files
from seamo_fast.checkpoint_files import sha256, wrong_entry
from seamo_fast.errors import CheckpointError
from seamo_fast.files import check_regular, replacing, shown, writing
from seamo_fast.modalities.band import is_number
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.tasks.finetuning.results.folder import BEST, OTHER
from seamo_fast.training import optimizer
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import checkpoint, resume, run_folder
from seamo_fast.training.recovery.checkpoint import Checkpoint

_KEPT: Final = 2
_ENTRIES: Final = {
    "identity": dict,
    "precision": str,
    "skipped": int,
    "epochs": list,
    "sums": dict,
    "best": str,
}
_LOG = logging.getLogger(__name__)


def find(folder: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """Returns the newest good checkpoint of a run, None for a new run; see `read_on_main`.

    Raises:
        CheckpointError: The checkpoints cannot be used.
        ConfigError: They belong to another run, or the ranks have different settings or data.
    """

    def read() -> Checkpoint | None:
        start = checkpoint_files.newest_good(folder / run_folder.CHECKPOINTS, _LOG.warning, OTHER)
        if start is None:
            return None
        found = checkpoint.load(start)
        wrong = wrong_entry(found.record, _ENTRIES) or _wrong_value(found.record)
        if wrong is not None:
            raise CheckpointError(f"checkpoint {start} is refused: its record {wrong}")
        run_folder.check_same(start, found.record["identity"], identity, OTHER)
        _LOG.info(f"resuming at step {found.step}, from {start}")
        return found

    return resume.read_on_main(identity, read)


def _wrong_value(record: Mapping[str, Any]) -> str | None:
    """Returns what a message says of the first value that no run has, None if all are right."""
    epochs, sums = record["epochs"], record["sums"]
    if record["precision"] not in ("bf16", "fp32"):
        return f"has precision {shown(record['precision'])}"
    for number, epoch in enumerate(epochs, 1):
        right = isinstance(epoch, dict) and epoch.get("epoch") == number
        if not right or not _are_numbers(epoch.get("merit"), 2):
            return f"has {shown(epoch)} as epoch {number}"
    terms = sums.get("total")
    size = len(terms) if isinstance(terms, list) else 0
    if not (size and all(_are_numbers(sums.get(key), size) for key in ("total", "weight"))):
        return f"has sums {shown(sums)}"
    return None


def _are_numbers(found: Any, size: int) -> bool:
    return isinstance(found, list) and len(found) == size and all(map(is_number, found))


class State:
    """How far a run is.

    Attributes:
        model: What is trained.
        step: Steps that the run has done.
        saved: Step of the last checkpoint that this process has begun to write, -1 for none.
        epochs: What each epoch that was validated gave; "merit" ranks them.
        sums: float64 [2, L], totals and weights of the loss in the epoch's steps so far, of this
            rank.
        skipped: Steps without a finite gradient.

    Args:
        folder: The run's, locked by the caller on rank 0.
        model: On its device.
        adamw: Its optimiser.
        terms: L.
        identity: What a checkpoint must have in common with the run.
        found: The checkpoint to resume from.

    Raises:
        CheckpointError: The checkpoint does not fit the model.
    """

    def __init__(
        self,
        folder: Path,
        model: TaskModel,
        adamw: torch.optim.AdamW,
        terms: int,
        identity: Mapping[str, Any],
        found: Checkpoint | None,
    ) -> None:
        self.folder = folder
        self.model = model
        self.step = 0
        self.saved = -1
        self.epochs: list[dict[str, Any]] = []
        self.skipped = 0
        self.writer = checkpoint.Writer()
        self._adamw = adamw
        self._best = ""  # SHA-256 of the best weights' file
        self._identity = dict(identity)
        device = next(model.parameters()).device
        self.sums = torch.zeros(2, terms, dtype=torch.float64, device=device)
        if found is not None:
            resume.restore(found, folder, model, adamw)
            self.step = self.saved = found.step
            self.epochs = list(found.record["epochs"])
            self.skipped = found.record["skipped"]
            self._best = found.record["best"]
            sums = found.record["sums"]
            kept = torch.tensor([sums["total"], sums["weight"]], dtype=torch.float64)
            if kept.shape != self.sums.shape:
                raise CheckpointError(
                    f"the checkpoint of step {found.step} has sums {shown(sums)}, but this run's "
                    f"loss has {terms} terms"
                )
            if ranks.is_main():
                self.sums += kept.to(device)

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch so far, of equals the first."""
        return max(self.epochs, key=lambda epoch: tuple(epoch["merit"]), default=None)

    def add(self, epoch: Mapping[str, Any], figure: float, loss: float) -> None:
        """Notes a validated epoch, and keeps the weights if they are the best.

        Args:
            epoch: What is kept of it.
            figure: What validation maximises.
            loss: Of the validation part, which decides between equals.
        """
        merit = [value if math.isfinite(value) else -math.inf for value in (figure, -loss)]
        merit = [max(value, -1e300) for value in merit]  # JSON has no infinity
        self.epochs.append({**epoch, "merit": merit})
        self.sums.zero_()
        if self.best is self.epochs[-1]:
            with ranks.raise_on_all():
                if ranks.is_main():
                    with writing(self.folder / BEST), replacing(self.folder / BEST) as temporary:
                        trained = self._trained().items()
                        save_file({n: t.cpu().contiguous() for n, t in trained}, temporary)
                    self._best = sha256(self.folder / BEST)

    def save(self, precision: str) -> None:
        """Begins to write a checkpoint; all ranks take part.

        Raises:
            CheckpointError: The checkpoint before could not be written.
        """
        model = sharding.gather(self.model.state_dict())
        moments = sharding.gather(optimizer.get_state(self.model, self._adamw))
        total, weight = ranks.total(self.sums).tolist()
        record = {
            "identity": self._identity,
            "precision": precision,
            "skipped": self.skipped,
            "epochs": list(self.epochs),  # it is written while further ones are added
            "sums": {"total": total, "weight": weight},
            "best": self._best,
            "ranks": ranks.world(),
        }
        metadata = model_metadata(self.model.backbone.config, self.model.backbone.modalities)
        folder = self.folder / run_folder.CHECKPOINTS
        with ranks.raise_on_all():
            if ranks.is_main():
                self.writer.save(folder, self.step, model, moments, record, metadata, _KEPT)
        self.saved = self.step

    def take_best(self) -> None:
        """Gives the model the weights of the best epoch.

        Raises:
            CheckpointError: Their file is missing, or not what was written.
        """
        path, own = self.folder / BEST, self._trained()
        found = {name: tensor.to("meta") for name, tensor in own.items()}
        with ranks.raise_on_all():
            if ranks.is_main():
                with checkpoint_files.reading(path):
                    check_regular(path)
                    if sha256(path) != self._best:
                        raise CheckpointError(f"{path} has been altered; restore it, {OTHER}")
                found, _ = checkpoint_files.read_tensors(path)
        for name, tensor in own.items():
            tensor.copy_(sharding.spread(found[name], tensor))

    def _trained(self) -> dict[str, Tensor]:
        """Returns what trains, as it is."""
        return {
            name: parameter.detach()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
