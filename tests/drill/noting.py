"""`python -m seamo_fast.pretrain`, and a note of the samples that each step saw.

Started as a script. Each step adds a line {"step", "rank", "world", "ids"} to the file named by
SEAMO_FAST_DRILL_SAMPLES. SEAMO_FAST_DRILL_READER is the number of batches after which the thread
that reads them dies. Absurd values are values, so that they overflow.
"""

from __future__ import annotations

import json
import os
import runpy
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from seamo_fast.data.loading import loader
from seamo_fast.modalities import Modality
from seamo_fast.training.recovery.nonfinite import NonFiniteGuard


def note_samples(path: Path) -> None:
    """Adds a line to `path` for each step that was done."""
    add = NonFiniteGuard.add
    rank, world = (int(os.environ.get(key, low)) for key, low in (("RANK", 0), ("WORLD_SIZE", 1)))

    def noting(self: NonFiniteGuard, step: int, norm: Tensor, ids: Tensor) -> None:
        line = {"step": step, "rank": rank, "world": world, "ids": ids.tolist()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        add(self, step, norm, ids)

    NonFiniteGuard.add = noting  # type: ignore[method-assign]


def fail_reader(batches: int) -> None:
    """Lets the reader thread die of an error that nobody foresaw."""
    read, calls = loader.read_batch, count()

    def failing(*arguments: Any) -> loader.Loaded:
        if next(calls) == batches:
            raise MemoryError("the drill ends this reader")
        return read(*arguments)

    loader.read_batch = failing


if __name__ == "__main__":
    note_samples(Path(os.environ["SEAMO_FAST_DRILL_SAMPLES"]))
    if "SEAMO_FAST_DRILL_READER" in os.environ:
        fail_reader(int(os.environ["SEAMO_FAST_DRILL_READER"]))
    Modality.limit = 3e38  # type: ignore[assignment, misc]
    runpy.run_module("seamo_fast.pretrain", run_name="__main__", alter_sys=True)
