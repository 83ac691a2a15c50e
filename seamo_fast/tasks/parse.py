"""The command line of `python -m seamo_fast.finetune`."""

from __future__ import annotations

from collections.abc import Sequence

from seamo_fast.cli import CommandLine
from seamo_fast.tasks.config import FinetuneConfig


def parse(arguments: Sequence[str]) -> FinetuneConfig:
    """Returns the settings.

    Args:
        arguments: What follows `python -m seamo_fast.finetune`.

    Raises:
        ConfigError: See `CommandLine.parse`.
    """
    config, _ = CommandLine(
        FinetuneConfig,
        prog="python -m seamo_fast.finetune",
        description="Trains and tests a classifier of EuroSAT images.",
    ).parse(arguments)
    return config
