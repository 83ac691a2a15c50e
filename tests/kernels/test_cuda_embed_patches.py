"""embed_patches in CUDA: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import _cuda, _cuda_rows
from seamo_fast.kernels.embed_patches import cuda_impl, reference
from tests.kernels import cuda_host
from tests.kernels.budget import HALF, assert_within_budget, distance, moved
from tests.kernels.cuda_host import cuda_device  # noqa: F401 (a fixture)
from tests.kernels.directions import embed_patches as both_directions
from tests.kernels.directions import with_linear
from tests.kernels.test_embed_patches import random_inputs

pytestmark = pytest.mark.usefixtures("poisoned", "cuda_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
NAMES = ("out", "weight", "bias", "table", "offset")

cuda = cuda_host.Guarded(cuda_impl)


def inputs_of(dtype: torch.dtype = torch.float32, **sizes: int) -> list[Any]:
    """patches, weight, bias, table, index, offset."""
    inputs = random_inputs(dtype, **sizes)
    names = ("patches", "weight", "bias", "table", "index", "offset")
    return [moved(inputs[name].detach(), cuda_host.device()) for name in names]


def gradient(inputs: list[Any]) -> Tensor:
    patches, weight = inputs[0], inputs[1]
    grad = torch.randn(*patches.shape[:-1], weight.shape[0], device=patches.device)
    return grad.to(patches.dtype)


def check(inputs: list[Any], grad: Tensor | None = None) -> None:
    grad = gradient(inputs) if grad is None else grad
    exact = both_directions(
        reference, moved(inputs, dtype=torch.float64), moved(grad, dtype=torch.float64)
    )
    actual = both_directions(cuda, inputs, grad)
    assert actual["out"].dtype == inputs[0].dtype
    assert all(actual[name].dtype == torch.float32 for name in NAMES[1:])
    assert_within_budget(
        actual, exact, both_directions(reference, inputs, grad), with_linear(inputs)
    )


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"t": 1, "k": 1},
        {"p": 1, "d": 1},
        {"k": 33, "p": 70, "d": 66, "n": 70},
        {"k": 64, "p": 72, "d": 136},  # more than a block in both directions
        {"n": 1},
    ],
    ids=str,
)
def test_sizes(dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(inputs_of(dtype, **sizes))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_parameters_in_float32(dtype: torch.dtype) -> None:
    inputs = inputs_of(p=40)
    inputs[0] = inputs[0].to(dtype)
    check(inputs)


def test_index_in_int32() -> None:
    inputs = inputs_of()
    inputs[4] = inputs[4].int()
    check(inputs)


def test_layouts() -> None:
    inputs = inputs_of(p=16, d=16)
    wide = [torch.full((*x.shape[:-1], 3 * x.shape[-1]), 7, dtype=x.dtype) for x in inputs]
    sliced = [
        moved(x, cuda_host.device())[..., 1::3].copy_(y) for x, y in zip(wide, inputs, strict=True)
    ]
    check(sliced)
    permuted = [x.mT.contiguous().mT if x.dim() > 1 else x for x in inputs]
    permuted[0] = inputs[0].transpose(0, 2).contiguous().transpose(0, 2)
    check(permuted, gradient(inputs).transpose(0, 2).contiguous().transpose(0, 2))
    # rows that begin where 16 bytes do not
    check([inputs[0][..., 1:9], inputs[1][..., 1:9], *inputs[2:]])


def test_without_leading_dimensions() -> None:
    patches, weight, bias, table, index, offset = inputs_of()
    check([patches[0, 0], weight, bias, table, index[0, 0], offset[0, 0]])


def test_without_bias_and_offset() -> None:
    patches, weight, _, table, index, _ = inputs_of()
    actual = cuda.forward(patches, weight, None, table, index, None)
    expected = reference.forward(patches, weight, None, table, index, None)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted: int) -> None:
    inputs = inputs_of()
    grad, needed = gradient(inputs), [number == wanted for number in range(4)]
    actual = cuda.backward(grad, inputs[0], inputs[4], 9, needed)
    expected = reference.backward(grad, inputs[0], inputs[4], 9, needed)
    torch.testing.assert_close(actual, expected)


@DTYPES
def test_rows_are_summed_in_spans(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(_cuda_rows, "_LEAST", 24)
    monkeypatch.setattr(_cuda_rows, "_SPANS", 5)
    check(inputs_of(dtype, t=1, k=45, p=3, d=2, n=5))
    check(inputs_of(dtype, t=1, k=45, p=8, d=16, n=5))


def test_tf32_where_pytorch_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(p=40)
    exact = reference.forward(*moved(inputs, dtype=torch.float64))
    full = distance(cuda.forward(*inputs), exact)
    monkeypatch.setattr(_cuda, "tf32", lambda: True)
    rounded = distance(cuda.forward(*inputs), exact)
    assert 100 * full < rounded < 1e-2 * float(exact.norm())


@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}, {"p": 0}, {"d": 0}], ids=str)
def test_empty_input(sizes: dict[str, int]) -> None:
    check(inputs_of(**sizes))


def test_runs_repeat_to_the_bit() -> None:
    inputs = inputs_of(torch.float16)
    grad = gradient(inputs)
    first, *others = [both_directions(cuda, inputs, grad) for _ in cuda_host.orders()]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_float64_is_left_to_the_reference() -> None:
    inputs = inputs_of(torch.float64)
    assert cuda_impl.forward(*inputs) is None
    assert cuda_impl.backward(gradient(inputs), inputs[0], inputs[4], 9, [True] * 4) is None


@cuda_host.checked
def test_memory_accesses() -> None:
    check(inputs_of(torch.bfloat16, t=1, p=40, d=16))
    check(inputs_of(t=1, p=19, d=5))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
def test_any_shape(seed: int, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    check(inputs_of(dtype, **sizes))
