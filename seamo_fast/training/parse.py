"""From the command line to a PretrainConfig: presets, YAML files and overrides."""

from __future__ import annotations

import argparse
import difflib
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from seamo_fast.errors import ConfigError
from seamo_fast.training.config import PretrainConfig

DEFAULT_PRESET = "demo"
_OPTIONS = ("config", "print_config", "dry_run", "help")


def presets() -> dict[str, Path]:
    """Returns the embedded configurations by name."""
    folder = Path(str(importlib.resources.files("seamo_fast") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse(arguments: Sequence[str]) -> tuple[PretrainConfig, bool]:
    """Reads the command line.

    Args:
        arguments: What follows `python -m seamo_fast.pretrain`.

    Returns:
        The settings, and whether only a dry run is asked for.

    Raises:
        ConfigError: A key is unknown (the message names the nearest known one), a value has the
            wrong type or is impossible, or a file is missing or no YAML.
    """
    arguments = _with_files(arguments)
    for argument in arguments:
        if argument.startswith("--"):
            _check_key(argument[2:].split("=", 1)[0].rstrip("+"))
    parser = _parser()
    try:
        # groups become their dataclasses here, and each checks itself
        found = parser.instantiate(parser.parse_args(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(error.message.split())) from error
    settings = {field.name: found[field.name] for field in fields(PretrainConfig)}
    return PretrainConfig(**settings), found["dry_run"]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m seamo_fast.pretrain",
        usage="%(prog)s [--config NAME_OR_FILE] [--section.key VALUE ...] [--dry_run]",
        description="Pretrains SeaMo: --config is a preset "
        f"({', '.join(presets())}; default {DEFAULT_PRESET}) or a YAML file.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a preset or a YAML file")
    parser.add_argument(
        "--dry_run", action="store_true", help="check settings and data, and say what a run takes"
    )
    parser.add_class_arguments(PretrainConfig)
    return parser


def _with_files(arguments: Sequence[str]) -> list[str]:
    """Puts files in the place of preset names, and the default preset where there is none."""
    result: list[str] = []
    for number, argument in enumerate(arguments):
        if number and arguments[number - 1] == "--config":
            argument = _config_file(argument)
        elif argument.startswith("--config="):
            argument = "--config=" + _config_file(argument.partition("=")[2])
        result.append(argument)
    if not any(argument.partition("=")[0] == "--config" for argument in arguments):
        result[:0] = ["--config", _config_file(DEFAULT_PRESET)]
    return result


def _config_file(name: str) -> str:
    path = presets().get(name, Path(name))
    if not path.is_file():
        raise ConfigError(
            f"--config {name} is neither a preset ({', '.join(presets())}) nor a file"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path} must hold sections such as `data:` and `model:`")
    for key in _keys(tree):
        _check_key(key, f" in {path}")
    return str(path)


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, Mapping):
                yield from _keys(item, f"{prefix}{key}.")


def _check_key(key: str, where: str = "") -> None:
    known = {*_OPTIONS, *_known_keys(PretrainConfig)}
    if key.removesuffix(".help") in known:
        return
    nearest = difflib.get_close_matches(key, known, 1, cutoff=0.5) or difflib.get_close_matches(
        key.rpartition(".")[2], known, 1, cutoff=0.3
    )
    hint = f"; the nearest known is {nearest[0]!r}" if nearest else ""
    raise ConfigError(f"unknown setting {key!r}{where}{hint} (--help lists all)")


def _known_keys(kind: type, prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass tree; those of the items of a list count as keys below it."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        yield prefix + field.name
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if isinstance(inner, type) and is_dataclass(inner):
                yield from _known_keys(inner, f"{prefix}{field.name}.")
