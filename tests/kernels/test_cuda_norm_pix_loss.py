"""norm_pix_loss in CUDA: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.norm_pix_loss import cuda_impl, reference
from tests.kernels import cuda_host
from tests.kernels.budget import HALF, assert_within_budget, moved
from tests.kernels.cuda_host import cuda_device  # noqa: F401 (a fixture)
from tests.kernels.directions import norm_pix_loss as both_directions

pytestmark = pytest.mark.usefixtures("poisoned", "cuda_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)

cuda = cuda_host.Guarded(cuda_impl)


def inputs_of(
    dtype: torch.dtype = torch.float32, *, lead: tuple[int, ...] = (3, 5), p: int = 48
) -> list[Any]:
    """pred, target, weight, normalize, eps."""
    pred, target = torch.randn(*lead, p), torch.randn(*lead, p) * 3 + 1
    weight = torch.rand(lead) * (torch.rand(lead) < 0.7)
    device = cuda_host.device()
    return [*moved([pred, target], device, dtype), weight.to(device), True, 1e-6]


def check(inputs: list[Any]) -> dict[str, Tensor]:
    exact = both_directions(reference, moved(inputs, dtype=torch.float64))
    actual = both_directions(cuda, inputs)
    assert actual["loss"].dtype == actual["total"].dtype == torch.float32
    assert actual["pred"].dtype == inputs[0].dtype
    assert_within_budget(actual, exact, both_directions(reference, inputs))
    return actual


@DTYPES
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("p", [2, 13, 48, 264, 1025])
def test_patch_sizes(dtype: torch.dtype, normalize: bool, p: int) -> None:
    inputs = inputs_of(dtype, p=p)
    inputs[3] = normalize
    check(inputs)


def test_one_value_that_is_not_normalized() -> None:
    inputs = inputs_of(p=1)
    inputs[3] = False
    check(inputs)


@pytest.mark.parametrize("lead", [(), (1,), (2, 3, 4, 5)], ids=str)
def test_leading_dimensions(lead: tuple[int, ...]) -> None:
    inputs = inputs_of(lead=lead)
    inputs[2] = torch.rand(lead, device=inputs[0].device)
    check(inputs)


@pytest.mark.parametrize("kind", [torch.bool, torch.float16, torch.float64], ids=str)
def test_weights_of_any_dtype(kind: torch.dtype) -> None:
    inputs = inputs_of()
    inputs[2] = (inputs[2] > 0).to(kind)
    actual = check(inputs)
    assert not actual["pred"][inputs[2] == 0].any()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_two_dtypes(dtype: torch.dtype) -> None:
    inputs = inputs_of()
    check([inputs[0].to(dtype), *inputs[1:]])
    check([inputs[0], inputs[1].to(dtype), *inputs[2:]])


def test_layouts() -> None:
    pred, target, weight, *rest = inputs_of()
    check([pred.transpose(0, 2).contiguous().transpose(0, 2), target, weight, *rest])
    check([pred, target.expand(2, *target.shape)[1], weight.mT.contiguous().mT, *rest])
    check([pred[:, ::2, 1::2], target[:, ::2, ::2], weight[:, ::2], *rest])
    # rows that begin where 16 bytes do not
    check([pred[..., 1:41], target[..., 8:], weight, *rest])


def test_no_weight_gives_zero() -> None:
    inputs = inputs_of()
    inputs[2] = torch.zeros_like(inputs[2])
    actual = check(inputs)
    assert not any(x.any() for x in actual.values())


def test_patches_without_weight_are_not_used() -> None:
    inputs = inputs_of()
    expected = both_directions(cuda, inputs)
    for x in inputs[:2]:
        x[inputs[2] == 0] = torch.nan
    actual = both_directions(cuda, inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("lead", [(0,), (2, 0)], ids=str)
def test_empty_input(lead: tuple[int, ...]) -> None:
    check(inputs_of(lead=lead))


def test_constant_patches() -> None:
    inputs = inputs_of()
    inputs[1] = torch.full_like(inputs[1], 0.1)
    check(inputs)


def test_blocks_take_several_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_impl, "_BLOCKS", 2)
    check(inputs_of(lead=(37,), p=24))


def test_runs_repeat_to_the_bit() -> None:
    inputs = inputs_of(torch.float16)
    first, *others = [both_directions(cuda, inputs) for _ in cuda_host.orders()]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("number", [0, 1], ids=["pred", "target"])
def test_float64_is_left_to_the_reference(number: int) -> None:
    inputs = inputs_of()
    inputs[number] = inputs[number].double()
    assert cuda_impl.forward(*inputs) is None
    assert cuda_impl.backward(inputs[2], *inputs[:3], inputs[2], *inputs[3:]) is None


@cuda_host.checked
def test_memory_accesses() -> None:
    for dtype, p in ((torch.bfloat16, 40), (torch.float32, 13)):
        check(inputs_of(dtype, lead=(9,), p=p))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    lead=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    p=st.integers(2, 300),
)
def test_any_shape(seed: int, dtype: torch.dtype, lead: tuple[int, ...], p: int) -> None:
    torch.manual_seed(seed)
    check(inputs_of(dtype, lead=lead, p=p))
