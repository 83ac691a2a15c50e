"""tm_attention in C++: never further from float64 than PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.kernels import _native, _registry, tm_attention
from seamo_fast.kernels.tm_attention import reference
from tests.kernels.budget import assert_within_budget, distance, moved
from tests.kernels.directions import (
    heads_outside,
    part_of_a_projection,
    plain,
    reversed_in_memory,
    terms_of_gradients,
)
from tests.kernels.directions import tm_attention as both_directions
from tests.kernels.test_tm_attention import concatenated, random_inputs, tm_adjacency

_module: Any = _native.load()
if isinstance(_module, str):
    pytest.skip(f"the C++ kernels: {_module}", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("poisoned_memory")

cpu_impl = _registry.implementation("tm_attention", "cpu")

Layout = Callable[[Tensor], Tensor]
Sizes = dict[str, int]

NAMES = ("out", "lse", "q", "k", "v")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def repeated_heads(x: Tensor) -> Tensor:
    return x[:, :, :, :, :1].expand_as(x)


LAYOUTS = (plain, heads_outside, reversed_in_memory, part_of_a_projection, repeated_heads)


def inputs_of(
    dtype: torch.dtype = torch.float32, layout: Layout = plain, sizes: Sizes | None = None
) -> list[Tensor]:
    """grad, q, k, v, adjacency, valid."""
    inputs = random_inputs(dtype, **(sizes or {}))
    q, k, v = (layout(inputs[name].detach()) for name in "qkv")
    return [layout(torch.randn_like(q)), q, k, v, inputs["adjacency"], inputs["valid"]]


def masked(q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor) -> Tensor:
    """One call of SDPA with a boolean mask."""
    there = valid.flatten(1)
    allowed = adjacency & there[:, :, None] & there[:, None, :]
    mask = allowed.repeat_interleave(q.shape[3], 1).repeat_interleave(k.shape[3], 2)[:, None]
    queries, keys, values = (x.permute(0, 4, 1, 2, 3, 5).flatten(2, 4) for x in (q, k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    out = out.masked_fill(~mask.any(-1, keepdim=True), 0)
    return out.unflatten(2, q.shape[1:4]).permute(0, 2, 3, 4, 1, 5)


def differentiated(function: Callable[..., Tensor], inputs: list[Tensor]) -> dict[str, Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs[1:4])
    out = function(q, k, v, *inputs[4:])
    grads = torch.autograd.grad(out + 0 * (q.sum() + k.sum() + v.sum()), (q, k, v), inputs[0])
    return dict(zip(("out", "q", "k", "v"), (out.detach(), *grads), strict=True))


def exactly(inputs: list[Tensor]) -> dict[str, Tensor]:
    return both_directions(reference, moved(inputs, dtype=torch.float64))


def assert_as_exact_as_torch(inputs: list[Tensor]) -> None:
    exact, actual = exactly(inputs), both_directions(cpu_impl, inputs)
    others = [differentiated(function, inputs) for function in (masked, concatenated)]
    others.append(both_directions(reference, inputs))
    for name in NAMES:
        assert actual[name].dtype == (torch.float32 if name == "lse" else inputs[0].dtype)
    finite = exact["lse"].isfinite()
    assert torch.equal(actual["lse"] == torch.inf, ~finite)
    for results in (actual, exact, others[-1]):
        results["lse"] = results["lse"].masked_fill(~finite, 0)
    assert_within_budget(actual, exact, *others, terms=terms_of_gradients(inputs))


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [12, 32])
def test_layouts(dtype: torch.dtype, layout: Layout, width: int) -> None:
    assert_as_exact_as_torch(inputs_of(dtype, layout, {"k": 19, "keys": 21, "d": width}))


@DTYPES
@pytest.mark.parametrize("width", [7, 17, 32, 40, 48, 64, 80, 96, 128, 160])
def test_head_widths(dtype: torch.dtype, width: int) -> None:
    assert_as_exact_as_torch(inputs_of(dtype, sizes={"b": 1, "k": 33, "keys": 70, "d": width}))


@DTYPES
@pytest.mark.parametrize(
    "sizes",
    [
        {"k": 1, "keys": 1},
        {"k": 1, "keys": 65},
        {"k": 130, "keys": 1},
        {"k": 63, "keys": 63},
        {"k": 64, "keys": 129},
        {"t": 1},
        {"m": 1},
        {"t": 1, "m": 1},
        {"t": 7, "m": 3},
        {"b": 5, "h": 1},
        {"h": 7},
    ],
    ids=str,
)
def test_sizes(dtype: torch.dtype, sizes: Sizes) -> None:
    assert_as_exact_as_torch(inputs_of(dtype, sizes={"k": 16, "keys": 16, "d": 24} | sizes))


@DTYPES
def test_every_instruction_set(instruction_set: None, dtype: torch.dtype) -> None:
    for width in (5, 48, 64, 80):
        assert_as_exact_as_torch(inputs_of(dtype, sizes={"b": 1, "k": 37, "keys": 66, "d": width}))


@DTYPES
def test_adjacency_of_the_paper(dtype: torch.dtype) -> None:
    inputs = inputs_of(dtype, sizes={"t": 4, "m": 2, "k": 64, "keys": 64, "d": 64})
    inputs[4] = tm_adjacency(4, 2)
    assert_as_exact_as_torch(inputs)
    inputs[5] = torch.ones_like(inputs[5])
    assert_as_exact_as_torch(inputs)


@pytest.mark.parametrize("nothing", [4, 5], ids=["adjacency", "valid"])
def test_nothing_to_see(nothing: int) -> None:
    inputs = inputs_of(sizes={"k": 17, "keys": 18})
    inputs[nothing] = torch.zeros_like(inputs[nothing])
    results = both_directions(cpu_impl, inputs)
    assert (results.pop("lse") == torch.inf).all()
    for name, result in results.items():
        assert not result.any(), name
        assert not result.isnan().any(), name


def test_invalid_groups_hold_anything() -> None:
    inputs = inputs_of(sizes={"k": 17, "keys": 18, "d": 20})
    inputs[5][0, 1, 0] = inputs[5][1, 2, 1] = False
    expected = both_directions(cpu_impl, inputs)
    for i in range(4):
        inputs[i] = inputs[i].clone()
        inputs[i][~inputs[5]] = torch.nan
    for name, result in both_directions(cpu_impl, inputs).items():
        assert torch.equal(result, expected[name]), name


def test_not_a_number_is_not_hidden() -> None:
    inputs = inputs_of(sizes={"b": 1, "t": 1, "m": 2, "k": 3, "keys": 40, "d": 20})
    inputs[4] = torch.eye(2, dtype=torch.bool)
    inputs[5] = torch.ones_like(inputs[5])
    inputs[2][0, 0, 1, 5, 0, 7] = torch.nan
    out, lse = cpu_impl.forward(*inputs[1:])
    assert out[0, 0, 1, :, 0].isnan().all()
    assert lse[0, 0, 1, 0].isnan().all()
    assert out[0, 0, 0].isfinite().all()
    assert out[0, 0, 1, :, 1].isfinite().all()


@pytest.mark.parametrize("factor", [1e-20, 30.0, 1e4])
def test_small_and_large_scores(factor: float) -> None:
    inputs = inputs_of(sizes={"k": 17, "keys": 18, "d": 20})
    inputs[1] = inputs[1] * factor
    results = both_directions(cpu_impl, inputs)
    exact = exactly(inputs)
    plain_torch = both_directions(reference, inputs)
    for name in ("out", "q", "k", "v"):
        assert results[name].isfinite().all()
        budget = distance(plain_torch[name], exact[name]) + 1e-6 * float(exact[name].norm())
        assert distance(results[name], exact[name]) <= budget, name


@DTYPES
@pytest.mark.parametrize("sizes", [{"b": 1, "h": 1, "t": 4}, {"h": 3}, {"b": 4, "h": 5}], ids=str)
def test_any_number_of_threads_gives_the_same_bits(
    threads: Callable[[int], None], dtype: torch.dtype, sizes: Sizes
) -> None:
    inputs = inputs_of(dtype, sizes={"k": 70, "keys": 33, "d": 20} | sizes)
    expected = both_directions(cpu_impl, inputs)
    for count in (1, 2, 2, 3, 5, 16):
        threads(count)
        for name, result in both_directions(cpu_impl, inputs).items():
            assert torch.equal(result, expected[name]), (name, count)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_other_dtypes_are_left_to_the_reference(dtype: torch.dtype) -> None:
    inputs = inputs_of(dtype)
    results = reference.forward(*inputs[1:])
    assert cpu_impl.forward(*inputs[1:]) is None
    assert cpu_impl.backward(*inputs[:4], *results, *inputs[4:]) is None
    assert torch.equal(tm_attention(*inputs[1:]), results[0])


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (1, lambda q: q[0]),
        (1, lambda q: q[..., :0]),
        (1, lambda q: q.to("meta")),
        (2, lambda k: k[..., 1:]),
        (2, lambda k: k.bfloat16()),
        (3, lambda v: v[:, :, :, 1:]),
        (4, lambda adjacency: adjacency[1:]),
        (4, lambda adjacency: adjacency.int()),
        (5, lambda valid: valid[:, 1:]),
        (5, lambda valid: valid.float()),
    ],
)
def test_what_the_checks_refuse_is_not_read(place: int, change: Callable[[Tensor], Tensor]) -> None:
    inputs = inputs_of()
    results = cpu_impl.forward(*inputs[1:])
    inputs[place] = change(inputs[place])
    assert cpu_impl.forward(*inputs[1:]) is None
    assert cpu_impl.backward(*inputs[:4], *results, *inputs[4:]) is None


@pytest.mark.parametrize("place", [0, 4, 5], ids=["grad", "out", "lse"])
def test_backward_checks_what_forward_gave(place: int) -> None:
    grad, q, k, v, adjacency, valid = inputs_of()
    tensors = [grad, q, k, v, *cpu_impl.forward(q, k, v, adjacency, valid)]
    tensors[place] = tensors[place][:, 1:]
    assert cpu_impl.backward(*tensors, adjacency, valid) is None


@pytest.mark.parametrize("sizes", [{"b": 0}, {"t": 0}, {"k": 0}, {"keys": 0}, {"h": 0}], ids=str)
def test_empty_input(sizes: Sizes) -> None:
    inputs = inputs_of(sizes=sizes)
    expected = both_directions(reference, inputs)
    for name, result in both_directions(cpu_impl, inputs).items():
        assert torch.equal(result, expected[name]), name


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    layout=st.sampled_from(LAYOUTS),
    sizes=st.fixed_dictionaries(
        {
            "b": st.integers(1, 3),
            "t": st.integers(1, 4),
            "m": st.integers(1, 3),
            "k": st.integers(1, 140),
            "keys": st.integers(1, 140),
            "h": st.integers(1, 3),
            "d": st.integers(1, 70),
        }
    ),
)
def test_any_shape(seed: int, layout: Layout, sizes: Sizes) -> None:
    torch.manual_seed(seed)
    inputs = inputs_of(layout=layout, sizes=sizes)
    expected = both_directions(reference, inputs)
    for name, result in both_directions(cpu_impl, inputs).items():
        torch.testing.assert_close(result, expected[name], rtol=1e-4, atol=1e-5, msg=name)
