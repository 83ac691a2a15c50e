"""How far from float64 a kernel may be: no further than PyTorch in the same dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def moved(value: Any, device: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """A tensor, or all of a list or named tuple, on a device, floating-point ones in a dtype."""
    if hasattr(value, "_fields"):
        return type(value)(*(moved(x, device, dtype) for x in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(x, device, dtype) for x in value)
    if not isinstance(value, Tensor):
        return value
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None)


def distance(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double().cpu() - exact.double().cpu()).norm())


def largest(actual: Tensor, exact: Tensor) -> float:
    found = (actual.double().cpu() - exact.double().cpu()).abs()
    return float(found.max()) if found.numel() else 0.0


def assert_within_budget(
    actual: dict[str, Tensor],
    exact: dict[str, Tensor],
    *others: dict[str, Tensor],
    terms: dict[str, float] | None = None,
    rounded: bool = False,
) -> None:
    """|actual - exact| <= |best of others - exact| + eps for each named tensor.

    eps is two rounding errors, of the result or of terms that cancel in float32 (float64 for
    float64), of size 1 or what ``terms`` says. The norm has to keep it, and with more room the
    worst element, which a norm can hide. ``rounded``: terms are rounded to the dtype of the result
    before they cancel, which those of ``others`` need not be.
    """
    for name, value in actual.items():
        size = (terms or {}).get(name, 1.0)
        assert value.shape == exact[name].shape, name
        assert value.is_contiguous(), name
        best = min(distance(other[name], exact[name]) for other in others if name in other)
        rounding = torch.finfo(value.dtype).eps * float(exact[name].double().norm())
        accumulated = torch.promote_types(value.dtype, value.dtype if rounded else torch.float32)
        cancelling = torch.finfo(accumulated).eps * value.numel() ** 0.5 * size
        eps = 2 * max(rounding, cancelling)
        assert distance(value, exact[name]) <= best + eps, name
        worst = min(largest(other[name], exact[name]) for other in others if name in other)
        scale = max(size, float(exact[name].double().abs().max())) if value.numel() else size
        room = (4 if value.dtype in HALF else 64) * torch.finfo(value.dtype).eps * scale
        assert largest(value, exact[name]) <= 2 * worst + room, name
