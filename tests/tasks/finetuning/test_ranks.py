"""Several ranks finetune as one process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.run import finetune
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.tasks.finetuning.conftest import Settings
from tests.training.distributed.worker import run_ranks

KEYS = ("loss", "grad_norm", "val_loss")


def lines(config: FinetuneConfig) -> list[dict[str, Any]]:
    assert config.output is not None
    return read_metrics(Path(config.output) / "metrics.jsonl")


def check_same(config: FinetuneConfig, expected: FinetuneConfig) -> None:
    found, wanted = lines(config), lines(expected)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for key in KEYS:
        values, expected_values = (
            [line[key] for line in each if key in line] for each in (found, wanted)
        )
        assert values == pytest.approx(expected_values, rel=1e-5), key


WAYS: dict[str, dict[str, Any]] = {
    "classes": {"drop_path": 0.3, "mixup": 0.4, "class_weights": "balanced"},
    "last batch smaller than the ranks": {"batch_size": 17, "accumulate": 2},
    "masks": {"loss": "cross_entropy+dice", "epochs": 1, "batch_size": 3, "accumulate": 2},
    "adapters": {"method": "lora"},
}


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_give_the_losses_of_one(
    settings: Settings, tmp_path: Path, masks: Path, way: str
) -> None:
    data = {"data": str(masks), "classes": ["a", "b"]} if way == "masks" else {}
    one, two = (settings(output=str(tmp_path / name), **data, **WAYS[way]) for name in "12")
    results = finetune(one)
    assert run_ranks(two, 2) == [None, None]
    check_same(two, one)
    found = finetune(two)
    assert isinstance(results, dict)
    assert isinstance(found, dict)
    assert found["confusion"] == results["confusion"]
    assert found["items"] == results["items"]


def test_a_probe_of_two_ranks_is_that_of_one(settings: Settings, tmp_path: Path) -> None:
    one, two = (settings(output=str(tmp_path / name), method="linear") for name in "12")
    results = finetune(one)
    assert run_ranks(two, 2) == [None, None]
    found = finetune(two)
    assert isinstance(results, dict)
    assert isinstance(found, dict)
    assert found["chosen_by_validation"] == results["chosen_by_validation"]
    assert found["confusion"] == results["confusion"]


def test_ranks_with_other_settings_are_refused(settings: Settings) -> None:
    first, second = run_ranks([settings(), settings(seed=1)], 2)
    assert first == "SeaMoError: rank 1 has failed; its message says why"
    assert second is not None
    assert second.startswith("ConfigError: rank 1 differs from rank 0 (seed: 0 there, 1 here)")
