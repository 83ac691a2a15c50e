"""Measures what frozen features are worth: probes of checkpoints and baselines in one table.

python -m seamo_fast.evaluate runs/pretrain --data EuroSAT_RGB
python -m seamo_fast.evaluate runs/a runs/b --data EuroSAT_RGB --train_fraction 0.1
python -m seamo_fast.evaluate runs/pretrain --data OSCD --baselines '[random]' --shots '[]'
python -m seamo_fast.evaluate --data EuroSAT_MS                        # the baselines alone
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from seamo_fast.cli import Command
from seamo_fast.tasks.evaluation.config import EvaluateConfig
from seamo_fast.tasks.evaluation.run import run
from seamo_fast.training import allocator

COMMAND: Final = Command(
    "evaluate",
    EvaluateConfig,
    __doc__,
    rest="checkpoints",
    interrupted="give the same command again to resume: finished features are kept",
)


def _run(config: EvaluateConfig) -> None:
    allocator.keep_freed_memory()
    run(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
