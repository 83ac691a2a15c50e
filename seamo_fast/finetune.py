"""Trains and tests a classifier on EuroSAT.

python -m seamo_fast.finetune --data EuroSAT_RGB                       # random weights
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain --method full
python -m seamo_fast.finetune --data EuroSAT_RGB --print_config        # all settings
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from seamo_fast.cli import Command
from seamo_fast.tasks.classify import classify
from seamo_fast.tasks.config import FinetuneConfig
from seamo_fast.training import allocator

COMMAND: Final = Command("finetune", FinetuneConfig, __doc__)


def _run(config: FinetuneConfig) -> None:
    allocator.keep_freed_memory()
    classify(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
