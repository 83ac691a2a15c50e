"""The command line of every command: presets, YAML files, overrides, errors and exit statuses.

A command is declared once, as a `Command`, and started by its `run`. So all of them read files,
name the nearest known key, refuse bad values and end alike.
"""

from __future__ import annotations

import argparse
import difflib
import faulthandler
import functools
import json
import logging
import reprlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from tqdm import tqdm

from seamo_fast.errors import ConfigError, SeaMoError
from seamo_fast.files import parse_yaml, read_yaml

Config = TypeVar("Config")
STOPPED: Final = 128  # what a shell adds to the number of the signal that ended a process
_TRUTH: Final = ("true", "false", "yes", "no")


@dataclass(frozen=True)
class NoSettings:
    """What a command takes that has nothing to set."""


class _Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the examples of a description line by line."""


@dataclass(frozen=True)
class Command(Generic[Config]):
    """A command and what it takes.

    Attributes:
        name: What follows `python -m seamo_fast.`.
        kind: Dataclass of the settings; its docstring is their help.
        description: What `--help` says first: the docstring of the command's module.
        positional: Whether the settings without a default are given by place, not by name.
        rest: Setting, a list, that takes the words that follow no `--key`; "" for none.
        presets: Embedded YAML files that `--config` knows by name.
        default: Preset that is read where no `--config` is given, None for none.
        flags: Switches beside the settings, with their help.
        interrupted: What to do after Ctrl-C.
    """

    name: str
    kind: Callable[..., Config]
    description: str | None
    positional: bool = False
    rest: str = ""
    presets: Mapping[str, Path] = field(default_factory=dict)
    default: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    interrupted: str = ""

    def run(self, action: Callable[..., int | None], arguments: Sequence[str] | None = None) -> int:
        """Parses the command line and acts on it.

        Args:
            action: Takes the settings, and each flag by its name as a bool; may return an exit
                status.
            arguments: What follows the command; those of this process if None.

        Returns:
            The exit status: that of the action or 0, 2 for a failure that the user can fix (one
            line on stderr), 128 + the signal for what was stopped by one: 130 for Ctrl-C.
        """
        given = _own(arguments)
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        logging.getLogger("seamo_fast").setLevel(logging.INFO)
        try:
            settings, flags = self.parse(given)
            return action(settings, **{flag: flag in flags for flag in self.flags}) or 0
        except KeyboardInterrupt:
            sys.stderr.write(f"interrupted{self.interrupted and '; '}{self.interrupted}\n")
            return STOPPED + signal.SIGINT
        except (SeaMoError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        except (MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
            sys.stderr.write(
                f"error: out of memory; take less at once, or a smaller model: {reason}\n"
            )
            return 2

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
        if any("\0" in argument for argument in arguments):
            raise ConfigError("an argument holds a NUL character, which no name or number has")
        arguments = self._with_files(arguments)
        for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
            if argument.startswith("--"):
                name, equals, value = argument[2:].partition("=")
                self._check_key(name.rstrip("+"))
                self._check_inline(name, value if equals else following)
        parser = self._parser()
        try:
            # groups become their dataclasses here, and each checks itself
            found = parser.instantiate(parser.parse_args(self._with_rest(arguments)))
        except argparse.ArgumentError as error:
            raise ConfigError(" ".join(error.message.split())) from error
        settings = {name: found[name] for name in _names(self.kind)}
        return self.kind(**settings), {flag for flag in self.flags if found[flag]}

    def _parser(self) -> ArgumentParser:
        prog = f"python -m seamo_fast.{self.name}"
        parser = ArgumentParser(
            prog=prog,
            usage=" ".join([prog, *self._usage()]),
            description=self.description,
            formatter_class=_Help,
            exit_on_error=False,
            allow_abbrev=False,
        )
        if _names(self.kind):
            parser.add_argument("--config", action="config", help=self._config_help())
        for flag, text in self.flags.items():
            parser.add_argument(f"--{flag}", action="store_true", help=text)
        parser.add_class_arguments(self.kind, as_positional=self.positional)
        return parser

    def _usage(self) -> Iterator[str]:
        """Yields the words that follow the command: what is needed, then what may be given."""
        if self.rest:
            yield f"[{self.rest.upper()} ...]"
        for name in _required(self.kind):
            yield name.upper() if self.positional else f"--{name} {name.upper()}"
        if self.presets:
            yield "[--config PRESET_OR_FILE]"
        yield from (f"[--{flag}]" for flag in self.flags)
        if _names(self.kind):
            yield "[--SETTING VALUE ...]"

    def _config_help(self) -> str:
        if not self.presets:
            return "a YAML file of settings"
        return f"a preset ({', '.join(self.presets)}; default {self.default}) or a YAML file"

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

    def _with_rest(self, arguments: Sequence[str]) -> list[str]:
        """Gathers the words that follow no key into the list that takes them."""
        words: list[str] = []
        others: list[str] = []
        alone = {"help", "print_config", *self.flags}
        takes_value = False
        for argument in self._with_values(arguments):
            is_key = argument.startswith("--" if takes_value else "-")  # a value may be negative
            (others if is_key or takes_value or not self.rest else words).append(argument)
            takes_value = is_key and "=" not in argument and argument.strip("-") not in alone
        return others + ([f"--{self.rest}={json.dumps(words)}"] if words else [])

    def _with_values(self, arguments: Sequence[str]) -> list[str]:
        """Lets a setting that is true or false stand without a value, for true."""
        switches = {f"--{key}" for key, hint in _settings(self.kind) if hint is bool}
        return [
            f"{argument}=true" if argument in switches and value not in _TRUTH else argument
            for argument, value in zip_longest(arguments, arguments[1:])
        ]

    def _file(self, name: str) -> str:
        path = self.presets.get(name, Path(name))
        if not path.is_file():
            known = f"neither a preset ({', '.join(self.presets)}) nor" if self.presets else "not"
            raise ConfigError(f"--config {name} is {known} a file")
        try:
            tree = read_yaml(path)
        except ValueError as error:
            raise ConfigError(f"{path} is not a YAML file of settings: {error}") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        _check_group(self.kind, tree, str(path))
        self._check_tree(tree, f" in {path}")
        return str(path)

    def _check_inline(self, name: str, text: str) -> None:
        """Checks a group of settings that is given as a mapping on the command line."""
        if not text.startswith("{"):
            return
        try:
            tree = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--{name} {text} is no YAML: {error}") from error
        if isinstance(tree, Mapping):
            self._check_tree({name: tree}, f" in --{name}")

    def _check_tree(self, tree: Mapping[str, Any], where: str) -> None:
        hints = dict(_settings(self.kind))
        for key, value in _items(tree):
            self._check_key(key, where)
            hint = hints.get(key)
            if is_dataclass(hint):
                _check_group(hint, value, f"{key}{where}")
            elif value is None and type(None) not in get_args(hint):
                raise ConfigError(f"{key}{where} must have a value, but got null")

    def _check_key(self, key: str, where: str = "") -> None:
        known = {*self.flags, "config", "print_config", "help"}
        known.update(setting for setting, _ in _settings(self.kind))
        if key not in known:
            hint = _nearest(key, known, 0.5) or _nearest(key.rpartition(".")[2], known, 0.3)
            raise ConfigError(f"unknown setting {key!r}{where}{hint} (--help lists all)")


def run_one_of(
    prog: str,
    summaries: Mapping[str, str],
    start: Callable[[str, Sequence[str]], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs the command that the first argument names; without one, lists them all.

    Args:
        prog: How this is called.
        summaries: One line about each command.
        start: Runs the command of a name with what follows it; returns its exit status.
        arguments: What follows `prog`; those of this process if None.

    Returns:
        The exit status: that of the command, 0 for the list, 2 for an unknown name.
    """
    given = _own(arguments)
    if not given or given[0] in ("-h", "--help"):
        width = max(map(len, summaries))
        say(f"usage: {prog} NAME [--help] [ARGUMENT ...]\n")
        for name, summary in summaries.items():
            say(f"  {name:<{width}}  {summary}")
        return 0
    if given[0] not in summaries:
        hint = _nearest(given[0], summaries, 0.3)
        sys.stderr.write(f"error: unknown command {given[0]!r}{hint} ({prog} --help lists all)\n")
        return 2
    return start(given[0], given[1:])


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def progress_bar(samples: int) -> tqdm[None]:
    """Returns a bar over so many samples, with rate and time left; silent if no terminal reads."""
    quiet = not sys.stderr.isatty()
    return tqdm(total=samples, unit="sample", leave=None, disable=quiet)  # below another it goes


def _own(arguments: Sequence[str] | None) -> Sequence[str]:
    if arguments is not None:
        return arguments
    # a process of its own: a shard that is cut while it is mapped ends it with SIGBUS
    faulthandler.enable()
    return sys.argv[1:]


def _nearest(name: str, known: Iterable[str], cutoff: float) -> str:
    found = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"; the nearest known is {found[0]!r}" if found else ""


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)]


def _required(kind: Any) -> list[str]:
    return [
        each.name
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING
    ]


def _is_short_of_memory(error: Exception) -> bool:
    """Whether Python, or torch on the CPU or a GPU, found no memory; torch is not imported here."""
    of_torch = "can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError"
    return of_torch or isinstance(error, MemoryError)


def _check_group(kind: Any, value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} must hold settings such as `{_names(kind)[0]}:`, but got "
            f"{reprlib.repr(value)}"
        )


def _items(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields key and value of each setting in a file; items of a list count as keys below it."""
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        below = value if isinstance(value, list) else [value]
        for item in below:
            if isinstance(item, Mapping):
                yield from _items(item, f"{prefix}{key}.")


@functools.cache
def _settings(kind: Any, prefix: str = "") -> tuple[tuple[str, Any], ...]:
    """Key and type of each setting of a dataclass tree; items of a list count as keys below it."""
    hints, found = get_type_hints(kind), []
    for name in _names(kind):
        found.append((prefix + name, hints[name]))
        for inner in (hints[name], *get_args(hints[name])):
            if isinstance(inner, type) and is_dataclass(inner):
                found += _settings(inner, f"{prefix}{name}.")
    return tuple(found)
