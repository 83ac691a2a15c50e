"""The checks of the inputs of kernels: what passes, and the exact message of what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from seamo_fast.kernels import _checks

WRONG: dict[str, tuple[Callable[..., None], tuple[Any, ...], type[Exception], str]] = {
    "a size": (
        _checks.shape, ("x", torch.zeros(2, 3), "B, T", (2, 4)), ValueError,
        "x must have shape [B, T] = [2, 4], but got [2, 3]",
    ),
    "the first of two sizes": (
        _checks.shape, ("x", torch.zeros(2, 3), "B, T", (1, 3)), ValueError,
        "x must have shape [B, T] = [1, 3], but got [2, 3]",
    ),
    "a size beside one that may be any": (
        _checks.shape, ("x", torch.zeros(2, 3), "B, T", (None, 4)), ValueError,
        "x must have shape [B, T] = [*, 4], but got [2, 3]",
    ),
    "the number of dimensions": (
        _checks.shape, ("x", torch.zeros(2), "B, T", (2, None)), ValueError,
        "x must have shape [B, T] = [2, *], but got [2]",
    ),
    "too few dimensions": (
        _checks.rank, ("x", torch.zeros(2), "K, D", 2), ValueError,
        "x must have shape [..., K, D], but got [2]",
    ),
    "integers": (
        _checks.floating, ("x", torch.zeros(2, dtype=torch.int64)), TypeError,
        "x must be a floating-point tensor, but got torch.int64",
    ),
    "floats": (
        _checks.integer, ("x", torch.zeros(2)), TypeError,
        "x must be int32 or int64, but got torch.float32",
    ),
    "short integers": (
        _checks.integer, ("x", torch.zeros(2, dtype=torch.int16)), TypeError,
        "x must be int32 or int64, but got torch.int16",
    ),
    "no booleans": (
        _checks.boolean, ("x", torch.zeros(2, dtype=torch.uint8)), TypeError,
        "x must be bool, but got torch.uint8",
    ),
    "another device": (
        _checks.same_device, ("x", torch.zeros(2, device="meta"), torch.device("cpu")), ValueError,
        "x must be on cpu like the first input, but got meta",
    ),
    "another dtype": (
        _checks.same_dtype, ("x", torch.zeros(2), "y", torch.float64), TypeError,
        "x must be torch.float64 like y, but got torch.float32",
    ),
    "a gradient": (
        _checks.constant, ("x", torch.zeros(2, requires_grad=True), "op"), ValueError,
        "x must not require grad: op gives no gradient for it",
    ),
    "a number below": (
        _checks.in_range, ("x", torch.tensor([3, -1]), 4), IndexError,
        "x must hold patch numbers in [0, 4), but got -1",
    ),
    "a number beyond": (
        _checks.in_range, ("x", torch.tensor([0, 4]), 4), IndexError,
        "x must hold patch numbers in [0, 4), but got 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    check, arguments, kind, message = WRONG[name]
    with pytest.raises(kind) as caught:
        check(*arguments)
    assert str(caught.value) == message


def test_what_is_right_passes() -> None:
    x = torch.zeros(2, 3)
    _checks.shape("x", x, "B, T", (2, 3))
    _checks.shape("x", x, "B, T", (None, 3))
    _checks.shape("x", x[:0], "B, T", (0, None))
    _checks.rank("x", x, "K, D", 2)
    _checks.floating("x", x.half())
    for dtype in (torch.int32, torch.int64):
        _checks.integer("x", x.to(dtype))
    _checks.boolean("x", x > 0)
    _checks.same_device("x", x, torch.device("cpu"))
    _checks.same_dtype("x", x, "y", torch.float32)
    _checks.constant("x", x, "op")
    _checks.in_range("x", torch.tensor([0, 3]), 4)
    _checks.in_range("x", torch.tensor([], dtype=torch.int64), 0)
    _checks.in_range("x", torch.zeros(1, dtype=torch.int64, device="meta"), 0)


def test_a_gradient_that_nobody_takes_is_no_fault() -> None:
    with torch.no_grad():
        _checks.constant("x", torch.zeros(2, requires_grad=True), "op")
