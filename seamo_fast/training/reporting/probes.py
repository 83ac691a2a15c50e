"""In-loop probe: what the features of a model are worth while it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch

from seamo_fast.errors import ConfigError
from seamo_fast.model.seamo import SeaMo
from seamo_fast.model.weights import Weights
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import run_folder
from seamo_fast.training.reporting.telemetry import PROBE, read_metrics
from seamo_fast.training.schedule import Plan

# Figures by name of weights in memory; it must change nothing of the process but the random state.
Measure: TypeAlias = Callable[[Weights], Mapping[str, float]]
# Opens the dataset `run.probe`; called on rank 0 once the run folder is locked.
OpenProbe: TypeAlias = Callable[[PretrainConfig], Measure]


class Probes:
    """Measures the model on rank 0 at the steps that the settings ask for.

    Args:
        config: The run's settings.
        folder: The run folder.
        plan: The run's stages.
        open_probe: Opens the dataset; may be None where `run.probe` is.

    Raises:
        SeaMoError: The dataset cannot be used; on all ranks.
    """

    def __init__(
        self, config: PretrainConfig, folder: Path, plan: Plan, open_probe: OpenProbe | None
    ) -> None:
        self._config = config
        self._folder = folder
        self._plan = plan
        self._on = config.run.probe is not None
        self._measure: Measure | None = None
        with ranks.raise_on_all():
            if self._on and open_probe is None:
                raise ConfigError(
                    f"run.probe {config.run.probe!r} needs `open_probe`, which the command "
                    "python -m seamo_fast.pretrain gives; leave it null, or start the command"
                )
            if self._on and open_probe is not None and ranks.is_main():
                self._measure = open_probe(config)

    def due(self, step: int) -> bool:
        """Whether the model is probed after a step: at the end of a stage, or every so often."""
        every = self._config.run.probe_every
        often = every is not None and step % every == 0
        return self._on and (often or step in self._plan.ends())

    def missing(self) -> bool:
        """Whether the run is to be probed and has no figure yet."""
        begun = True
        with ranks.raise_on_all():
            if self._on and ranks.is_main():
                begun = self._begun()
        return not ranks.from_main(begun)

    def _begun(self) -> bool:
        lines = read_metrics(self._folder / run_folder.METRICS)
        return any(key.startswith(PROBE) for line in lines for key in line)

    def measure(self, model: SeaMo) -> dict[str, float]:
        """Returns the figures as "probe/<name>" on rank 0, which alone measures; all take part.

        Figures that are not finite, as of classes that do not occur, are left out.
        """
        state = sharding.gather(model.state_dict())
        found: Mapping[str, float] = {}
        with ranks.raise_on_all():
            if self._measure is not None:
                weights = Weights(
                    self._folder, self._config.model, tuple(model.modalities), state, {}
                )
                with torch.random.fork_rng([]):  # a backbone begins with random weights
                    found = self._measure(weights)
        return {f"{PROBE}{name}": value for name, value in found.items() if math.isfinite(value)}
