"""embed_patches in Triton: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamo_fast.kernels.embed_patches import reference
from tests.kernels.budget import HALF, assert_within_budget, moved
from tests.kernels.directions import embed_patches as both_directions
from tests.kernels.directions import with_linear
from tests.kernels.test_embed_patches import random_inputs

triton_impl = pytest.importorskip("seamo_fast.kernels.embed_patches.triton_impl")

pytestmark = pytest.mark.usefixtures("poisoned", "triton_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
NAMES = ("out", "weight", "bias", "table", "offset")


def inputs_of(device: str, dtype: torch.dtype = torch.float32, **sizes: int) -> list[Any]:
    """patches, weight, bias, table, index, offset."""
    inputs = random_inputs(dtype, **sizes)
    names = ("patches", "weight", "bias", "table", "index", "offset")
    return [moved(inputs[name].detach(), device) for name in names]


def check(inputs: list[Any]) -> None:
    patches, weight = inputs[0], inputs[1]
    grad = torch.randn(*patches.shape[:-1], weight.shape[0], device=patches.device)
    grad = grad.to(patches.dtype)
    exact = both_directions(
        reference, moved(inputs, dtype=torch.float64), moved(grad, dtype=torch.float64)
    )
    actual = both_directions(triton_impl, inputs, grad)
    assert actual["out"].dtype == patches.dtype
    assert all(actual[name].dtype == torch.float32 for name in NAMES[1:])
    assert_within_budget(
        actual, exact, both_directions(reference, inputs, grad), with_linear(inputs)
    )


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"k": 1},
        {"p": 1, "d": 1},
        {"k": 33, "p": 70, "d": 66, "n": 70},  # every block is cut
        {"k": 64, "p": 64, "d": 64},
        {"n": 1},
    ],
    ids=str,
)
def test_sizes(triton_device: str, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(inputs_of(triton_device, dtype, **sizes))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_parameters_in_float32(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, p=40)
    inputs[0] = inputs[0].to(dtype)
    check(inputs)


def test_index_in_int32(triton_device: str) -> None:
    inputs = inputs_of(triton_device)
    inputs[4] = inputs[4].int()
    check(inputs)


@DTYPES
def test_layouts(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    wide = [torch.full((*x.shape[:-1], 3 * x.shape[-1]), 7, dtype=x.dtype) for x in inputs]
    sliced = [
        moved(x, triton_device)[..., 1::3].copy_(y) for x, y in zip(wide, inputs, strict=True)
    ]
    check(sliced)
    permuted = [x.mT.contiguous().mT if x.dim() > 1 else x for x in inputs]
    permuted[0] = inputs[0].transpose(0, 2).contiguous().transpose(0, 2)
    check(permuted)


def test_without_leading_dimensions(triton_device: str) -> None:
    patches, weight, bias, table, index, offset = inputs_of(triton_device)
    check([patches[0, 0], weight, bias, table, index[0, 0], offset[0, 0]])


def test_without_bias_and_offset(triton_device: str) -> None:
    patches, weight, _, table, index, _ = inputs_of(triton_device)
    actual = triton_impl.forward(patches, weight, None, table, index, None)
    expected = reference.forward(patches, weight, None, table, index, None)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(triton_device: str, wanted: int) -> None:
    patches, _, _, table, index, _ = inputs_of(triton_device)
    grad = torch.randn(*index.shape, table.shape[1], device=triton_device)
    needed = [number == wanted for number in range(4)]
    actual = triton_impl.backward(grad, patches, index, 9, needed)
    expected = reference.backward(grad, patches, index, 9, needed)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("rows", [1100, 2500])
def test_many_rows_are_summed_in_spans(
    triton_device: str, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    # few results: more spans than programs would be worth
    patches = torch.randn(1, rows, 3, device=triton_device)
    grad = torch.randn(1, rows, 2, device=triton_device)
    index = torch.randint(0, 5, (1, rows), device=triton_device)
    exact = reference.backward(*moved([grad, patches], dtype=torch.float64), index, 5, [True] * 4)
    for dtype in (torch.float32, torch.float16):
        inputs = moved([grad, patches], dtype=dtype)
        actual = triton_impl.backward(*inputs, index, 5, [True] * 4)
        other = reference.backward(*inputs, index, 5, [True] * 4)
        if dtype == torch.float16:
            doubles = moved(inputs, dtype=torch.float64)
            exact = reference.backward(*doubles, index, 5, [True] * 4)
        assert_within_budget(
            *(dict(zip(NAMES[1:], x, strict=True)) for x in (actual, exact, other))
        )


@DTYPES
@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}, {"p": 0}, {"d": 0}], ids=str)
def test_empty_input(triton_device: str, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(inputs_of(triton_device, dtype, **sizes))


@pytest.mark.parametrize("rows", [40, 600])
def test_every_configuration(
    triton_device: str,
    configuration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    monkeypatch.setattr(triton_impl, "_FEW", 500)
    inputs = inputs_of(triton_device, torch.bfloat16, t=1, k=rows // 2, p=70, d=70)
    for number in range(2):
        configuration(triton_impl._tuned, number)
        check(inputs)


@DTYPES
def test_runs_repeat_to_the_bit(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype)
    grad = torch.randn_like(triton_impl.forward(*inputs))
    first, second = (both_directions(triton_impl, inputs, grad) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_float64_is_left_to_the_reference(triton_device: str) -> None:
    inputs = inputs_of(triton_device, torch.float64)
    assert triton_impl.forward(*inputs) is None
    assert triton_impl.backward(inputs[0], inputs[0], inputs[4], 9, [True] * 4) is None


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    sizes=st.fixed_dictionaries(
        {
            name: st.integers(1, most)
            for name, most in zip("tkpnd", (3, 40, 80, 80, 80), strict=True)
        }
    ),
)
def test_any_shape(
    triton_device: str, seed: int, dtype: torch.dtype, sizes: dict[str, int]
) -> None:
    torch.manual_seed(seed)
    check(inputs_of(triton_device, dtype, **sizes))
