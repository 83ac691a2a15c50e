"""The share of a training step that the model spends waiting for data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seamo_fast import pretrain


@pytest.mark.full
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("loader", ["torch", "dali"])
def test_demo_pretraining(benchmark: Any, tmp_path: Path, loader: str, workers: int) -> None:
    """Steps of the demo run, after those that load and check everything for the first time."""
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    arguments = [
        "--config=demo",
        f"--run.folder={tmp_path / 'run'}",
        f"--data.loader={loader}",
        f"--data.workers={workers}",
        "--run.steps_per_stage=16",
        "--run.log_every=8",
        "--run.tensorboard=false",
    ]
    assert benchmark.pedantic(pretrain.main, (arguments,), rounds=1) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    benchmark.extra_info.update(
        data_wait=[each["data_wait"] for each in metrics],
        stage=[each["stage"] for each in metrics],
        samples_per_second=[each["samples_per_second"] for each in metrics],
    )
