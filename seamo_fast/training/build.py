"""The parts of a run, made from its settings: shards, plan, loaders, model, views."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton
from torch.utils.checkpoint import checkpoint

from seamo_fast import views
from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.data.loading.dali import DaliLoader
from seamo_fast.data.loading.loader import Loader, TileLoader
from seamo_fast.data.loading.stream import ahead
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.model.flops import forward_flops
from seamo_fast.model.fusion import FusionBlock
from seamo_fast.model.layers import Block
from seamo_fast.model.seamo import SeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.training import precision, schedule
from seamo_fast.training.config import Compile, PretrainConfig, Recompute, to_dict
from seamo_fast.training.distributed import ranks
from seamo_fast.training.schedule import Plan, Stage

_BACKWARD: Final = 2  # times the FLOPs of the forward pass
_PROGRAMS: Final = 64  # compiled from one function; torch gives up after eight


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


def make_model(config: PretrainConfig, shards: ShardSet, plan: Plan) -> SeaMo:
    """Returns a new model for the modalities of all stages, initialised from the seed."""
    wanted = {name for stage in plan.stages for name in stage.modalities}
    torch.manual_seed(config.run.seed)
    try:
        return SeaMo(config.model, [m for m in shards.modalities if m.name in wanted])
    except ValueError as error:
        raise DataError(f"{shards.path} cannot be trained on: {error}") from error


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


def transformer_blocks(model: SeaMo) -> list[nn.Module]:
    """Returns the blocks of encoder, fusion and decoders."""
    return [part for part in model.modules() if isinstance(part, (Block, FusionBlock))]


def recompute_blocks(model: SeaMo, how: Recompute) -> None:
    """Lets the backward pass compute the transformer blocks' insides anew instead of keeping them.

    Args:
        model: Not compiled yet; its parameters keep their names.
        how: `blocks`, or `none` for nothing.
    """
    if how == "blocks":
        for block in transformer_blocks(model):
            block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*given: Any, **named: Any) -> Tensor:
        return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, **named)

    return run


def choose_compile(how: Compile, device: torch.device) -> Compile:
    """Returns what `auto` means on a device: `regional` on a GPU with Triton, otherwise `off`.

    On a CPU the C++ kernels are faster than what torch.compile makes of the blocks
    (docs/performance-log.md).
    """
    if how != "auto":
        return how
    return "regional" if device.type == "cuda" and has_triton() else "off"


def compile_model(model: SeaMo, how: Compile, device: torch.device) -> None:
    """Compiles a model in place with torch.compile, for the shapes that it meets.

    Args:
        model: The model.
        how: `regional` compiles the transformer blocks: alike ones share a program, so it takes
            seconds. `full` compiles the whole model as one program, which takes minutes. `auto`:
            see `choose_compile`.
        device: Where it will run.
    """
    how = choose_compile(how, device)
    if how == "off":
        return  # before torch._dynamo is imported, which takes a second
    # blocks share one cache: three stages need a dozen programs, or two dozen
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    for part in [model] if how == "full" else transformer_blocks(model):
        # static shapes: a run resumed in its second stage must execute the same programs
        part.compile(fullgraph=True, dynamic=False)


def with_views(
    config: PretrainConfig, loader: Loader, stage: int
) -> Iterator[tuple[TileBatch, views.Views]]:
    """Yields the batches of a loader and their views, drawn ahead if it reads ahead."""
    batches = iter(loader)

    def prepare(_: int) -> tuple[TileBatch, views.Views]:
        batch = next(batches)
        return batch, draw_views(config, batch, stage)

    return ahead(prepare, 0, min(config.data.workers, 1), 1)


def step_flops(config: PretrainConfig, shards: ShardSet, stage: Stage) -> int:
    """Returns the model FLOPs of one sample's training step."""
    forward = forward_flops(
        config.model,
        shards.select(stage.modalities),
        stage.seasons,
        config.views,
        stage.fusion,
    )
    return (1 + _BACKWARD) * forward


def identity(config: PretrainConfig, shards: ShardSet) -> dict[str, Any]:
    """Returns what a run must have in common with a checkpoint to go on from it."""
    return {
        **to_dict(config),
        "shards": {
            "samples": len(shards),
            "seasons": shards.seasons,
            "order": [modality.name for modality in shards.modalities],
            "modalities": {m.name: json.loads(json.dumps(m.to_dict())) for m in shards.modalities},
            "contents": zlib.crc32(str([s.crc32 for s in shards.manifest.shards]).encode()),
        },
    }
