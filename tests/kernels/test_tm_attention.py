"""tm_attention against F.scaled_dot_product_attention over concatenated keys in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.kernels import tm_attention

pytestmark = pytest.mark.usefixtures("poisoned")


def random_inputs(
    dtype: torch.dtype = torch.float32,
    *,
    b: int = 2,
    t: int = 3,
    m: int = 2,
    k: int = 4,
    keys: int = 4,
    h: int = 2,
    d: int = 5,
) -> dict[str, Tensor]:
    """Random groups, a random adjacency, a few groups missing."""
    return {
        "q": torch.randn(b, t, m, k, h, d).to(dtype).requires_grad_(),
        "k": torch.randn(b, t, m, keys, h, d).to(dtype).requires_grad_(),
        "v": torch.randn(b, t, m, keys, h, d).to(dtype).requires_grad_(),
        "adjacency": torch.rand(t * m, t * m) < 0.5,
        "valid": torch.rand(b, t, m) < 0.8,
    }


def tm_adjacency(seasons: int, modalities: int) -> Tensor:
    """Same modality at another season, or another modality at the same season."""
    pairs = [(t, m) for t in range(seasons) for m in range(modalities)]
    return torch.tensor([[(t == s) != (m == n) for s, n in pairs] for t, m in pairs])


def concatenated(q: Tensor, k: Tensor, v: Tensor, adjacency: Tensor, valid: Tensor) -> Tensor:
    batch, seasons, modalities = valid.shape
    pairs = [(t, m) for t in range(seasons) for m in range(modalities)]
    samples = []
    for b in range(batch):
        groups = []
        for g, (t, m) in enumerate(pairs):
            seen = [pair for i, pair in enumerate(pairs) if adjacency[g, i] and valid[(b, *pair)]]
            if valid[b, t, m] and seen:
                keys = torch.cat([k[(b, *pair)] for pair in seen]).transpose(0, 1)
                values = torch.cat([v[(b, *pair)] for pair in seen]).transpose(0, 1)
                heads = F.scaled_dot_product_attention(q[b, t, m].transpose(0, 1), keys, values)
                groups.append(heads.transpose(0, 1))
            else:
                groups.append(torch.zeros_like(q[b, t, m]))
        samples.append(torch.stack(groups).reshape(q.shape[1:]))
    return torch.stack(samples)


def assert_same(inputs: dict[str, Tensor], tolerance: float) -> Tensor:
    """Compares the output and every gradient with the loops; returns the output."""
    exact = {
        name: x.detach().double().requires_grad_() if name in "qkv" else x
        for name, x in inputs.items()
    }
    actual, expected = tm_attention(**inputs), concatenated(**exact)
    assert actual.dtype == inputs["q"].dtype
    assert actual.is_contiguous()
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(actual)
    actual.backward(grad)
    (expected + 0 * sum(exact[name].sum() for name in "qkv")).backward(grad.double())
    for name in "qkv":
        x = inputs[name]
        assert x.grad is not None
        assert x.grad.dtype == x.dtype
        torch.testing.assert_close(
            x.grad.double(), exact[name].grad, rtol=tolerance, atol=4 * tolerance, msg=name
        )
    return actual


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)],
    ids=str,
)
def test_output_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    assert_same(random_inputs(dtype), tolerance)


@pytest.mark.parametrize(
    "sizes",
    [{"k": 1, "keys": 1}, {"t": 1}, {"m": 1}, {"t": 1, "m": 1}, {"k": 3, "keys": 7}, {"d": 1}],
    ids=str,
)
@pytest.mark.parametrize("complete", [True, False])
def test_sizes(sizes: dict[str, int], complete: bool) -> None:
    inputs = random_inputs(**sizes)
    if complete:
        inputs["valid"] = torch.ones_like(inputs["valid"])
    assert_same(inputs, 1e-5)


def test_adjacency_of_the_paper() -> None:
    inputs = random_inputs(t=4, m=2)
    inputs["adjacency"] = tm_adjacency(4, 2)
    assert_same(inputs, 1e-5)


def test_adjacency_rows_are_queries() -> None:
    inputs = random_inputs(b=1, t=1, m=2)
    inputs["adjacency"] = torch.tensor([[False, True], [False, False]])
    inputs["valid"] = torch.ones(1, 1, 2, dtype=torch.bool)
    out = assert_same(inputs, 1e-5)
    assert out[0, 0, 0].abs().min() > 0
    assert torch.equal(out[0, 0, 1], torch.zeros_like(out[0, 0, 1]))


@pytest.mark.parametrize("nothing", ["valid", "adjacency"])
def test_no_keys_at_all_gives_zeros(nothing: str) -> None:
    inputs = random_inputs()
    inputs[nothing] = torch.zeros_like(inputs[nothing])
    out = tm_attention(**inputs)
    assert torch.equal(out, torch.zeros_like(out))
    out.backward(torch.randn_like(out))
    for name in "qkv":
        assert torch.equal(inputs[name].grad, torch.zeros_like(inputs[name]))


def test_contents_of_invalid_groups_are_not_used() -> None:
    inputs = random_inputs()
    inputs["valid"][0, 1, 0] = inputs["valid"][1, 2, 1] = False
    expected = tm_attention(**inputs)
    for name in "qkv":
        spoilt = inputs[name].detach().clone()
        spoilt[~inputs["valid"]] = torch.nan
        inputs[name] = spoilt.requires_grad_()
    out = tm_attention(**inputs)
    assert torch.equal(out, expected)
    out.backward(torch.randn_like(out))
    for name in "qkv":
        grad = inputs[name].grad
        assert grad.isfinite().all()
        assert not grad[~inputs["valid"]].any()


def test_large_scores_do_not_overflow() -> None:
    inputs = random_inputs()
    inputs["q"] = (inputs["q"].detach() * 1e4).requires_grad_()
    out = tm_attention(**inputs)
    out.backward(torch.ones_like(out))
    assert out.isfinite().all()
    assert all(inputs[name].grad.isfinite().all() for name in "qkv")


def test_gradcheck() -> None:
    inputs = random_inputs(torch.float64, b=1, t=2, k=2, keys=3, h=1, d=2)
    inputs["valid"] = torch.tensor([[[True, True], [True, False]]])
    inputs["adjacency"] = torch.tensor(
        [[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool
    )
    assert torch.autograd.gradcheck(tm_attention, list(inputs.values()))


def test_permuted_layouts() -> None:
    inputs = random_inputs()
    for name in "qkv":
        # heads outside tokens, as a projection may leave them
        x = inputs[name].detach().permute(0, 4, 1, 2, 3, 5).contiguous()
        inputs[name] = x.permute(0, 2, 3, 4, 1, 5).requires_grad_()
    assert_same(inputs, 1e-5)


def test_keys_and_values_as_views_of_one_projection() -> None:
    inputs = random_inputs()
    both = torch.randn(2, 3, 2, 4, 2, 2, 5, requires_grad=True)
    key, value = both.unbind(4)
    out = tm_attention(inputs["q"], key, value, inputs["adjacency"], inputs["valid"])
    out.sum().backward()
    exact = both.detach().double().requires_grad_()
    key, value = exact.unbind(4)
    concatenated(
        inputs["q"].detach().double(), key, value, inputs["adjacency"], inputs["valid"]
    ).sum().backward()
    torch.testing.assert_close(both.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_runs_repeat_to_the_bit() -> None:
    results = []
    for _ in range(3):
        torch.manual_seed(1)
        inputs = random_inputs(k=16, keys=16)
        out = tm_attention(**inputs)
        out.backward(torch.randn_like(out))
        results.append([out, *(inputs[name].grad for name in "qkv")])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("sizes", [{"b": 0}, {"t": 0}, {"k": 0}, {"keys": 0}, {"h": 0}], ids=str)
def test_empty_input(sizes: dict[str, int]) -> None:
    inputs = random_inputs(**sizes)
    out = tm_attention(**inputs)
    assert torch.equal(out, torch.zeros_like(inputs["q"]))
    out.sum().backward()
    for name in "qkv":
        assert torch.equal(inputs[name].grad, torch.zeros_like(inputs[name]))


def test_autocast_changes_nothing() -> None:
    inputs = random_inputs()
    expected = tm_attention(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tm_attention(**inputs), expected)


def test_no_second_derivative() -> None:
    inputs = random_inputs()
    out = tm_attention(**inputs)
    (grad,) = torch.autograd.grad(out.square().sum(), inputs["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="seamo::_tm_attention_backward has no derivative"):
        grad.sum().backward()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.fixed_dictionaries(
        {
            "b": st.integers(1, 2),
            "t": st.integers(1, 4),
            "m": st.integers(1, 3),
            "k": st.integers(1, 5),
            "keys": st.integers(1, 5),
            "h": st.integers(1, 3),
            "d": st.integers(1, 9),
        }
    ),
)
def test_any_shape(seed: int, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    assert_same(random_inputs(**sizes), 1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"q": torch.zeros(2, 3, 2, 4, 10)},
            ValueError,
            r"q must have shape \[B, T, M, K, H, d\] = .*, but got \[2, 3, 2, 4, 10\]",
        ),
        (
            {"k": torch.zeros(2, 3, 2, 4, 2, 6)},
            ValueError,
            r"k must have shape \[B, T, M, K', H, d\] = \[2, 3, 2, \*, 2, 5\], "
            r"but got \[2, 3, 2, 4, 2, 6\]",
        ),
        (
            {"v": torch.zeros(2, 3, 2, 3, 2, 5)},
            ValueError,
            r"v must have shape \[B, T, M, K', H, d\] = \[2, 3, 2, 4, 2, 5\], "
            r"but got \[2, 3, 2, 3, 2, 5\]",
        ),
        (
            {"v": torch.zeros(2, 3, 2, 4, 2, 5).half()},
            TypeError,
            r"v must be torch.float32 like q, but got torch.float16",
        ),
        (
            {"q": torch.zeros(2, 3, 2, 4, 2, 5, dtype=torch.int32)},
            TypeError,
            r"q must be a floating-point tensor, but got torch.int32",
        ),
        (
            {"q": torch.zeros(2, 3, 2, 4, 2, 0)},
            ValueError,
            r"q must have a head width d of at least 1, but got \[2, 3, 2, 4, 2, 0\]",
        ),
        (
            {"adjacency": torch.zeros(5, 6, dtype=torch.bool)},
            ValueError,
            r"adjacency must have shape \[T \* M, T \* M\] = \[6, 6\], but got \[5, 6\]",
        ),
        (
            {"adjacency": torch.zeros(6, 6)},
            TypeError,
            r"adjacency must be bool, but got torch.float32",
        ),
        (
            {"valid": torch.zeros(2, 3, dtype=torch.bool)},
            ValueError,
            r"valid must have shape \[B, T, M\] = \[2, 3, 2\], but got \[2, 3\]",
        ),
        (
            {"valid": torch.zeros(2, 3, 2, dtype=torch.uint8)},
            TypeError,
            r"valid must be bool, but got torch.uint8",
        ),
        (
            {"adjacency": torch.zeros(6, 6, dtype=torch.bool, device="meta")},
            ValueError,
            r"adjacency must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tm_attention(**{**random_inputs(), **change})
