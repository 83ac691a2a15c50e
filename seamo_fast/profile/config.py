"""Both profiles as commands: the settings of a pretraining run, and a few of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from seamo_fast.cli import Command
from seamo_fast.errors import expect
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.presets import DEFAULT_PRESET, presets


def _check(group: str, values: Mapping[str, int], least: int) -> None:
    for key, value in values.items():
        expect(value >= least, f"{group}.{key}", f"at least {least}", value)


@dataclass(frozen=True)
class StepOptions:
    """How a step is profiled.

    Attributes:
        folder: Where the tables, the trace and the plot go; null for runs/profile, with -2, -3 ...
            at its end where there is one.
        warmup: Steps that come first and do not count.
        steps: Steps whose phases are timed.
        traced: Steps that torch.profiler records afterwards, for the operators and the trace.
    """

    folder: str | None = None
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
        folder: Where the curves, the verdict and the plot go; null for runs/parity, with -2, -3 ...
            at its end where there is one.
        steps: Steps of each variant; the learning rate falls over them.
        seeds: Runs of the fast model with other seeds, the first included; their spread is what a
            difference is held against.
        compiled: Compare the compiled model too, which needs a C++ compiler or a GPU.
        jobs: Variants that train at the same time.
    """

    folder: str | None = None
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


_SETTINGS: Final = "Takes the settings of python -m seamo_fast.pretrain and a few of its own."

STEP: Final = Command(
    "profile step",
    StepConfig,
    f"Measures where the time of a training step goes. {_SETTINGS}",
    presets=presets(),
    default=DEFAULT_PRESET,
)
PARITY: Final = Command(
    "profile parity",
    ParityConfig,
    f"Trains the reference and the fast model side by side and compares their losses.\n{_SETTINGS}",
    presets={**presets(), "parity": Path(__file__).with_name("parity.yaml")},
    default="parity",
)
