"""From the command line to a FinetuneConfig."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from seamo_fast.errors import ConfigError
from seamo_fast.tasks.config import FinetuneConfig


def parse(arguments: Sequence[str]) -> FinetuneConfig:
    """Reads the command line.

    Args:
        arguments: What follows `python -m seamo_fast.finetune`.

    Raises:
        ConfigError: A key is unknown (the message names the nearest known one), a value has the
            wrong type or is impossible, `--data` is missing, or a file is no YAML.
    """
    names = [field.name for field in fields(FinetuneConfig)]
    for number, argument in enumerate(arguments):
        if argument.startswith("--"):
            key, _, value = argument[2:].partition("=")
            _check_key(key, [*names, "config", "print_config", "help"])
            if key == "config":
                _check_file(Path(value or "".join(arguments[number + 1 : number + 2])), names)
    parser = ArgumentParser(
        prog="python -m seamo_fast.finetune",
        description="Trains and tests a classifier of EuroSAT images.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file of settings")
    parser.add_class_arguments(FinetuneConfig)
    try:
        found = parser.parse_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(error.message.split())) from error
    return FinetuneConfig(**{name: found[name] for name in names})


def _check_file(path: Path, known: list[str]) -> None:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"--config {path} is no YAML file: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"--config {path} must hold settings such as `method: full`")
    for key in tree:
        _check_key(str(key), known, f" in {path}")


def _check_key(key: str, known: list[str], where: str = "") -> None:
    if key not in known:
        nearest = difflib.get_close_matches(key, known, 1, cutoff=0.3)
        hint = f"; the nearest known is {nearest[0]!r}" if nearest else ""
        raise ConfigError(f"unknown setting {key!r}{where}{hint} (--help lists all)")
