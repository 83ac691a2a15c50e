"""Settings of both profiles: those of a pretraining run, and a few of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from seamo_fast.cli import CommandLine
from seamo_fast.errors import ConfigError
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.parse import DEFAULT_PRESET, presets

_PARITY_PRESET: Final = "parity"


def _check(group: str, values: Mapping[str, int], least: int) -> None:
    for key, value in values.items():
        if value < least:
            raise ConfigError(f"{group}.{key} must be at least {least}, but got {value}")


@dataclass(frozen=True)
class StepOptions:
    """How a step is profiled.

    Attributes:
        folder: Where the tables, the trace and the plot go.
        warmup: Steps that come first and do not count.
        steps: Steps whose phases are timed.
        traced: Steps that torch.profiler records afterwards, for the operators and the trace.
    """

    folder: str = "runs/profile"
    warmup: int = 3
    steps: int = 10
    traced: int = 3

    def __post_init__(self) -> None:
        _check(
            "profile", {"warmup": self.warmup, "steps": self.steps, "traced": self.traced}, least=1
        )


@dataclass(frozen=True)
class StepConfig(PretrainConfig):
    """All settings of `python -m seamo_fast.profile step`."""

    profile: StepOptions = field(default_factory=StepOptions)


@dataclass(frozen=True)
class ParityOptions:
    """How losses are compared.

    Attributes:
        folder: Where the curves, the verdict and the plot go.
        steps: Steps of each variant; the learning rate falls over them.
        seeds: Runs of the fast model with other seeds, the first included; their spread is what a
            difference is held against.
        compiled: Compare the compiled model too, which needs a C++ compiler or a GPU.
        jobs: Variants that train at the same time.
    """

    folder: str = "runs/parity"
    steps: int = 5000
    seeds: int = 3
    compiled: bool = True
    jobs: int = 1

    def __post_init__(self) -> None:
        _check("parity", {"steps": self.steps, "jobs": self.jobs}, least=1)
        _check("parity", {"seeds": self.seeds}, least=2)


@dataclass(frozen=True)
class ParityConfig(PretrainConfig):
    """All settings of `python -m seamo_fast.profile parity`."""

    parity: ParityOptions = field(default_factory=ParityOptions)


def parse_step(arguments: Sequence[str]) -> StepConfig:
    """Returns the settings.

    Args:
        arguments: What follows `python -m seamo_fast.profile step`.

    Raises:
        ConfigError: See `CommandLine.parse`.
    """
    known = presets()
    config, _ = CommandLine(
        StepConfig,
        prog="python -m seamo_fast.profile step",
        description="Measures where the time of a training step goes. Takes the settings of "
        f"python -m seamo_fast.pretrain: --config is a preset ({', '.join(known)}; default "
        f"{DEFAULT_PRESET}) or a YAML file.",
        presets=known,
        default=DEFAULT_PRESET,
    ).parse(arguments)
    return config


def parse_parity(arguments: Sequence[str]) -> ParityConfig:
    """Returns the settings; arguments and errors as in `parse_step`."""
    known = {**presets(), _PARITY_PRESET: Path(__file__).with_name("parity.yaml")}
    config, _ = CommandLine(
        ParityConfig,
        prog="python -m seamo_fast.profile parity",
        description="Trains the reference and the fast model side by side and compares their "
        "losses. Takes the settings of python -m seamo_fast.pretrain: --config is a preset "
        f"({', '.join(known)}; default {_PARITY_PRESET}) or a YAML file.",
        presets=known,
        default=_PARITY_PRESET,
    ).parse(arguments)
    return config
