"""The same values in other places of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Layout = Callable[[Tensor], Tensor]


def plain(x: Tensor) -> Tensor:
    return x


def reversed_in_memory(x: Tensor) -> Tensor:
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


def sliced(x: Tensor) -> Tensor:
    """Part of a larger tensor, whose other values are not numbers; 16 bytes begin elsewhere."""
    larger = _filled([size + 3 for size in x.shape], x)
    return larger[tuple(slice(1, size + 1) for size in x.shape)].copy_(x)


def of_longer_rows(x: Tensor) -> Tensor:
    """The first rows of longer sequences: 16 bytes begin where they did, blocks lie apart."""
    if x.dim() < 2:
        return x
    larger = _filled([*x.shape[:-2], 2 * x.shape[-2], x.shape[-1]], x)
    return larger[..., : x.shape[-2], :].copy_(x)


def apart(x: Tensor) -> Tensor:
    """Every second value of every second row."""
    steps = tuple(slice(None, None, 2) for _ in x.shape[-2:])
    larger = _filled([*x.shape[:-2], *(2 * size for size in x.shape[-2:])], x)
    return larger[(..., *steps)].copy_(x)


def at_an_odd_address(x: Tensor) -> Tensor:
    return _filled([x.numel() + 1], x)[1:].view(x.shape).copy_(x)


def repeated(x: Tensor) -> Tensor:
    """The first item of all in place of the others: one number of memory twice."""
    return x[:1].expand_as(x) if x.dim() else x


LAYOUTS = (plain, reversed_in_memory, sliced, of_longer_rows, apart, at_an_odd_address, repeated)

# every layout in float32; in the other dtypes those that move rows, and where 16 bytes begin
OF_DTYPES = [
    *((torch.float32, layout) for layout in LAYOUTS),
    *(
        (dtype, layout)
        for dtype in (torch.bfloat16, torch.float16)
        for layout in (reversed_in_memory, sliced, of_longer_rows)
    ),
]


def heads_outside(x: Tensor) -> Tensor:
    """[B, T, M, K, H, d] as a projection of each head may leave it."""
    return x.permute(0, 4, 1, 2, 3, 5).contiguous().permute(0, 2, 3, 4, 1, 5)


def part_of_a_projection(x: Tensor) -> Tensor:
    """[B, T, M, K, H, d] beside the other parts of one projection."""
    wide = _filled([*x.shape[:3], 2 * x.shape[3], x.shape[4], 3 * x.shape[5]], x)
    return wide[:, :, :, ::2, :, x.shape[5] : 2 * x.shape[5]].copy_(x)


def repeated_heads(x: Tensor) -> Tensor:
    return x[:, :, :, :, :1].expand_as(x)


def laid_out(arguments: Any, layout: Layout) -> Any:
    """The tensors of a named tuple, or of a list, in a layout."""
    if isinstance(arguments, Tensor):
        return layout(arguments)
    if isinstance(arguments, list):
        return [laid_out(x, layout) for x in arguments]
    if hasattr(arguments, "_fields"):
        return type(arguments)(*(laid_out(x, layout) for x in arguments))
    return arguments


def _filled(shape: list[int], like: Tensor) -> Tensor:
    fill = torch.nan if like.is_floating_point() else 1
    return torch.full(shape, fill, dtype=like.dtype, device=like.device)
