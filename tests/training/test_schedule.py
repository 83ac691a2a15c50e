from __future__ import annotations

import math
from typing import Any

import pytest

from seamo_fast.errors import ConfigError
from seamo_fast.training.config import OptimConfig, ScheduleConfig, StageConfig, StageLength
from seamo_fast.training.schedule import Plan, Stage, learning_rate, stage_steps, stages

NAMES = ("s2l2a", "s1grd")


def test_progressive_is_single_season_without_fusion_then_all_seasons_with_it() -> None:
    first, second = stages(ScheduleConfig(), NAMES, 4)
    assert first == Stage(0, "single-season", NAMES, 1, False, 20, 0.25)
    assert second == Stage(1, "multi-season", NAMES, 4, True, 200, 1.0)


def test_direct_and_unimodal_first_take_a_stage_away_and_put_one_before() -> None:
    progressive = stages(ScheduleConfig(), NAMES, 4)
    (direct,) = stages(ScheduleConfig("direct"), NAMES, 4)
    assert (direct.name, direct.number) == (progressive[1].name, 0)
    unimodal = stages(ScheduleConfig("unimodal_first", unimodal=StageLength(7, 0.5)), NAMES, 4)
    assert [stage.name for stage in unimodal[1:]] == [stage.name for stage in progressive]
    assert unimodal[0] == Stage(0, "single-season s2l2a", ("s2l2a",), 1, False, 7, 0.5)


def test_stages_written_out_replace_the_kind_and_take_what_they_do_not_name_from_the_shards() -> (
    None
):
    config = ScheduleConfig(stages=(StageConfig("a", 1), StageConfig("b", 2, ("s1grd",), 2)))
    first, second = stages(config, NAMES, 3)
    assert (first.modalities, first.seasons) == (NAMES, 3)
    assert (second.modalities, second.seasons, second.number) == (("s1grd",), 2, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ScheduleConfig(modalities=("s3",)), "wants modality 's3', but .* hold s2l2a, s1grd"),
        (ScheduleConfig(seasons=5), "wants 5 seasons, but the shards hold 4"),
        (ScheduleConfig(stages=(StageConfig("a", 1, None, 0),)), "stage 'a' wants 0 seasons"),
    ],
)
def test_a_stage_that_the_shards_cannot_feed_is_refused(
    config: ScheduleConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stages(config, NAMES, 4)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [((3, 10, 4), 8), ((1, 8, 4), 2), ((0.5, 10, 4), 2), ((20, 63, 64), 20), ((9, 9, 9, 5), 5)],
)
def test_steps_cover_the_epochs(arguments: tuple[Any, ...], steps: int) -> None:
    assert stage_steps(*arguments) == steps


def test_a_plan_finds_the_stage_of_every_step() -> None:
    first, second, third = stages(ScheduleConfig("unimodal_first"), NAMES, 4)
    plan = Plan((first, second, third), (2, 1, 3))
    found = [plan.locate(step) for step in range(plan.total)]
    assert found == [(first, 0), (first, 1), (second, 0), (third, 0), (third, 1), (third, 2)]
    assert plan.ends() == [2, 3, 6]


def test_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    config = OptimConfig(blr=1e-3, min_lr=1e-5, warmup_fraction=0.1)
    peak = 1e-3 * 128 / 256
    rates = [learning_rate(step, 200, config, 128) for step in range(200)]
    assert rates[:20] == pytest.approx([peak * (step + 1) / 20 for step in range(20)])
    for step in range(20, 200):
        angle = math.pi * (step - 20) / 180
        assert rates[step] == pytest.approx(1e-5 + (peak - 1e-5) * (1 + math.cos(angle)) / 2)
    assert max(rates) == pytest.approx(peak)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_learning_rate_is_positive_in_the_shortest_stages(steps: int, fraction: float) -> None:
    config = OptimConfig(warmup_fraction=fraction)
    rates = [learning_rate(step, steps, config, 256) for step in range(steps)]
    assert all(0 < rate <= config.blr for rate in rates)
