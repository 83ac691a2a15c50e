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
from seamo_fast.training import optimizer, precision
from seamo_fast.training.config import OptimConfig, PretrainConfig
from seamo_fast.training.parse import parse
from seamo_fast.views import ViewConfig, Views, sample

BATCH, SEASONS = 8, 4
ROUNDS = 5
REFERENCE, OURS = "reference", "ours"
CONTESTANTS = (REFERENCE, "reference compiled", OURS)
DECODED = {"all hidden patches": 1.0, "a quarter": 0.25}


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
        return float(total)

    return step


@pytest.mark.parametrize("decoded", DECODED)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_step(benchmark: Any, name: str, decoded: str) -> None:
    """`times_ours` is the ratio of medians, each step of the contestant after one of ours.

    `mfu` counts what the mathematics of the reference's loss needs, all patches decoded, against
    the rate of a product of two matrices measured now. The first losses have to agree.
    """
    if name != OURS and DECODED[decoded] < 1:
        pytest.skip("the reference decodes everything")
    config, device = settings(), precision.choose_device("auto")
    torch.compiler.reset()
    modalities, batch, views = inputs(config, ViewConfig(decode_fraction=DECODED[decoded]), device)
    everything = inputs(config, ViewConfig(), device)[2]
    torch.manual_seed(0)
    reference = ReferenceSeaMo(config.model, modalities).to(device)
    model = SeaMo(config.model, modalities).to(device)
    model.load_state_dict(reference.state_dict())
    theirs: Any = torch.compile(reference, dynamic=False) if "compiled" in name else reference
    ours = stepper(model, model)
    other = stepper(reference, theirs)
    first = ours(batch, views), other(batch, everything)
    if DECODED[decoded] == 1:
        assert first[0] == pytest.approx(first[1], rel=1e-4)
    rate = precision.matmul_rate(device, torch.float32, budget=2.0)
    seconds: dict[str, list[float]] = {OURS: [], REFERENCE: []}

    def pair() -> None:
        seconds[OURS].append(clock(lambda: ours(batch, views)))
        seconds[REFERENCE].append(clock(lambda: other(batch, everything)))

    benchmark.pedantic(pair, rounds=ROUNDS, warmup_rounds=1)
    median = {key: statistics.median(found[1:]) for key, found in seconds.items()}
    flops = 3 * BATCH * forward_flops(config.model, modalities, SEASONS, ViewConfig())
    benchmark.extra_info.update(
        seconds_ours=median[OURS],
        seconds_reference=median[REFERENCE],
        share=median[OURS] / median[REFERENCE],
        mfu=flops / median[OURS] / rate,
        threads=torch.get_num_threads(),
    )
