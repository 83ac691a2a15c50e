"""assemble_tokens in CUDA: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import _cuda_rows
from seamo_fast.kernels.assemble_tokens import cuda_impl, reference
from tests.kernels import cuda_host
from tests.kernels.budget import HALF, assert_within_budget, moved
from tests.kernels.cuda_host import cuda_device  # noqa: F401 (a fixture)
from tests.kernels.directions import assemble_tokens as both_directions
from tests.kernels.directions import gradient_of_tokens as gradient

pytestmark = pytest.mark.usefixtures("poisoned", "cuda_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)

cuda = cuda_host.Guarded(cuda_impl)


def inputs_of(
    dtype: torch.dtype = torch.float32,
    *,
    lead: tuple[int, ...] = (2, 3),
    k: int = 3,
    length: int = 7,
    n: int = 9,
    d: int = 16,
) -> list[Any]:
    """visible, mask_token, table, index."""
    floats = [torch.randn(*lead, k, d), torch.randn(d), torch.randn(n, d)]
    index = torch.randint(0, n, (*lead, length), device=cuda_host.device())
    return [*moved(floats, cuda_host.device(), dtype), index]


def check(inputs: list[Any], grad: Tensor | None = None) -> None:
    grad = gradient(inputs) if grad is None else grad
    exact = both_directions(
        reference, moved(inputs, dtype=torch.float64), moved(grad, dtype=torch.float64)
    )
    actual = both_directions(cuda, inputs, grad)
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
        {"lead": (1,), "d": 264},
    ],
    ids=str,
)
def test_sizes(dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    check(inputs_of(dtype, **sizes))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_parameters_in_float32(dtype: torch.dtype) -> None:
    inputs = inputs_of()
    inputs[0] = inputs[0].to(dtype)
    check(inputs)


def test_index_in_int32() -> None:
    inputs = inputs_of()
    inputs[3] = inputs[3].int()
    check(inputs)


def test_layouts() -> None:
    inputs = inputs_of()
    longer = torch.cat([inputs[0]] * 2, dim=-2)  # a slice of longer sequences
    check([longer[..., :3, :], *inputs[1:]], gradient(inputs).mT.contiguous().mT)
    permuted = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    check(permuted, torch.ones(1, device=inputs[0].device).expand(2, 3, 7, 16))
    check([x[..., ::2] if x.is_floating_point() else x for x in inputs])
    check([*inputs[:3], torch.stack([inputs[3], inputs[3]], -1)[..., 0]])
    # rows that begin where 16 bytes do not
    check([x[..., 1:9] if x.is_floating_point() else x for x in inputs])


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone(wanted: int) -> None:
    inputs = inputs_of()
    grad, needed = gradient(inputs), [number == wanted for number in range(3)]
    actual = cuda.backward(grad, inputs[3], 3, 9, needed)
    expected = reference.backward(grad, inputs[3], 3, 9, needed)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("sizes", [{"lead": (0,)}, {"k": 0, "length": 0}, {"d": 0}], ids=str)
def test_empty_input(sizes: dict[str, Any]) -> None:
    check(inputs_of(**sizes))


def test_rows_are_summed_in_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda_rows, "_SPANS", 3)
    check(inputs_of(lead=(10,)))
    monkeypatch.setattr(_cuda_rows, "_LEAST", 16)
    check(inputs_of(torch.bfloat16, lead=(5,)))


@cuda_host.checked
def test_one_row_is_met_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda_rows, "_LEAST", 2000)
    check(inputs_of(n=1, lead=(160,), d=4))  # more than fits in shared memory at once


def test_runs_repeat_to_the_bit() -> None:
    inputs = inputs_of(torch.float16)
    grad = gradient(inputs)
    first, *others = [both_directions(cuda, inputs, grad) for _ in cuda_host.orders()]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_float64_is_left_to_the_reference() -> None:
    inputs = inputs_of(torch.float64)
    assert cuda_impl.forward(*inputs) is None
    assert cuda_impl.backward(gradient(inputs), inputs[3], 3, 9, [True] * 3) is None


@cuda_host.checked
def test_memory_accesses() -> None:
    check(inputs_of(torch.bfloat16))
    check(inputs_of(d=5))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    seed: int, dtype: torch.dtype, lead: tuple[int, ...], counts: tuple[int, int], n: int, d: int
) -> None:
    torch.manual_seed(seed)
    k, hidden = counts
    check(inputs_of(dtype, lead=lead, k=k, length=k + hidden, n=n, d=d))
