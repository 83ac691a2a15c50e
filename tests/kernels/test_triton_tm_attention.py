"""tm_attention in Triton: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.tm_attention import reference
from tests.kernels.budget import assert_within_budget, moved
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

triton_impl = pytest.importorskip("seamo_fast.kernels.tm_attention.triton_impl")

pytestmark = pytest.mark.usefixtures("poisoned", "triton_device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
NAMES = ("out", "lse", "q", "k", "v")
WIDTHS = (32, 48, 64, 80, 96, 128)


def repeated(x: Tensor) -> Tensor:
    return x[:, :, :, :, :1].expand_as(x)


LAYOUTS = (plain, heads_outside, reversed_in_memory, part_of_a_projection, repeated)


def inputs_of(
    device: str,
    dtype: torch.dtype = torch.float32,
    layout: Callable[[Tensor], Tensor] = plain,
    **sizes: int,
) -> list[Tensor]:
    """grad, q, k, v, adjacency, valid; two groups that see each other unless sizes say more."""
    inputs = random_inputs(dtype, **({"b": 1, "t": 2, "m": 1, "h": 1} | sizes))
    if inputs["adjacency"].shape[0] <= 2:
        inputs["adjacency"] = ~torch.eye(inputs["adjacency"].shape[0], dtype=torch.bool)
        inputs["valid"].fill_(True)
    if inputs["adjacency"].shape[0] == 1:
        inputs["adjacency"].fill_(True)
    q, k, v = (layout(moved(inputs[name].detach(), device)) for name in "qkv")
    masks = moved([inputs["adjacency"], inputs["valid"]], device)
    return [layout(torch.randn_like(q)), q, k, v, *masks]


def check(inputs: list[Tensor]) -> dict[str, Tensor]:
    exact = both_directions(reference, moved(inputs, dtype=torch.float64))
    actual = both_directions(triton_impl, inputs)
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


@DTYPES
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_head_widths(
    triton_device: str, dtype: torch.dtype, width: int, layout: Callable[[Tensor], Tensor]
) -> None:
    check(inputs_of(triton_device, dtype, layout, k=5, keys=7, d=width))


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {"k": 1, "keys": 1},
        {"k": 70, "keys": 65},
        {"k": 64, "keys": 64},
        {"t": 1, "m": 2},
        {"t": 1, "m": 1},
        {"d": 1},
        {"h": 3, "d": 7},
    ],
    ids=str,
)
def test_sizes(triton_device: str, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(inputs_of(triton_device, dtype, **sizes))


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(
    triton_device: str, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    check(inputs_of(triton_device, dtype, layout, b=2, t=1, m=2, h=2, d=12))


@DTYPES
def test_random_groups(triton_device: str, dtype: torch.dtype) -> None:
    check(inputs_of(triton_device, dtype, b=2, t=3))


def test_adjacency_of_the_paper(triton_device: str) -> None:
    inputs = inputs_of(triton_device, t=3, m=2)
    inputs[4] = moved(tm_adjacency(3, 2), triton_device)
    check(inputs)


def test_adjacency_of_any_layout(triton_device: str) -> None:
    inputs = inputs_of(triton_device, b=1, t=3, m=1)
    inputs[4] = moved(torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool(), triton_device).mT
    inputs[5] = torch.ones_like(inputs[5])
    check(inputs)


@DTYPES
@pytest.mark.parametrize("nothing", [4, 5], ids=["adjacency", "valid"])
def test_no_keys_at_all_gives_zeros(triton_device: str, dtype: torch.dtype, nothing: int) -> None:
    inputs = inputs_of(triton_device, dtype)
    inputs[nothing] = torch.zeros_like(inputs[nothing])
    actual = check(inputs)
    assert not any(actual[name].any() for name in ("out", "q", "k", "v"))


def test_contents_of_invalid_groups_are_not_used(triton_device: str) -> None:
    inputs = inputs_of(triton_device, b=1, t=2, m=2)
    inputs[4] = torch.ones_like(inputs[4])
    inputs[5] = torch.tensor([[[True, False], [True, True]]], device=triton_device)
    expected = both_directions(triton_impl, inputs)
    for x in inputs[:4]:
        x[~inputs[5]] = torch.nan
    actual = both_directions(triton_impl, inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in NAMES)


@DTYPES
@pytest.mark.parametrize("sizes", [{"b": 0}, {"t": 0}, {"k": 0}, {"keys": 0}, {"h": 0}], ids=str)
def test_empty_input(triton_device: str, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    inputs = inputs_of(triton_device, dtype, **sizes)
    actual = both_directions(triton_impl, inputs)
    for name, like in zip(("out", "q", "k", "v"), inputs[:4], strict=True):
        assert torch.equal(actual[name], torch.zeros_like(like))


def test_large_scores_do_not_overflow(triton_device: str) -> None:
    inputs = inputs_of(triton_device, keys=7)
    inputs[1] *= 1e4
    assert all(x.isfinite().all() for x in both_directions(triton_impl, inputs).values())


def test_every_configuration(triton_device: str, configuration: Callable[..., None]) -> None:
    inputs = inputs_of(triton_device, torch.bfloat16, t=1, k=130, keys=130, d=16)
    expected = both_directions(triton_impl, inputs)
    configuration(triton_impl._plan, -1)  # the others differ in stages
    actual = both_directions(triton_impl, inputs)
    for name in NAMES:
        torch.testing.assert_close(actual[name], expected[name], rtol=0.01, atol=1e-5, msg=name)


@DTYPES
def test_runs_repeat_to_the_bit(triton_device: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(triton_device, dtype, t=3, m=1)
    first, second = (both_directions(triton_impl, inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_float64_is_left_to_the_reference(triton_device: str) -> None:
    grad, *inputs = moved(inputs_of(triton_device), dtype=torch.float64)
    assert triton_impl.forward(*inputs) is None
    assert triton_impl.backward(grad, *inputs[:3], grad, grad, *inputs[3:]) is None


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    sizes=st.fixed_dictionaries(
        {
            "t": st.integers(1, 3),
            "m": st.integers(1, 2),
            "h": st.integers(1, 2),
            "k": st.integers(1, 40),
            "keys": st.integers(1, 40),
            "d": st.integers(1, 40),
        }
    ),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_shape(
    triton_device: str,
    seed: int,
    dtype: torch.dtype,
    sizes: dict[str, int],
    layout: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(seed)
    check(inputs_of(triton_device, dtype, layout, **sizes))
