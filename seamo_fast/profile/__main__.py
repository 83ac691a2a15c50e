"""`python -m seamo_fast.profile step` and `python -m seamo_fast.profile parity`.

python -m seamo_fast.profile step --config small --data.batch_size 8   # where a step's time goes
python -m seamo_fast.profile parity                                    # do all variants agree?
OMP_NUM_THREADS=1 python -m seamo_fast.profile parity --parity.jobs 2  # the same, on two cores
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Final

from seamo_fast.cli import exit_status
from seamo_fast.profile.config import parse_parity, parse_step
from seamo_fast.profile.parity import compare
from seamo_fast.profile.step import profile_step
from seamo_fast.training import allocator

_COMMANDS: Final[dict[str, Callable[[Sequence[str]], str]]] = {
    "step": lambda arguments: profile_step(parse_step(arguments)),
    "parity": lambda arguments: compare(parse_parity(arguments)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 for a failure that the user can mend, 130 for Ctrl-C."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("seamo_fast").setLevel(logging.INFO)
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in _COMMANDS:
        sys.stderr.write(
            f"usage: python -m seamo_fast.profile {{{','.join(_COMMANDS)}}} [settings]\n"
        )
        return 2
    allocator.keep_freed_memory()  # as the command does whose steps are looked at
    return exit_status(lambda: _tell(_COMMANDS[given[0]](given[1:])))


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
