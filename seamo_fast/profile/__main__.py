"""Measures a training step, or compares the losses of all variants.

python -m seamo_fast.profile step --config small --data.batch_size 8   # where a step's time goes
python -m seamo_fast.profile parity                                    # do all variants agree?
OMP_NUM_THREADS=1 python -m seamo_fast.profile parity --parity.jobs 2  # the same, on two cores
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seamo_fast.cli import run_one_of, say
from seamo_fast.profile.config import PARITY, STEP, ParityConfig, StepConfig
from seamo_fast.profile.parity import compare
from seamo_fast.profile.step import profile_step
from seamo_fast.training import allocator


def _step(config: StepConfig) -> None:
    allocator.keep_freed_memory()  # as the command does whose steps are looked at
    say(profile_step(config))


def _parity(config: ParityConfig) -> None:
    allocator.keep_freed_memory()
    say(compare(config))


def _start(name: str, arguments: Sequence[str]) -> int:
    return STEP.run(_step, arguments) if name == "step" else PARITY.run(_parity, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    summaries = {
        "step": "where the time of a training step goes",
        "parity": "do the reference and the fast model train alike?",
    }
    return run_one_of("python -m seamo_fast.profile", summaries, _start, arguments)


if __name__ == "__main__":
    sys.exit(main())
