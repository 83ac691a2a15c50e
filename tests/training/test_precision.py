from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seamo_fast.errors import ConfigError
from seamo_fast.training import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("facts", "dtype"),
    [
        ({"flags": "avx2 avx512f amx_bf16 amx_tile"}, torch.bfloat16),
        ({"flags": "avx2 avx512f avx512_bf16"}, torch.float32),
        ({"Features": "asimd bf16 i8mm"}, torch.bfloat16),
        ({"Features": "asimd"}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_cpus_with_matrix_units_for_it(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "cpu_facts", lambda: facts)
    assert precision.choose_dtype("auto", CPU) is dtype
    assert precision.choose_dtype("fp32", CPU) is torch.float32
    assert precision.choose_dtype("bf16", CPU) is torch.bfloat16


def test_autocast_is_off_in_float32_and_on_in_bfloat16() -> None:
    left = torch.ones(2, 2)
    with precision.autocast(CPU, torch.float32):
        assert (left @ left).dtype is torch.float32
    with precision.autocast(CPU, torch.bfloat16):
        assert (left @ left).dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_rate_is_that_of_the_fastest_product(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    found, seconds = [], iter((9.0, 0.5, 0.25, 0.375, 0.125))

    def timed(product: Callable[[], torch.Tensor], device: torch.device) -> float:
        found.append(product())
        return next(seconds)

    monkeypatch.setattr(precision, "_timed", timed)
    # the first is not counted, and the last would be too late
    assert precision.matmul_rate(CPU, dtype, budget=1.0) == 2 * 1024**3 / 0.25
    assert [(each.dtype, each.shape) for each in found] == [(dtype, (1024, 1024))] * 4


def test_the_rate_of_products_is_plausible() -> None:
    assert 1e8 < precision.matmul_rate(CPU, torch.float32, budget=0.05) < 1e14


@pytest.mark.parametrize("name", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"run.device '{name}' cannot be used here"):
        precision.choose_device(name)
