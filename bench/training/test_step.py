"""A training step: ours beside the reference of `seamo_fast.reference`, as it is and compiled."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bench.kernels.common import clock
from seamo_fast.data.demo import demo_shards
from seamo_fast.data.loader import TileLoader
from seamo_fast.data.shards import ShardSet
from seamo_fast.model.flops import forward_flops
from seamo_fast.model.seamo import SeaMo
from seamo_fast.reference import ReferenceSeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.training import build, optimizer, precision
from seamo_fast.training.config import OptimConfig, PretrainConfig
from seamo_fast.training.parse import parse
from seamo_fast.views import ViewConfig, Views, sample

BATCH, SEASONS = 8, 4
ROUNDS = 5
# how ours is compiled, the rival, and the share of the hidden patches that ours decodes
RACES = (
    ("off", "reference", 1.0),
    ("regional", "reference", 1.0),
    ("off", "reference compiled", 1.0),
    ("regional", "reference compiled", 1.0),
    ("off", "reference", 0.25),
)


def settings() -> PretrainConfig:
    """The preset `small`."""
    return parse(["--config", "small"])[0]


def inputs(config: PretrainConfig, views: ViewConfig, device: torch.device) -> Any:
    """A batch of the demo data and its views."""
    shards = ShardSet(demo_shards())
    names = [modality.name for modality in shards.modalities]
    loader = TileLoader(shards, batch_size=BATCH, seed=0, modalities=names, seasons=SEASONS)
    batch = next(iter(loader))
    drawn = sample(
        batch.ids,
        batch.epochs,
        seed=0,
        stage=0,
        seasons=SEASONS,
        modalities=len(names),
        num_patches=config.model.num_patches,
        config=views,
    )
    return shards.modalities, batch.to(device), drawn.to(device)


def stepper(model: nn.Module, call: Callable[..., Any]) -> Callable[[TileBatch, Views], float]:
    """Returns a function that makes a training step and returns its loss."""
    adamw = optimizer.build(model, OptimConfig())

    def step(batch: TileBatch, views: Views) -> float:
        total = call(batch, views)[0]
        total.backward()
        optimizer.apply(adamw, model, 1e-4, None)
        return float(total.detach())

    return step


@pytest.mark.parametrize(("how", "rival", "decoded"), RACES)
def test_step(benchmark: Any, how: Any, rival: str, decoded: float) -> None:
    """`share` is the median of ours over that of the rival, whose steps alternate with ours.

    `mfu` counts what the reference's loss needs, all patches decoded, against the rate of a product
    of two matrices measured now. The first losses have to agree.
    """
    config, device = settings(), precision.choose_device("auto")
    torch.compiler.reset()
    modalities, batch, views = inputs(config, ViewConfig(decode_fraction=decoded), device)
    everything = inputs(config, ViewConfig(), device)[2]
    torch.manual_seed(0)
    reference = ReferenceSeaMo(config.model, modalities).to(device)
    model = SeaMo(config.model, modalities).to(device)
    model.load_state_dict(reference.state_dict())
    build.compile_model(model, how)
    theirs: Any = torch.compile(reference, dynamic=False) if "compiled" in rival else reference
    ours, other = stepper(model, model), stepper(reference, theirs)
    first = ours(batch, views), other(batch, everything)
    if decoded == 1:
        assert first[0] == pytest.approx(first[1], rel=1e-4)
    rate = precision.matmul_rate(device, torch.float32, budget=2.0)
    seconds: list[tuple[float, float]] = []

    def pair() -> None:
        seconds.append((clock(lambda: ours(batch, views)), clock(lambda: other(batch, everything))))

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    mine, other_median = (statistics.median(found) for found in zip(*seconds[1:], strict=True))
    flops = 3 * BATCH * forward_flops(config.model, modalities, SEASONS, ViewConfig())
    benchmark.extra_info.update(
        seconds=mine,
        seconds_of_rival=other_median,
        share=mine / other_median,
        mfu=flops / mine / rate,
        threads=torch.get_num_threads(),
    )
