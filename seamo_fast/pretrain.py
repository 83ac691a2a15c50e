"""`python -m seamo_fast.pretrain`: pretrains SeaMo.

python -m seamo_fast.pretrain                               # the embedded default, on demo data
python -m seamo_fast.pretrain --config small --data.path shards/ssl4eo
python -m seamo_fast.pretrain --config runs/demo/config.yaml --run.folder runs/again
python -m seamo_fast.pretrain --dry_run                     # what would happen
python -m seamo_fast.pretrain --print_config                # all settings
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections.abc import Sequence

from seamo_fast.cli import exit_status
from seamo_fast.training import allocator
from seamo_fast.training.dry_run import dry_run
from seamo_fast.training.loop import pretrain
from seamo_fast.training.parse import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 for a failure that the user can mend, 130 for Ctrl-C."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("seamo_fast").setLevel(logging.INFO)
    return exit_status(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> None:
    config, dry = parse(arguments)
    if dry:
        sys.stdout.write(dry_run(config) + "\n")
    else:
        allocator.keep_freed_memory()
        pretrain(config)


if __name__ == "__main__":
    faulthandler.enable()  # a shard that is cut while it is mapped ends the process with SIGBUS
    sys.exit(main())
