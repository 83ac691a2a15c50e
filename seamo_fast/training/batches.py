"""What a run trains on: shards, the plan of its stages, batches and their views."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from seamo_fast import views
from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.data.loading.dali import DaliLoader
from seamo_fast.data.loading.loader import Loader, TileLoader
from seamo_fast.data.loading.stream import ahead
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.tiles import TileBatch
from seamo_fast.training import precision, schedule
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.distributed import ranks
from seamo_fast.training.schedule import Plan, Stage


def open_shards(path: str) -> ShardSet:
    """Returns the shard set at `data.path`; `demo` is written first where it is not there yet.

    Raises:
        DataError: There is no usable shard set.
    """
    shards = ShardSet(demo_shards() if path == "demo" else path)
    if not len(shards):
        raise DataError(f"{path} holds no samples; pack some with python -m seamo_fast.pack")
    return shards


def make_plan(config: PretrainConfig, shards: ShardSet) -> Plan:
    """Returns the stages of a run on these shards, with their steps."""
    names = [modality.name for modality in shards.modalities]
    stages = schedule.stages(config.schedule, names, shards.seasons)
    steps = [
        schedule.stage_steps(
            stage.epochs,
            make_loader(config, shards, stage).samples,
            config.data.batch_size,
            config.run.steps_per_stage,
        )
        for stage in stages
    ]
    return Plan(tuple(stages), tuple(steps))


def make_loader(config: PretrainConfig, shards: ShardSet, stage: Stage, start: int = 0) -> Loader:
    """Returns this rank's part of the batches of a stage, from number `start` on."""
    options: dict[str, Any] = {
        "batch_size": config.data.batch_size,
        "seed": config.run.seed,
        "modalities": stage.modalities,
        "seasons": stage.seasons,
        "fraction": stage.data_fraction,
        "workers": config.data.workers,
        "start": start,
        "rank": ranks.rank(),
        "world": ranks.world(),
        "on_bad": config.data.on_bad,
        "verify": config.data.verify,
    }
    if config.data.loader == "dali":
        return DaliLoader(shards, device=precision.choose_device(config.run.device), **options)
    return TileLoader(shards, **options)


def draw_views(config: PretrainConfig, batch: TileBatch, stage: int) -> views.Views:
    """Returns the views of a batch, which follow from the seed, the stage and the samples."""
    return views.sample(
        batch.ids,
        batch.epochs,
        seed=config.run.seed,
        stage=stage,
        seasons=batch.seasons,
        modalities=len(batch.modalities),
        num_patches=config.model.num_patches,
        config=config.views,
    )


def with_views(
    config: PretrainConfig, loader: Loader, stage: int
) -> Iterator[tuple[TileBatch, views.Views]]:
    """Yields the batches of a loader and their views, drawn ahead if it reads ahead."""
    batches = iter(loader)

    def prepare(_: int) -> tuple[TileBatch, views.Views]:
        batch = next(batches)
        return batch, draw_views(config, batch, stage)

    return ahead(prepare, count(), min(config.data.workers, 1), 1)
