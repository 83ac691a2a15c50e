"""Processes forked from one that has torch: what a new one imports in seconds is there at once."""

from __future__ import annotations

import multiprocessing
from typing import Final

FORK: Final = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        *("seamo_fast.training.loop", "seamo_fast.tasks.finetuning.run", "torchmetrics"),
        *("torch._dynamo", "matplotlib.backends.backend_agg", "pytest"),
    ]
)
