"""norm_pix_loss in Triton: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.norm_pix_loss import reference
from tests.kernels.budget import HALF, assert_within_budget, moved
from tests.kernels.directions import norm_pix_loss as both_directions

triton_impl = pytest.importorskip("seamo_fast.kernels.norm_pix_loss.triton_impl")

pytestmark = pytest.mark.usefixtures("poisoned", "triton_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def inputs_of(
    device: str, dtype: torch.dtype = torch.float32, *, lead: tuple[int, ...] = (3, 5), p: int = 48
) -> list[Any]:
    """pred, target, weight, normalize, eps."""
    pred, target = torch.randn(*lead, p), torch.randn(*lead, p) * 3 + 1
    weight = torch.rand(lead) * (torch.rand(lead) < 0.7)
    return [*moved([pred, target], device, dtype), weight.to(device), True, 1e-6]


def check(inputs: list[Any]) -> dict[str, Tensor]:
    exact = both_directions(reference, moved(inputs, dtype=torch.float64))
    actual = both_directions(triton_impl, inputs)
    assert actual["loss"].dtype == actual["total"].dtype == torch.float32
    assert actual["pred"].dtype == inputs[0].dtype
    assert_within_budget(actual, exact, both_directions(reference, inputs))
    return actual


@DTYPES
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("p", [2, 48, 64, 1025, 5000])
def test_patch_sizes(triton_device: str, dtype: torch.dtype, normalize: bool, p: int) -> None:
    inputs = inputs_of(triton_device, dtype, p=p)
    inputs[3] = normalize
    check(inputs)


@pytest.mark.parametrize("lead", [(), (1,), (2, 3, 4, 50)], ids=str)
def test_leading_dimensions(triton_device: str, lead: tuple[int, ...]) -> None:
    inputs = inputs_of(triton_device, lead=lead)
    inputs[2] = torch.rand(lead, device=triton_device)
    check(inputs)


@pytest.mark.parametrize("kind", [torch.bool, torch.float16, torch.float64], ids=str)
def test_weights_of_any_dtype(triton_device: str, kind: torch.dtype) -> None:
    inputs = inputs_of(triton_device)
    inputs[2] = (inputs[2] > 0).to(kind)
    actual = check(inputs)
    assert not actual["pred"][inputs[2] == 0].any()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_target_in_float32(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device)
    inputs[0] = inputs[0].to(dtype)
    check(inputs)


@DTYPES
def test_layouts(triton_device: str, dtype: torch.dtype) -> None:
    pred, target, weight, *rest = inputs_of(triton_device, dtype)
    check([pred.transpose(0, 2).contiguous().transpose(0, 2), target, weight, *rest])
    check([pred, target.expand(2, *target.shape)[1], weight.mT.contiguous().mT, *rest])
    check([pred[:, ::2, 1::2], target[:, ::2, ::2], weight[:, ::2], *rest])


@DTYPES
def test_no_weight_gives_zero(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    inputs[2] = torch.zeros_like(inputs[2])
    actual = check(inputs)
    assert not any(x.any() for x in actual.values())


def test_patches_without_weight_are_not_used(triton_device: str) -> None:
    inputs = inputs_of(triton_device)
    expected = both_directions(triton_impl, inputs)
    for x in inputs[:2]:
        x[inputs[2] == 0] = torch.nan
    actual = both_directions(triton_impl, inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@DTYPES
@pytest.mark.parametrize("lead", [(0,), (2, 0)], ids=str)
def test_empty_input(triton_device: str, dtype: torch.dtype, lead: tuple[int, ...]) -> None:
    check(inputs_of(triton_device, dtype, lead=lead))


def test_constant_patches(triton_device: str) -> None:
    inputs = inputs_of(triton_device)
    inputs[1] = torch.full_like(inputs[1], 0.1)
    check(inputs)


def test_programs_take_several_blocks(triton_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_impl, "_PROGRAMS", 3)
    check(inputs_of(triton_device, lead=(31,), p=1024))


@DTYPES
def test_runs_repeat_to_the_bit(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    first, second = (both_directions(triton_impl, inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("number", [0, 1], ids=["pred", "target"])
def test_float64_is_left_to_the_reference(triton_device: str, number: int) -> None:
    inputs = inputs_of(triton_device)
    inputs[number] = inputs[number].double()
    assert triton_impl.forward(*inputs) is None
    assert triton_impl.backward(inputs[2], *inputs[:3], inputs[2], *inputs[3:]) is None


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    lead=st.lists(st.integers(1, 7), max_size=3).map(tuple),
    p=st.integers(2, 300),
)
def test_any_shape(
    triton_device: str, seed: int, dtype: torch.dtype, lead: tuple[int, ...], p: int
) -> None:
    torch.manual_seed(seed)
    check(inputs_of(triton_device, dtype, lead=lead, p=p))
