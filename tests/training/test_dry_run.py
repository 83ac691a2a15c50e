"""What a run would take, as far as it can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from seamo_fast import kernels
from seamo_fast.training import batches
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.dry_run import activation_bytes

CPU = torch.device("cpu")
Settings = Callable[..., PretrainConfig]


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_fusion_is_counted_where_it_runs(settings: Settings, recompute: str) -> None:
    config = settings(run__recompute=recompute, model__fusion_depth=2)
    stage = batches.make_plan(config, batches.open_shards(config.data.path)).stages[-1]
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


@pytest.mark.parametrize(
    ("dtype", "compiled", "backend", "kept"),
    [
        (torch.float32, "off", "cpu", 6 + 4),
        (torch.float32, "off", "reference", 8 + 2 * 4),
        (torch.float32, "regional", "cpu", 8 + 2 * 4),
        (torch.bfloat16, "off", "cpu", 8 + 2 * 4),
    ],
)
def test_the_branches_keep_less_where_they_run(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    compiled: str,
    backend: str,
    kept: int,
) -> None:
    chosen = [SimpleNamespace(op="residual_mlp", backend=backend, chosen=True)]
    chosen.append(SimpleNamespace(op="residual_mlp", backend="cpu", chosen=False))
    monkeypatch.setattr(kernels, "explain", lambda device: chosen)
    one = settings(run__recompute="blocks", run__compile=compiled)
    all_ = settings(run__recompute="none", run__compile=compiled)
    stage = batches.make_plan(one, batches.open_shards(one.data.path)).stages[-1]
    assert one.model.mlp_ratio == 4
    inputs = activation_bytes(one, stage, CPU, dtype)
    assert activation_bytes(all_, stage, CPU, dtype) == kept * inputs


def test_a_model_without_fusion_keeps_nothing_for_it(settings: Settings) -> None:
    config = settings(model__fusion="none")
    stage = batches.make_plan(config, batches.open_shards(config.data.path)).stages[-1]
    without = activation_bytes(config, replace(stage, fusion=False), CPU, torch.bfloat16)
    assert activation_bytes(config, stage, CPU, torch.bfloat16) == without
