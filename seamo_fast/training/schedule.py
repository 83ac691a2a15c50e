"""Stages of a run, their steps, and the learning rate of every step."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from seamo_fast.errors import ConfigError
from seamo_fast.training.config import OptimConfig, ScheduleConfig, StageConfig


@dataclass(frozen=True)
class Stage:
    """One stage, fitted to the shards.

    Attributes:
        number: Place in the run, from 0; keys the stage's views.
        name: Shown in logs and figures.
        modalities: Names, in the order of the M axis.
        seasons: T.
        fusion: Run the TM fusion.
        epochs: Passes over the stage's share of the data.
        data_fraction: Share of the samples.
    """

    number: int
    name: str
    modalities: tuple[str, ...]
    seasons: int
    fusion: bool
    epochs: float
    data_fraction: float


def stages(config: ScheduleConfig, modalities: Sequence[str], seasons: int) -> list[Stage]:
    """Returns the run's stages.

    `progressive` is the two-stage schedule of SeaMo (arXiv 2412.19237): single seasons of all
    modalities without TM fusion, then all seasons with it.

    Args:
        config: The schedule.
        modalities: What the shards hold.
        seasons: What the shards hold.

    Raises:
        ConfigError: A stage wants a modality or more seasons than there are.
    """
    wanted = config.modalities or tuple(modalities)
    most = seasons if config.seasons is None else config.seasons
    result = []
    for number, stage in enumerate(config.stages or _named(config, wanted)):
        names = stage.modalities or wanted
        unknown = [name for name in names if name not in modalities]
        if unknown:
            raise ConfigError(
                f"stage {stage.name!r} wants modality {unknown[0]!r}, but the shards hold "
                f"{', '.join(modalities)}"
            )
        count = most if stage.seasons is None else stage.seasons
        if not 1 <= count <= seasons:
            raise ConfigError(
                f"stage {stage.name!r} wants {count} seasons, but the shards hold {seasons}"
            )
        result.append(
            Stage(number, stage.name, names, count, stage.fusion, stage.epochs, stage.data_fraction)
        )
    return result


def _named(config: ScheduleConfig, modalities: Sequence[str]) -> list[StageConfig]:
    unimodal, single, multi = config.unimodal, config.single_season, config.multi_season
    first = tuple(modalities[:1])
    all_stages = {
        "unimodal_first": StageConfig(
            f"single-season {first[0]}", unimodal.epochs, first, 1, False, unimodal.data_fraction
        ),
        "progressive": StageConfig(
            "single-season", single.epochs, None, 1, False, single.data_fraction
        ),
        "direct": StageConfig("multi-season", multi.epochs, None, None, True, multi.data_fraction),
    }
    return list(all_stages.values())[list(all_stages).index(config.kind) :]


@dataclass(frozen=True)
class Plan:
    """Stages with their lengths.

    Attributes:
        stages: In the order of the run.
        steps: Steps of each.
    """

    stages: tuple[Stage, ...]
    steps: tuple[int, ...]

    @property
    def total(self) -> int:
        """Steps of the run."""
        return sum(self.steps)

    def ends(self) -> list[int]:
        """Returns after how many steps of the run each stage ends."""
        return [sum(self.steps[: number + 1]) for number in range(len(self.steps))]

    def left(self, step: int) -> list[int]:
        """Returns how many steps of each stage are left after `step` steps of the run."""
        return [
            max(0, min(end - step, steps))
            for end, steps in zip(self.ends(), self.steps, strict=True)
        ]

    def locate(self, step: int) -> tuple[Stage, int]:
        """Returns the stage of the run's step `step` (from 0), and its number in the stage."""
        number = bisect.bisect_right(self.ends(), step)
        return self.stages[number], step - sum(self.steps[:number])


def stage_steps(epochs: float, samples: int, batch_size: int, most: int | None = None) -> int:
    """Returns ceil(epochs * samples / batch_size), but not more than `most`."""
    steps = math.ceil(epochs * samples / batch_size)
    return steps if most is None else min(steps, most)


def learning_rate(step: int, steps: int, config: OptimConfig, batch_size: int) -> float:
    """Returns the rate of a stage's step: linear warm-up, then half a cosine down to `min_lr`.

    The peak follows the linear scaling rule, blr * batch_size / 256.

    Args:
        step: Number of the step in its stage, from 0.
        steps: Steps of the stage.
        config: Optimiser settings.
        batch_size: Samples a step on all devices together.
    """
    peak = config.blr * batch_size / 256
    warmup = round(config.warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.min_lr + (peak - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
