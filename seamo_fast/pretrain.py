"""Pretrains SeaMo.

python -m seamo_fast.pretrain                               # the embedded default, on demo data
python -m seamo_fast.pretrain --config small --data.path shards/ssl4eo
python -m seamo_fast.pretrain --config runs/demo/config.yaml --run.folder runs/again
python -m seamo_fast.pretrain --dry_run                     # what would happen
python -m seamo_fast.pretrain --print_config                # all settings
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from seamo_fast.cli import STOPPED, Command, say
from seamo_fast.training import allocator
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.dry_run import dry_run as plan_of
from seamo_fast.training.loop import pretrain
from seamo_fast.training.presets import DEFAULT_PRESET, presets
from seamo_fast.training.reporting.probes import Measure

COMMAND: Final = Command(
    "pretrain",
    PretrainConfig,
    __doc__,
    presets=presets(),
    default=DEFAULT_PRESET,
    flags={"dry_run": "check settings and data, and say what a run takes"},
)


def _open_probe(config: PretrainConfig) -> Measure:
    from seamo_fast.tasks.evaluation.in_loop import open_probe  # takes 0.2 s; most runs have none

    return open_probe(config)


def _run(config: PretrainConfig, *, dry_run: bool) -> int:
    if dry_run:
        say(plan_of(config))
        if config.run.probe is not None:
            _open_probe(config)
        return 0
    allocator.keep_freed_memory()
    stopped = pretrain(config, _open_probe)
    return 0 if stopped is None else STOPPED + stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
