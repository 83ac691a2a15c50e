"""Two ranks, one of which has no image of a modality in its part of a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.training.conftest import write_shards
from tests.training.distributed.worker import run_ranks

pytestmark = pytest.mark.usefixtures("no_figures", "quick_rate")
WITH_RADAR = (0, 3, 7, 8)  # of twelve samples


@pytest.fixture(scope="module")
def rare_radar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve places, most of which no radar has seen."""
    return write_shards(tmp_path_factory.mktemp("rare") / "shards", radar_of=WITH_RADAR)


def losses(config: PretrainConfig) -> list[dict[str, Any]]:
    lines = read_metrics(Path(config.run.folder) / "metrics.jsonl")
    keys = ("loss", "loss/optic", "loss/radar", "grad_norm")
    return [{key: line[key] for key in keys if line.get(key) is not None} for line in lines]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_rank_without_a_modality_changes_nothing(
    settings: Callable[..., PretrainConfig], rare_radar: Path, tmp_path: Path, strategy: str
) -> None:
    one, two = (
        settings(
            data__path=str(rare_radar),
            run__folder=str(tmp_path / name),
            distributed__strategy=strategy,
        )
        for name in ("one", "two")
    )
    loop.pretrain(one)
    assert run_ranks(two, 2) == [None, None]
    assert len(losses(two)) == 11
    for found, wanted in zip(losses(two), losses(one), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_there_are_such_batches(settings: Callable[..., PretrainConfig], rare_radar: Path) -> None:
    # else the test above would say nothing
    config = settings(data__path=str(rare_radar))
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    loader = iter(batches.make_loader(config, shards, plan.stages[1]))
    parts = [part.valid[..., 1].any().item() for _ in range(9) for part in next(loader).split(2)]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    assert (True, False) in pairs
    assert (False, True) in pairs
