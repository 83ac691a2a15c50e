"""The command line of `python -m seamo_fast.pretrain`."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

from seamo_fast.cli import CommandLine
from seamo_fast.training.config import PretrainConfig

DEFAULT_PRESET = "demo"


def presets() -> dict[str, Path]:
    """Returns the embedded configurations by name."""
    folder = Path(str(importlib.resources.files("seamo_fast") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse(arguments: Sequence[str]) -> tuple[PretrainConfig, bool]:
    """Returns the settings, and whether only a dry run is asked for.

    Args:
        arguments: What follows `python -m seamo_fast.pretrain`.

    Raises:
        ConfigError: See `CommandLine.parse`.
    """
    known = presets()
    config, flags = CommandLine(
        PretrainConfig,
        prog="python -m seamo_fast.pretrain",
        description=f"Pretrains SeaMo: --config is a preset ({', '.join(known)}; default "
        f"{DEFAULT_PRESET}) or a YAML file.",
        presets=known,
        default=DEFAULT_PRESET,
        flags={"dry_run": "check settings and data, and say what a run takes"},
    ).parse(arguments)
    return config, "dry_run" in flags
