"""assemble_tokens in Triton: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.assemble_tokens import reference
from tests.kernels.budget import HALF, assert_within_budget, moved
from tests.kernels.directions import assemble_tokens as both_directions
from tests.kernels.directions import gradient_of_tokens as gradient

triton_impl = pytest.importorskip("seamo_fast.kernels.assemble_tokens.triton_impl")

pytestmark = pytest.mark.usefixtures("poisoned", "triton_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
NAMES = ("out", "visible", "mask_token", "table")


def inputs_of(
    device: str,
    dtype: torch.dtype = torch.float32,
    *,
    lead: tuple[int, ...] = (2, 3),
    k: int = 3,
    length: int = 7,
    n: int = 9,
    d: int = 12,
) -> list[Any]:
    """visible, mask_token, table, index."""
    floats = [torch.randn(*lead, k, d), torch.randn(d), torch.randn(n, d)]
    return [*moved(floats, device, dtype), torch.randint(0, n, (*lead, length), device=device)]


def check(inputs: list[Any], grad: Tensor | None = None) -> None:
    grad = gradient(inputs) if grad is None else grad
    exact = both_directions(
        reference, moved(inputs, dtype=torch.float64), moved(grad, dtype=torch.float64)
    )
    actual = both_directions(triton_impl, inputs, grad)
    assert actual["out"].dtype == actual["visible"].dtype == inputs[0].dtype
    assert actual["mask_token"].dtype == actual["table"].dtype == torch.float32
    assert_within_budget(actual, exact, both_directions(reference, inputs, grad))


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"k": 0},
        {"k": 7},
        {"k": 1, "length": 1, "n": 1, "d": 1},
        {"lead": (), "d": 513},
        {"lead": (5, 1, 2), "d": 64, "n": 70},
        {"lead": (1,), "d": 1030},
    ],
    ids=str,
)
def test_sizes(triton_device: str, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    check(inputs_of(triton_device, dtype, **sizes))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_parameters_in_float32(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device)
    inputs[0] = inputs[0].to(dtype)
    check(inputs)


def test_index_in_int32(triton_device: str) -> None:
    inputs = inputs_of(triton_device)
    inputs[3] = inputs[3].int()
    check(inputs)


@DTYPES
def test_layouts(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    longer = torch.cat([inputs[0]] * 2, dim=-2)  # a slice of longer sequences
    check([longer[..., :3, :], *inputs[1:]], gradient(inputs).mT.contiguous().mT)
    permuted = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    check(permuted, torch.ones(1, device=triton_device, dtype=dtype).expand(2, 3, 7, 12))
    check([x[..., ::2] if x.is_floating_point() else x for x in inputs])
    check([*inputs[:3], torch.stack([inputs[3], inputs[3]], -1)[..., 0]])


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone(triton_device: str, wanted: int) -> None:
    inputs = inputs_of(triton_device)
    grad, needed = gradient(inputs), [number == wanted for number in range(3)]
    actual = triton_impl.backward(grad, inputs[3], 3, 9, needed)
    expected = reference.backward(grad, inputs[3], 3, 9, needed)
    torch.testing.assert_close(actual, expected)


@DTYPES
@pytest.mark.parametrize("sizes", [{"lead": (0,)}, {"k": 0, "length": 0}, {"d": 0}], ids=str)
def test_empty_input(triton_device: str, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    check(inputs_of(triton_device, dtype, **sizes))


def test_every_configuration(triton_device: str, configuration: Callable[..., None]) -> None:
    inputs = inputs_of(triton_device, torch.bfloat16)
    expected = triton_impl.forward(*inputs)
    for number in range(len(triton_impl._CONFIGS)):
        configuration(triton_impl._tuned, number)
        assert torch.equal(triton_impl.forward(*inputs), expected)


def test_programs_take_several_blocks(triton_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_impl, "_SPANS", 3)
    check(inputs_of(triton_device, lead=(10,)))


@DTYPES
def test_runs_repeat_to_the_bit(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    grad = gradient(inputs)
    first, second = (both_directions(triton_impl, inputs, grad) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_float64_is_left_to_the_reference(triton_device: str) -> None:
    inputs = inputs_of(triton_device, torch.float64)
    assert triton_impl.forward(*inputs) is None
    assert triton_impl.backward(gradient(inputs), inputs[3], 3, 9, [True] * 3) is None


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    lead=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    counts=st.tuples(st.integers(0, 9), st.integers(1, 9)),
    n=st.integers(1, 70),
    d=st.integers(1, 70),
)
def test_any_shape(
    triton_device: str,
    seed: int,
    dtype: torch.dtype,
    lead: tuple[int, ...],
    counts: tuple[int, int],
    n: int,
    d: int,
) -> None:
    torch.manual_seed(seed)
    k, hidden = counts
    check(inputs_of(triton_device, dtype, lead=lead, k=k, length=k + hidden, n=n, d=d))
