"""tm_attention in CUDA: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import _cuda
from seamo_fast.kernels.tm_attention import cuda_impl, reference
from tests.kernels import cuda_host
from tests.kernels.budget import assert_within_budget, moved
from tests.kernels.cuda_host import cuda_device  # noqa: F401 (a fixture)
from tests.kernels.directions import (
    heads_outside,
    part_of_a_projection,
    plain,
    reversed_in_memory,
    terms_of_gradients,
    with_sdpa,
)
from tests.kernels.directions import tm_attention as both_directions
from tests.kernels.test_tm_attention import random_inputs, tm_adjacency

pytestmark = pytest.mark.usefixtures("poisoned", "cuda_device")

NAMES = ("out", "lse", "q", "k", "v")
ALL = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = pytest.mark.parametrize("dtype", ALL, ids=str)

cuda = cuda_host.Guarded(cuda_impl)


def at_an_odd_address(x: Tensor) -> Tensor:
    return torch.full((x.numel() + 1,), torch.nan).to(x)[1:].view(x.shape).copy_(x)


Layout = Callable[[Tensor], Tensor]


def inputs_of(
    dtype: torch.dtype = torch.float32, layout: Layout = plain, **sizes: int
) -> list[Tensor]:
    """grad, q, k, v, adjacency, valid; two groups that see each other unless sizes say more."""
    inputs = random_inputs(dtype, **({"b": 1, "t": 2, "m": 1, "h": 1} | sizes))
    groups = inputs["adjacency"].shape[0]
    if groups <= 2:
        inputs["adjacency"] = torch.eye(groups, dtype=torch.bool) ^ (groups == 2)
        inputs["valid"].fill_(True)
    q, k, v = (layout(moved(inputs[name].detach(), cuda_host.device())) for name in "qkv")
    masks = moved([inputs["adjacency"], inputs["valid"]], cuda_host.device())
    return [layout(torch.randn_like(q)), q, k, v, *masks]


def check(inputs: list[Tensor], implementation: Any = cuda) -> dict[str, Tensor]:
    exact = both_directions(reference, moved(inputs, dtype=torch.float64))
    actual = both_directions(implementation, inputs)
    assert actual["lse"].dtype == torch.float32
    assert all(actual[name].dtype == inputs[0].dtype for name in ("out", "q", "k", "v"))
    none = exact["lse"].isinf()
    assert torch.equal(actual["lse"].isinf(), none)
    numbers = [
        {**tensors, "lse": tensors["lse"].masked_fill(none, 0)}
        for tensors in (actual, exact, both_directions(reference, inputs))
    ]
    assert_within_budget(*numbers, with_sdpa(inputs), terms=terms_of_gradients(inputs))
    return actual


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(actual[name], expected[name]) for name in NAMES)


@DTYPES
@pytest.mark.parametrize("width", [1, 7, 32, 33, 48, 64, 80, 96, 120, 128])
def test_head_widths(dtype: torch.dtype, width: int) -> None:
    check(inputs_of(dtype, k=18, keys=35, d=width))


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {"k": 1, "keys": 1},
        {"k": 1, "keys": 65},
        {"k": 70, "keys": 1},
        {"k": 64, "keys": 64},
        {"k": 70, "keys": 33, "d": 128},
        {"t": 1, "m": 2},
        {"t": 1, "m": 1},
        {"h": 3, "d": 7},
        {"b": 3, "t": 3, "h": 2, "k": 17, "keys": 16, "d": 16},
    ],
    ids=str,
)
def test_sizes(dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(inputs_of(dtype, **sizes))


@DTYPES
@pytest.mark.parametrize("width", [12, 16])
@pytest.mark.parametrize(
    "layout", [heads_outside, reversed_in_memory, part_of_a_projection, at_an_odd_address]
)
def test_layouts(dtype: torch.dtype, layout: Layout, width: int) -> None:
    check(inputs_of(dtype, layout, b=2, t=1, m=2, h=2, d=width))


def test_heads_that_share_memory() -> None:
    inputs = inputs_of(torch.float16, h=3, d=16)
    inputs[:4] = [x[:, :, :, :, :1].expand_as(x) for x in inputs[:4]]
    check(inputs, cuda_impl)  # a guard has no place for one number twice


def test_offsets_of_more_than_32_bits() -> None:
    inputs = inputs_of(torch.float16, b=2, k=3, keys=3, d=8)
    if inputs[0].is_cuda:
        pytest.skip("takes 4 GB, on the CPU only of addresses")
    expected = both_directions(cuda_impl, inputs)
    far = torch.from_numpy(np.zeros(2**31 + inputs[1][0].numel(), np.float16))
    for i in range(4):
        stride = inputs[i].stride()
        inputs[i] = far.as_strided(inputs[i].shape, (2**31, *stride[1:])).copy_(inputs[i])
        assert_equal(both_directions(cuda_impl, inputs), expected)
        inputs[i] = inputs[i].contiguous()


def test_adjacency_of_the_paper() -> None:
    inputs = inputs_of(t=3, m=2)
    inputs[4] = moved(tm_adjacency(3, 2), cuda_host.device())
    check(inputs)


def test_adjacency_of_any_layout() -> None:
    inputs = inputs_of(t=3, m=1)
    inputs[4] = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool().to(inputs[4].device).mT
    inputs[5] = torch.ones_like(inputs[5])
    check(inputs)


@pytest.mark.parametrize("nothing", [4, 5], ids=["adjacency", "valid"])
def test_no_keys_at_all_gives_zeros(nothing: int) -> None:
    inputs = inputs_of()
    inputs[nothing] = torch.zeros_like(inputs[nothing])
    actual = check(inputs)
    assert not any(actual[name].any() for name in ("out", "q", "k", "v"))


@DTYPES
def test_contents_of_invalid_groups_are_not_used(dtype: torch.dtype) -> None:
    inputs = inputs_of(dtype, t=2, m=2)
    inputs[4] = torch.ones_like(inputs[4])
    inputs[5] = torch.tensor([[[True, False], [True, True]]], device=inputs[5].device)
    expected = both_directions(cuda, inputs)
    for x in inputs[:4]:
        x[~inputs[5]] = torch.nan
    assert_equal(both_directions(cuda, inputs), expected)


@pytest.mark.parametrize("sizes", [{"b": 0}, {"t": 0}, {"k": 0}, {"keys": 0}, {"h": 0}], ids=str)
def test_empty_input(sizes: dict[str, int]) -> None:
    inputs = inputs_of(**sizes)
    actual = both_directions(cuda, inputs)
    for name, like in zip(("out", "q", "k", "v"), inputs[:4], strict=True):
        assert torch.equal(actual[name], torch.zeros_like(like))


@pytest.mark.parametrize("keys", [1, 7])
def test_large_scores_do_not_overflow(keys: int) -> None:
    inputs = inputs_of(keys=keys)
    inputs[1] *= 1e4
    assert all(x.isfinite().all() for x in both_directions(cuda, inputs).values())


def test_tf32_only_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(k=9, keys=19, d=24)
    exact = check(inputs)
    monkeypatch.setattr(_cuda, "tf32", lambda: True)
    for name, x in both_directions(cuda, inputs).items():
        assert not torch.equal(x, exact[name])
        torch.testing.assert_close(x, exact[name], rtol=1e-2, atol=1e-2)


@DTYPES
def test_runs_repeat_to_the_bit(dtype: torch.dtype) -> None:
    inputs = inputs_of(dtype, t=3, m=1, k=19, keys=34)
    assert_equal(both_directions(cuda, inputs), both_directions(cuda, inputs))


def test_the_order_of_threads_does_not_matter() -> None:
    with cuda_host.on_host() as executor:
        inputs = inputs_of(torch.float16, t=3, m=1, k=19, keys=34)
        expected = both_directions(cuda, inputs)
        for seed in (1, 2):
            executor.order(seed)
            assert_equal(both_directions(cuda, inputs), expected)
        executor.order(0)


@DTYPES
@pytest.mark.parametrize("layout", [plain, at_an_odd_address])
@cuda_host.checked
def test_every_access_to_memory(dtype: torch.dtype, layout: Layout) -> None:
    check(inputs_of(dtype, layout, t=3, k=66, keys=34, d=8))


def test_what_is_left_to_the_reference() -> None:
    wide, double = inputs_of(d=129), moved(inputs_of(), dtype=torch.float64)
    for grad, *inputs in (wide, double):
        assert cuda_impl.forward(*inputs) is None
        assert cuda_impl.backward(grad, *inputs[:3], grad, grad, *inputs[3:]) is None


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(ALL),
    sizes=st.fixed_dictionaries(
        {
            "t": st.integers(1, 3),
            "m": st.integers(1, 2),
            "k": st.integers(1, 40),
            "keys": st.integers(1, 40),
            "d": st.integers(1, 40),
        }
    ),
)
def test_any_shape(seed: int, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    check(inputs_of(dtype, **sizes))
