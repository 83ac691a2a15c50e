"""assemble_tokens against torch.cat and indexing in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import assemble_tokens

pytestmark = pytest.mark.usefixtures("poisoned", "backend")

FLOATING = ("visible", "mask_token", "table")


def random_inputs(dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, Tensor]:
    """Inputs with leading dimensions [2, T], K visible and J hidden tokens."""
    t, k, j, n, d = ({"t": 3, "k": 2, "j": 4, "n": 6, "d": 5} | sizes).values()
    return {
        "visible": torch.randn(2, t, k, d).to(dtype).requires_grad_(),
        "mask_token": torch.randn(d).to(dtype).requires_grad_(),
        "table": torch.randn(n, d).to(dtype).requires_grad_(),
        "index": torch.randint(0, n, (2, t, k + j)),
    }


def concatenated(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor:
    hidden = index.shape[-1] - visible.shape[-2]
    masks = mask_token.expand(*index.shape[:-1], hidden, -1)
    return torch.cat([visible, masks], dim=-2) + table[index]


def assert_same(inputs: dict[str, Tensor], tolerance: float) -> None:
    """Compares the output and every gradient with the concatenation."""
    exact = {
        name: x.detach().double().requires_grad_(x.requires_grad) if name in FLOATING else x
        for name, x in inputs.items()
    }
    actual, expected = assemble_tokens(**inputs), concatenated(**exact)
    assert actual.dtype == inputs["visible"].dtype
    assert actual.is_contiguous()
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(actual)
    actual.backward(grad)
    expected.backward(grad.double())
    for name in FLOATING:
        x = inputs[name]
        if x.requires_grad:
            assert x.grad is not None
            assert x.grad.dtype == x.dtype
            torch.testing.assert_close(
                x.grad.double(), exact[name].grad, rtol=tolerance, atol=4 * tolerance, msg=name
            )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    ids=str,
)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_output_and_gradients(
    dtype: torch.dtype, tolerance: float, index_dtype: torch.dtype
) -> None:
    inputs = random_inputs(dtype)
    inputs["index"] = inputs["index"].to(index_dtype)
    assert_same(inputs, tolerance)


@pytest.mark.parametrize("wanted", FLOATING)
def test_one_gradient_alone(wanted: str) -> None:
    inputs = random_inputs()
    for name in FLOATING:
        inputs[name].requires_grad_(name == wanted)
    assert_same(inputs, 1e-6)


def test_inputs_may_differ_in_dtype() -> None:
    inputs = random_inputs()
    inputs["visible"] = inputs["visible"].detach().bfloat16().requires_grad_()
    assert_same(inputs, 2e-2)


def test_gradcheck() -> None:
    inputs = random_inputs(torch.float64, t=1, k=2, j=2, n=3, d=2)
    assert torch.autograd.gradcheck(
        assemble_tokens, [inputs[name] for name in (*FLOATING, "index")]
    )


def test_permuted_layouts() -> None:
    inputs = random_inputs()
    inputs["visible"] = (
        inputs["visible"].detach().permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    ).requires_grad_()
    inputs["index"] = inputs["index"].mT.contiguous().mT
    assert_same(inputs, 1e-6)


def test_runs_repeat_to_the_bit() -> None:
    results = []
    for _ in range(3):
        torch.manual_seed(1)
        inputs = random_inputs(t=8, k=8, j=24, n=3)
        tokens = assemble_tokens(**inputs)
        tokens.backward(torch.randn_like(tokens))
        results.append([tokens, *(inputs[name].grad for name in FLOATING)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}, {"j": 0}, {"k": 0, "j": 0}], ids=str)
def test_empty_parts(sizes: dict[str, int]) -> None:
    assert_same(random_inputs(**sizes), 1e-6)


def test_autocast_changes_nothing() -> None:
    inputs = random_inputs()
    expected = assemble_tokens(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(assemble_tokens(**inputs), expected)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.fixed_dictionaries(
        {name: st.integers(0 if name in "kj" else 1, 7) for name in "tkjnd"}
    ),
)
def test_any_shape(seed: int, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    assert_same(random_inputs(**sizes), 1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"visible": torch.zeros(5)},
            ValueError,
            r"visible must have shape \[..., K, D\], but got \[5\]",
        ),
        (
            {"visible": torch.zeros(2, 3, 2, 5, dtype=torch.int32)},
            TypeError,
            r"visible must be a floating-point tensor, but got torch.int32",
        ),
        (
            {"mask_token": torch.zeros(1, 1, 5)},
            ValueError,
            r"mask_token must have shape \[D\] = \[5\], but got \[1, 1, 5\]",
        ),
        (
            {"table": torch.zeros(6, 4)},
            ValueError,
            r"table must have shape \[N, D\] = \[\*, 5\], but got \[6, 4\]",
        ),
        (
            {"index": torch.zeros(2, 4, 6, dtype=torch.int64)},
            ValueError,
            r"index must have shape \[..., N'\] = \[2, 3, \*\], but got \[2, 4, 6\]",
        ),
        (
            {"index": torch.zeros(2, 3, 1, dtype=torch.int64)},
            ValueError,
            r"index must number the 2 visible tokens and the hidden ones, but got 1 numbers",
        ),
        (
            {"index": torch.zeros(2, 3, 6)},
            TypeError,
            r"index must be int32 or int64, but got torch.float32",
        ),
        (
            {"index": torch.full((2, 3, 6), -3)},
            IndexError,
            r"index must hold patch numbers in \[0, 6\), but got -3",
        ),
        (
            {"table": torch.zeros(6, 5, device="meta")},
            ValueError,
            r"table must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        assemble_tokens(**{**random_inputs(), **change})
