"""norm_pix_loss against the formula of masked autoencoders in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import norm_pix_loss

pytestmark = pytest.mark.usefixtures("poisoned", "backend")


def random_inputs(
    dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (2, 3, 4), values: int = 12
) -> dict[str, Tensor]:
    weight = torch.rand(shape)
    return {
        "pred": torch.randn(*shape, values).to(dtype).requires_grad_(),
        "target": (torch.randn(*shape, values) * 3 + 1).to(dtype),
        "weight": torch.where(weight < 0.3, 0.0, weight).to(dtype),
    }


def formula(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool = True, eps: float = 1e-6
) -> Tensor:
    if normalize:
        mean = target.mean(dim=-1, keepdim=True)
        var = target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + eps) ** 0.5
    loss = ((pred - target) ** 2).mean(dim=-1)
    return (loss * weight).sum() / weight.sum()


def assert_same(inputs: dict[str, Tensor], tolerance: float, **options: Any) -> None:
    """Compares the loss and the gradient with the formula."""
    exact = {name: x.detach().double() for name, x in inputs.items()}
    exact["pred"].requires_grad_()
    actual, expected = norm_pix_loss(**inputs, **options), formula(**exact, **options)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=0)
    (actual * 3).backward()
    (expected * 3).backward()
    grad = inputs["pred"].grad
    assert grad is not None
    assert grad.dtype == inputs["pred"].dtype
    size = exact["pred"].grad.abs().max().item()
    rounding = torch.finfo(grad.dtype).eps
    torch.testing.assert_close(
        grad.double(), exact["pred"].grad, rtol=tolerance + rounding, atol=tolerance * size
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-4)],
    ids=str,
)
def test_loss_and_gradient(
    dtype: torch.dtype, tolerance: float, eps: float, normalize: bool
) -> None:
    inputs = random_inputs(dtype)
    assert norm_pix_loss(**inputs).dtype == (
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    assert_same(inputs, tolerance, normalize=normalize, eps=eps)


def test_bool_weight_is_a_mask() -> None:
    inputs = random_inputs()
    inputs["weight"] = inputs["weight"] > 0
    assert_same(inputs, 1e-5)


def test_prediction_and_target_may_differ_in_dtype() -> None:
    inputs = random_inputs()
    inputs["pred"] = inputs["pred"].detach().bfloat16().requires_grad_()
    assert_same(inputs, 1e-5)


def test_constant_patch_is_finite() -> None:
    inputs = random_inputs()
    inputs["target"] = torch.full_like(inputs["target"], 7.0)
    assert_same(inputs, 1e-5)


def test_large_mean_keeps_the_variance() -> None:
    inputs = random_inputs()
    inputs["target"] = inputs["target"] + 1000
    assert_same(inputs, 1e-3)


def test_patches_without_weight_are_not_used() -> None:
    inputs = random_inputs()
    expected = norm_pix_loss(**inputs)
    unused = inputs["weight"] == 0
    assert unused.any()
    for name in ("pred", "target"):
        inputs[name] = inputs[name].detach().clone()
        inputs[name][unused] = torch.nan
    inputs["pred"].requires_grad_()
    loss = norm_pix_loss(**inputs)
    assert torch.equal(loss, expected)
    loss.backward()
    assert torch.equal(inputs["pred"].grad[unused], torch.zeros_like(inputs["pred"].grad[unused]))
    assert inputs["pred"].grad.isfinite().all()


def test_no_weight_at_all_gives_zero() -> None:
    inputs = random_inputs()
    inputs["weight"] = torch.zeros_like(inputs["weight"])
    loss = norm_pix_loss(**inputs)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(inputs["pred"].grad, torch.zeros_like(inputs["pred"]))


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)], ids=str)
def test_no_patches_give_zero(shape: tuple[int, ...]) -> None:
    inputs = random_inputs(shape=shape)
    loss = norm_pix_loss(**inputs)
    assert loss.item() == 0
    loss.backward()
    assert inputs["pred"].grad.shape == inputs["pred"].shape


def test_one_patch_without_leading_dimensions() -> None:
    inputs = random_inputs(shape=())
    inputs["weight"] = torch.tensor(0.25)
    assert_same(inputs, 1e-5)


def test_one_value_a_patch_without_normalisation() -> None:
    assert_same(random_inputs(values=1), 1e-5, normalize=False)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(normalize: bool) -> None:
    inputs = random_inputs(torch.float64, shape=(2, 3), values=4)
    assert torch.autograd.gradcheck(
        lambda pred: norm_pix_loss(pred, inputs["target"], inputs["weight"], normalize=normalize),
        [inputs["pred"]],
    )


def test_permuted_layouts() -> None:
    inputs = random_inputs()
    for name in ("pred", "target"):
        inputs[name] = inputs[name].detach().permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    inputs["pred"].requires_grad_()
    inputs["weight"] = inputs["weight"].mT.contiguous().mT
    assert_same(inputs, 1e-5)


def test_runs_repeat_to_the_bit() -> None:
    results = []
    for _ in range(3):
        torch.manual_seed(1)
        inputs = random_inputs(shape=(4, 64))
        loss = norm_pix_loss(**inputs)
        loss.backward()
        results.append((loss, inputs["pred"].grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_autocast_changes_nothing() -> None:
    inputs = random_inputs()
    expected = norm_pix_loss(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm_pix_loss(**inputs), expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.lists(st.integers(1, 5), max_size=3),
    values=st.integers(2, 20),
    normalize=st.booleans(),
)
def test_any_shape(seed: int, shape: list[int], values: int, normalize: bool) -> None:
    torch.manual_seed(seed)
    inputs = random_inputs(shape=tuple(shape), values=values)
    inputs["weight"] += 0.1
    assert_same(inputs, 1e-4, normalize=normalize, eps=0.01)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"pred": torch.tensor(1.0)},
            ValueError,
            r"pred must have shape \[..., P\], but got \[\]",
        ),
        (
            {"pred": torch.zeros(2, 3, 4, 1), "target": torch.zeros(2, 3, 4, 1)},
            ValueError,
            r"pred must have at least 2 values a patch, but got \[2, 3, 4, 1\]",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 11)},
            ValueError,
            r"target must have shape \[..., P\] = \[2, 3, 4, 12\], but got \[2, 3, 4, 11\]",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 12, dtype=torch.uint8)},
            TypeError,
            r"target must be a floating-point tensor, but got torch.uint8",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 12, requires_grad=True)},
            ValueError,
            r"target must not require grad: norm_pix_loss gives no gradient for it",
        ),
        (
            {"weight": torch.zeros(2, 3)},
            ValueError,
            r"weight must have shape \[...\] = \[2, 3, 4\], but got \[2, 3\]",
        ),
        (
            {"weight": torch.zeros(2, 3, 4, dtype=torch.int64)},
            TypeError,
            r"weight must be a floating-point tensor, but got torch.int64",
        ),
        (
            {"weight": torch.zeros(2, 3, 4, device="meta")},
            ValueError,
            r"weight must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        norm_pix_loss(**{**random_inputs(), **change})
