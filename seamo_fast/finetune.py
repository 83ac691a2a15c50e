"""`python -m seamo_fast.finetune`: trains and tests a classifier on EuroSAT.

python -m seamo_fast.finetune --data EuroSAT_RGB                       # random weights
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain
python -m seamo_fast.finetune --data EuroSAT_MS --checkpoint runs/pretrain --method full
python -m seamo_fast.finetune --data EuroSAT_RGB --print_config        # all settings
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seamo_fast.cli import exit_status
from seamo_fast.tasks.classify import classify
from seamo_fast.tasks.parse import parse
from seamo_fast.training import allocator


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 for a failure that the user can mend, 130 for Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    allocator.keep_freed_memory()
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda: classify(parse(given)))


if __name__ == "__main__":
    sys.exit(main())
