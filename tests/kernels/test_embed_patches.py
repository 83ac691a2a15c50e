"""embed_patches against F.conv2d over the whole image, then a gather, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.kernels import embed_patches

pytestmark = pytest.mark.usefixtures("poisoned", "backend")


def random_inputs(dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, Any]:
    """Inputs with leading dimensions [2, T]; all but patches and index require grad."""
    t, k, p, n, d = ({"t": 3, "k": 4, "p": 6, "n": 9, "d": 5} | sizes).values()
    inputs = {
        "patches": torch.randn(2, t, k, p),
        "weight": torch.randn(d, p),
        "bias": torch.randn(d),
        "table": torch.randn(n, d),
        "offset": torch.randn(2, t, d),
    }
    inputs = {name: x.to(dtype).requires_grad_(name != "patches") for name, x in inputs.items()}
    return {**inputs, "index": torch.randint(0, n, (2, t, k))}


def loops(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor:
    tokens = []
    for b in range(index.shape[0]):
        for t in range(index.shape[1]):
            for j in range(index.shape[2]):
                token = weight @ patches[b, t, j] + table[int(index[b, t, j])]
                token = token if bias is None else token + bias
                tokens.append(token if offset is None else token + offset[b, t])
    return torch.stack(tokens).reshape(*index.shape, -1)


def in_float64(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: x.detach().double().requires_grad_(x.requires_grad)
        if isinstance(x, Tensor) and x.is_floating_point()
        else x
        for name, x in inputs.items()
    }


def assert_same(inputs: dict[str, Any], tolerance: float) -> None:
    """Compares the output and every gradient with the loops."""
    exact = in_float64(inputs)
    actual, expected = embed_patches(**inputs), loops(**exact)
    assert actual.dtype == inputs["patches"].dtype
    assert actual.is_contiguous()
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.randn_like(actual)
    actual.backward(grad)
    expected.backward(grad.double())
    for name, x in inputs.items():
        if isinstance(x, Tensor) and x.requires_grad:
            assert x.grad is not None
            assert x.grad.dtype == x.dtype
            torch.testing.assert_close(
                x.grad.double(), exact[name].grad, rtol=tolerance, atol=4 * tolerance, msg=name
            )


def test_matches_conv2d_and_gather() -> None:
    image = torch.randn(2, 3, 8, 8)
    weight, bias = torch.randn(5, 3, 4, 4), torch.randn(5)
    table, offset = torch.randn(4, 5), torch.randn(2, 5)
    index = torch.tensor([[3, 0, 1], [2, 2, 3]])
    patches = F.unfold(image, 4, stride=4).mT.gather(1, index[..., None].expand(-1, -1, 48))
    tokens = embed_patches(patches, weight.flatten(1), bias, table, index, offset)

    grid = F.conv2d(image.double(), weight.double(), bias.double(), stride=4).flatten(2).mT
    whole = grid + table.double() + offset.double()[:, None]
    expected = whole.gather(1, index[..., None].expand(-1, -1, 5))
    torch.testing.assert_close(tokens.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 4e-2), (torch.float16, 4e-3)],
    ids=str,
)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_output_and_gradients(
    dtype: torch.dtype, tolerance: float, index_dtype: torch.dtype
) -> None:
    inputs = random_inputs(dtype)
    inputs["index"] = inputs["index"].to(index_dtype)
    assert_same(inputs, tolerance)


@pytest.mark.parametrize("absent", ["bias", "offset"])
def test_without_bias_or_offset(absent: str) -> None:
    inputs = random_inputs()
    inputs[absent] = None
    assert_same(inputs, 1e-5)


@pytest.mark.parametrize("wanted", ["weight", "bias", "table", "offset"])
def test_one_gradient_alone(wanted: str) -> None:
    inputs = random_inputs()
    for name in ("weight", "bias", "table", "offset"):
        inputs[name].requires_grad_(name == wanted)
    assert_same(inputs, 1e-5)


def test_inputs_may_differ_in_dtype() -> None:
    inputs = random_inputs()
    inputs["patches"] = inputs["patches"].bfloat16()
    assert_same(inputs, 4e-2)


def test_gradcheck() -> None:
    inputs = random_inputs(torch.float64, t=1, k=3, p=2, n=2, d=2)
    assert torch.autograd.gradcheck(embed_patches, [inputs[name] for name in ARGUMENTS])


ARGUMENTS = ("patches", "weight", "bias", "table", "index", "offset")


def test_permuted_layouts() -> None:
    inputs = random_inputs()
    inputs["patches"] = inputs["patches"].mT.contiguous().mT
    inputs["weight"] = inputs["weight"].detach().mT.contiguous().mT.requires_grad_()
    inputs["index"] = inputs["index"].mT.contiguous().mT
    assert_same(inputs, 1e-5)


def test_runs_repeat_to_the_bit() -> None:
    results = []
    for _ in range(3):
        torch.manual_seed(1)
        inputs = random_inputs(t=8, k=16, n=3)
        tokens = embed_patches(**inputs)
        tokens.backward(torch.randn_like(tokens))
        results.append([tokens, *(inputs[name].grad for name in ("weight", "bias", "table"))])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}], ids=str)
def test_empty_input_gives_zero_gradients(sizes: dict[str, int]) -> None:
    inputs = random_inputs(**sizes)
    tokens = embed_patches(**inputs)
    tokens.sum().backward()
    assert tokens.numel() == 0
    for name in ("weight", "bias", "table", "offset"):
        assert torch.equal(inputs[name].grad, torch.zeros_like(inputs[name]))


def test_autocast_changes_nothing() -> None:
    inputs = random_inputs()
    expected = embed_patches(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embed_patches(**inputs), expected)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.fixed_dictionaries({name: st.integers(1, 7) for name in "tkpnd"}),
)
def test_any_shape(seed: int, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    assert_same(random_inputs(**sizes), 1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"patches": torch.zeros(6)},
            ValueError,
            r"patches must have shape \[..., K, P\], but got \[6\]",
        ),
        (
            {"patches": torch.zeros(2, 3, 4, 6, requires_grad=True)},
            ValueError,
            r"patches must not require grad: embed_patches gives no gradient for it",
        ),
        (
            {"weight": torch.zeros(5, 7)},
            ValueError,
            r"weight must have shape \[D, P\] = \[\*, 6\], but got \[5, 7\]",
        ),
        (
            {"bias": torch.zeros(4)},
            ValueError,
            r"bias must have shape \[D\] = \[5\], but got \[4\]",
        ),
        (
            {"table": torch.zeros(9, 4)},
            ValueError,
            r"table must have shape \[N, D\] = \[\*, 5\], but got \[9, 4\]",
        ),
        (
            {"table": torch.zeros(9, 5, dtype=torch.int64)},
            TypeError,
            r"table must be a floating-point tensor, but got torch.int64",
        ),
        (
            {"index": torch.zeros(2, 4, dtype=torch.int64)},
            ValueError,
            r"index must have shape \[..., K\] = \[2, 3, 4\], but got \[2, 4\]",
        ),
        (
            {"index": torch.zeros(2, 3, 4, dtype=torch.bool)},
            TypeError,
            r"index must be int32 or int64, but got torch.bool",
        ),
        (
            {"index": torch.full((2, 3, 4), 9)},
            IndexError,
            r"index must hold patch numbers in \[0, 9\), but got 9",
        ),
        (
            {"offset": torch.zeros(2, 5)},
            ValueError,
            r"offset must have shape \[..., D\] = \[2, 3, 5\], but got \[2, 5\]",
        ),
        (
            {"weight": torch.zeros(5, 6, device="meta")},
            ValueError,
            r"weight must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        embed_patches(**{**random_inputs(), **change})
