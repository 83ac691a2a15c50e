"""What a run would take, as far as it can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from seamo_fast.training import build
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.dry_run import activation_bytes

CPU = torch.device("cpu")
Settings = Callable[..., PretrainConfig]


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_fusion_is_counted_where_it_runs(settings: Settings, recompute: str) -> None:
    config = settings(run__recompute=recompute, model__fusion_depth=2)
    stage = build.make_plan(config, build.open_shards(config.data.path)).stages[-1]
    assert stage.fusion

    def count(fusion_depth: int, fusion: bool, dtype: torch.dtype = torch.bfloat16) -> int:
        model = replace(config.model, fusion_depth=fusion_depth)
        return activation_bytes(
            replace(config, model=model), replace(stage, fusion=fusion), CPU, dtype
        )

    assert count(2, True) > count(1, True) > count(1, False)
    assert count(2, False) == count(1, False)
    if recompute == "blocks":  # each block keeps what it was given: 4 of 16 patches, or all
        groups, width, decoder = stage.seasons * len(stage.modalities), 32, 16
        depth = config.model.depth
        numbers = groups * ((depth + 2) * width * 4 + decoder * 16)
        assert count(2, True) == 2 * numbers
        assert count(2, True, torch.float32) == 4 * numbers
