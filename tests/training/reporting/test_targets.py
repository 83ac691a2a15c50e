"""A modality without targets is named when a run starts, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardWriter
from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.dry_run import dry_run
from seamo_fast.training.reporting.targets import without_targets
from tests.training.conftest import OPTIC, RADAR, SAMPLES, SEASONS, SIZE

Settings = Callable[..., PretrainConfig]
MEASURED = replace(RADAR, mean=(-12.0, -18.0), std=(3.0, 3.0), release="made")
LINE = (
    "radar has no target, so its loss will be 0: {} in the first 32 samples; leave it out, or see "
    "'What is missing' in docs/data.md"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Returns a function that writes shards whose radar lacks something."""

    def write(lacks: str) -> str:
        folder = tmp_path / lacks
        optic = replace(OPTIC, mean=(3000.0,) * 3, std=(500.0,) * 3, release="made")
        writer = ShardWriter(folder, (optic, MEASURED), SEASONS, source="made", shard_size=8)
        for number in range(SAMPLES):
            rng = np.random.default_rng(number)
            fine = rng.integers(1, 5000, (SEASONS, 2, SIZE, SIZE)).astype(np.uint16)
            coarse = rng.integers(1, 5000, (SEASONS, 1, SIZE // 2, SIZE // 2)).astype(np.uint16)
            radar = rng.normal(-12, 3, (SEASONS, 2, SIZE, SIZE)).astype(np.float32)
            if lacks == "pixels":
                radar[..., ::2, ::2] = np.nan
            seen = lacks == "pixels" or (lacks == "most" and number == 5)
            writer.add(
                f"place-{number}",
                {"optic": [fine, coarse], "radar": [radar]},
                {"optic": [None] * SEASONS, "radar": [None] * SEASONS},
                {"optic": [True] * SEASONS, "radar": [seen] * SEASONS},
            )
        writer.finish()
        return str(folder)

    return write


REASONS = {
    "groups": "no group is valid",
    "pixels": "every hidden patch has pixels that are not measured",
}


@pytest.mark.usefixtures("no_figures", "quick_rate")
@pytest.mark.parametrize("lacks", list(REASONS))
def test_a_run_says_so_once(
    settings: Settings,
    write: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    lacks: str,
) -> None:
    caplog.set_level(logging.INFO, logger="seamo_fast")
    config = settings(data__path=write(lacks), run__steps_per_stage=2)
    loop.pretrain(config)
    said = [line for line in caplog.messages if "no target" in line]
    assert said == [LINE.format(REASONS[lacks])]
    stages = [number for number, line in enumerate(caplog.messages) if line.startswith("stage ")]
    assert caplog.messages.index(said[0]) == stages[-1] + 1  # before the first step
    assert dry_run(config).count(said[0]) == 1


def test_nothing_is_said_where_some_sample_has_a_target(
    settings: Settings, write: Callable[[str], str]
) -> None:
    for config in (settings(), settings(data__path=write("most"))):
        shards = batches.open_shards(config.data.path)
        assert without_targets(config, shards, batches.make_plan(config, shards)) == []
