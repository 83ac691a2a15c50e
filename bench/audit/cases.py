"""The calls that the audit looks at: every operation, in both directions, at the base shape.

Tensors have no memory (device "meta"): a backend computes its launches from shapes and strides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.sizes import BASE, IMAGE, MODALITIES, PATCH, POSITIONS, SEASONS, TOKENS, VALUES

_B, _T, _M, _K, _N, _P = 64, SEASONS, MODALITIES, TOKENS, POSITIONS, VALUES
_D, _DECODER = BASE.width, BASE.decoder_width
_FEW = 8  # samples: so few patches that embed_patches takes smaller blocks
_WIDTHS = (32, 48, 64, 80, 96, 128)


class Case(NamedTuple):
    """An operation called in both directions with inputs of one kind."""

    op: str
    inputs: str  # what distinguishes them; the dtype comes first
    call: Callable[[Any], None]  # takes the module of a backend


def cases(*, quick: bool = False) -> list[Case]:
    """What is called; ``quick``: in bfloat16 alone, with heads of 64."""
    found = _at_base_shape(torch.bfloat16)
    if quick:
        return found
    for dtype in (torch.float16, torch.float32):
        found += _at_base_shape(dtype)
    half = torch.bfloat16
    found.append(
        Case("embed_patches", f"bfloat16 B={_FEW}", lambda module: _embed(module, half, _FEW))
    )
    # few tokens and many have configurations of their own; 100: blocks are cut
    shapes = {(width, tokens) for width in _WIDTHS for tokens in (64, 100)}
    shapes |= {(width, tokens) for width in (64, 96) for tokens in (16, 32)}
    return found + [_attention(half, *shape) for shape in sorted(shapes - {(64, 64)})]


def others() -> list[Case]:
    """Other dtypes: few of them are for Triton, where each takes a compilation of its own."""
    stored = (torch.int16, torch.uint8, torch.float16, torch.float32)
    found = [
        Case("gather_patches", f"bfloat16 of {_short(dtype)}", partial(_gather, stored=dtype))
        for dtype in stored
    ]
    for dtype in (torch.bfloat16, torch.float16):
        inputs = f"{_short(dtype)} to float32"
        found.append(Case("norm_pix_loss", inputs, partial(_loss, dtype=dtype, goal=torch.float32)))
    shapes = [(width, 64) for width in _WIDTHS if width != 64]
    dtypes = (torch.float16, torch.float32)
    return found + [_attention(dtype, *shape) for dtype in dtypes for shape in shapes]


def _at_base_shape(dtype: torch.dtype) -> list[Case]:
    calls = {
        "embed_patches": _embed,
        "assemble_tokens": _assemble,
        "norm_pix_loss": _loss,
        "gather_patches": _gather,
    }
    found = [Case(op, _short(dtype), partial(call, dtype=dtype)) for op, call in calls.items()]
    return [*found, _attention(dtype, 64, 64)]


def _attention(dtype: torch.dtype, width: int, tokens: int) -> Case:
    def call(module: Any) -> None:
        heads = _D // width
        q = _like(_B, _T, _M, tokens, heads, width, dtype=dtype)
        # keys and values as one projection leaves them
        k, v = _like(_B, _T, _M, tokens, 2, heads, width, dtype=dtype).unbind(4)
        groups = _like(_T * _M, _T * _M, dtype=torch.bool)
        valid = _like(_B, _T, _M, dtype=torch.bool)
        out, lse = module.forward(q, k, v, groups, valid)
        module.backward(out, q, k, v, out, lse, groups, valid)

    return Case("tm_attention", f"{_short(dtype)} d={width} K={tokens}", call)


def _embed(module: Any, dtype: torch.dtype, batch: int = _B) -> None:
    patches = _like(batch, _T, _K, _P, dtype=dtype)
    index = _like(batch, _T, _K, dtype=torch.int32)
    table, offset = _like(_N, _D), _like(batch, _T, _D)
    tokens = module.forward(patches, _like(_D, _P), _like(_D), table, index, offset)
    module.backward(tokens, patches, index, _N, [True] * 4)


def _assemble(module: Any, dtype: torch.dtype) -> None:
    visible, index = (
        _like(_B, _T, _K, _DECODER, dtype=dtype),
        _like(_B, _T, _N, dtype=torch.int32),
    )
    tokens = module.forward(visible, _like(_DECODER), _like(_N, _DECODER), index)
    module.backward(tokens, index, _K, _N, [True, True, False])


def _loss(module: Any, dtype: torch.dtype, goal: torch.dtype | None = None) -> None:
    pred = _like(_B, _T, _N - _K, _P, dtype=dtype)
    target = pred if goal is None else pred.to(goal)
    weight = _like(_B, _T, _N - _K, dtype=torch.bool)
    loss, total = module.forward(pred, target, weight, True, 1e-6)
    module.backward(loss, pred, target, weight, total, True, 1e-6)


def _gather(
    module: Any, dtype: torch.dtype = torch.bfloat16, stored: torch.dtype = torch.uint16
) -> None:
    bands = [
        _like(_B, _T, count, side, side, dtype=stored)
        for count, side in ((4, 264), (6, 132), (2, 44))
    ]
    index = _like(_B, _T, _K, dtype=torch.int32)
    statistics = (_like(12), _like(12), range(12))
    module.forward(bands, _like(_B, _T, 4), index, *statistics, (IMAGE, IMAGE), PATCH, 0.0, dtype)


def _like(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
