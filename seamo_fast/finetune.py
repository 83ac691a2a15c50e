"""Finetunes a backbone on a labelled dataset, and tests what it has learned.

python -m seamo_fast.finetune                                          # the demo's fields
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain --method full --seeds 3
python -m seamo_fast.finetune --data OSCD --checkpoint runs/pretrain --method lora
python -m seamo_fast.finetune --print_config                           # all settings
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Final

from seamo_fast.cli import STOPPED, Command
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.run import finetune
from seamo_fast.training import allocator

COMMAND: Final = Command(
    "finetune",
    FinetuneConfig,
    __doc__,
    interrupted="give the same command again to resume at the last checkpoint",
)


def _run(config: FinetuneConfig) -> int:
    allocator.keep_freed_memory()
    found = finetune(config)
    return STOPPED + found if isinstance(found, signal.Signals) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
