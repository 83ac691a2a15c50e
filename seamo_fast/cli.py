"""From the command line to a dataclass of settings: presets, YAML files and overrides.

Every command takes its settings this way, so that all of them read files, name the nearest known
key and refuse bad values alike.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from seamo_fast.errors import ConfigError, SeaMoError

Config = TypeVar("Config")


def exit_status(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit status.

    That is 2 for a failure that the user can mend, which is told in one line, and 130 for Ctrl-C.
    """
    try:
        command()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except (SeaMoError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


@dataclass(frozen=True)
class CommandLine(Generic[Config]):
    """What a command takes.

    Attributes:
        kind: Dataclass of the settings.
        prog: How the command is called.
        description: First line of its help.
        presets: Embedded YAML files that `--config` knows by name.
        default: Preset that is read where no `--config` is given, None for none.
        flags: Switches beside the settings, with their help.
    """

    kind: Callable[..., Config]
    prog: str
    description: str
    presets: Mapping[str, Path] = field(default_factory=dict)
    default: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)

    def parse(self, arguments: Sequence[str]) -> tuple[Config, set[str]]:
        """Reads the command line.

        Args:
            arguments: What follows the command.

        Returns:
            The settings, and the flags that were given.

        Raises:
            ConfigError: A key is unknown (the message names the nearest known one), a value has the
                wrong type, is missing or impossible, or a file is missing or no YAML.
        """
        arguments = self._with_files(arguments)
        for argument in arguments:
            if argument.startswith("--"):
                self._check_key(argument[2:].split("=", 1)[0].rstrip("+"))
        parser = self._parser()
        try:
            # groups become their dataclasses here, and each checks itself
            found = parser.instantiate(parser.parse_args(arguments))
        except argparse.ArgumentError as error:
            raise ConfigError(" ".join(error.message.split())) from error
        settings = {name: found[name] for name in _names(self.kind)}
        return self.kind(**settings), {flag for flag in self.flags if found[flag]}

    def _parser(self) -> ArgumentParser:
        parser = ArgumentParser(
            prog=self.prog, description=self.description, exit_on_error=False, allow_abbrev=False
        )
        which = "a preset or a YAML file" if self.presets else "a YAML file of settings"
        parser.add_argument("--config", action="config", help=which)
        for flag, text in self.flags.items():
            parser.add_argument(f"--{flag}", action="store_true", help=text)
        parser.add_class_arguments(self.kind)
        return parser

    def _with_files(self, arguments: Sequence[str]) -> list[str]:
        """Puts files in the place of preset names, and the default preset where there is none."""
        result: list[str] = []
        for number, argument in enumerate(arguments):
            if number and arguments[number - 1] == "--config":
                argument = self._file(argument)
            elif argument.startswith("--config="):
                argument = "--config=" + self._file(argument.partition("=")[2])
            result.append(argument)
        given = any(argument.partition("=")[0] == "--config" for argument in arguments)
        if self.default is not None and not given:
            result[:0] = ["--config", self._file(self.default)]
        return result

    def _file(self, name: str) -> str:
        path = self.presets.get(name, Path(name))
        if not path.is_file():
            known = f"neither a preset ({', '.join(self.presets)}) nor" if self.presets else "not"
            raise ConfigError(f"--config {name} is {known} a file")
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path} is not a YAML file: {reason}") from error
        if not isinstance(tree, Mapping):
            example = next(iter(_names(self.kind)))
            raise ConfigError(f"{path} must hold settings such as `{example}:`")
        for key in _keys(tree):
            self._check_key(key, f" in {path}")
        return str(path)

    def _check_key(self, key: str, where: str = "") -> None:
        known = {*self.flags, "config", "print_config", "help", *_known_keys(self.kind)}
        if key in known:
            return
        nearest = difflib.get_close_matches(key, known, 1, cutoff=0.5) or difflib.get_close_matches(
            key.rpartition(".")[2], known, 1, cutoff=0.3
        )
        hint = f"; the nearest known is {nearest[0]!r}" if nearest else ""
        raise ConfigError(f"unknown setting {key!r}{where}{hint} (--help lists all)")


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)]


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, Mapping):
                yield from _keys(item, f"{prefix}{key}.")


def _known_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass tree; those of the items of a list count as keys below it."""
    hints = get_type_hints(kind)
    for name in _names(kind):
        yield prefix + name
        for inner in (hints[name], *get_args(hints[name])):
            if isinstance(inner, type) and is_dataclass(inner):
                yield from _known_keys(inner, f"{prefix}{name}.")
