"""assemble_tokens: visible tokens, then mask tokens, each with its position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _checks
from .._dtypes import accumulation
from .._registry import define, implement


def _fake(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor:
    return visible.new_empty((*index.shape, visible.shape[-1]))


def _fake_backward(
    grad: Tensor, index: Tensor, count: int, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    *lead, _, width = grad.shape
    exact = accumulation(grad)
    return (
        grad.new_empty((*lead, count, width) if needed[0] else (0,)),
        grad.new_empty((width,) if needed[1] else (0,), dtype=exact),
        grad.new_empty((positions, width) if needed[2] else (0,), dtype=exact),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    visible, _, table, index = inputs
    ctx.save_for_backward(index)
    ctx.count, ctx.positions = visible.shape[-2], table.shape[0]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:3])
    (index,) = ctx.saved_tensors
    grads = _backward(grad, index, ctx.count, ctx.positions, needed)
    # autograd rounds to the dtypes of the inputs
    return *(g if wanted else None for g, wanted in zip(grads, needed, strict=True)), None


def _check(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> None:
    _checks.rank("visible", visible, "K, D", 2)
    *lead, count, width = visible.shape
    _checks.shape("mask_token", mask_token, "D", (width,))
    _checks.shape("table", table, "N, D", (None, width))
    _checks.shape("index", index, "..., N'", (*lead, None))
    if index.shape[-1] < count:
        raise ValueError(
            f"index must number the {int(count)} visible tokens and the hidden ones, "
            f"but got {int(index.shape[-1])} numbers"
        )
    _checks.integer("index", index)
    for name, tensor in (("visible", visible), ("mask_token", mask_token), ("table", table)):
        _checks.floating(name, tensor)
        _checks.same_device(name, tensor, visible.device)
    _checks.same_device("index", index, visible.device)


_forward = define(
    "assemble_tokens",
    "forward",
    "assemble_tokens(Tensor visible, Tensor mask_token, Tensor table, Tensor index) -> Tensor",
    _fake,
    _differentiate,
    _setup_context,
    check=_check,
)
# a gradient that is not needed (visible, mask_token, table) comes back as an empty tensor
_backward = define(
    "assemble_tokens",
    "backward",
    "_assemble_tokens_backward(Tensor grad, Tensor index, SymInt count, SymInt positions, "
    "bool[] needed) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
implement(__name__, "reference", "cpu", "triton", "cuda")


def assemble_tokens(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Builds the sequence of a decoder: visible tokens, then mask tokens, with their positions.

    Row j is ``visible[..., j, :] + table[index[..., j]]`` for the first K rows and
    ``mask_token + table[index[..., j]]`` for the others, added in float32 (float64 if ``visible``
    is) and rounded once to the dtype of ``visible``. Inputs may differ in dtype; autocast changes
    nothing. Differentiable in visible, mask_token and table.

    Equivalent to::

        hidden = mask_token.expand(*index.shape[:-1], index.shape[-1] - K, D)
        tokens = torch.cat([visible, hidden], dim=-2) + table[index]

    Args:
        visible: [..., K, D], float.
        mask_token: [D], float.
        table: [N, D], float: one row for each position.
        index: [..., N'], int32 or int64 with N' >= K: positions of the visible tokens, then of the
            hidden ones.

    Returns:
        Tokens [..., N', D] in the dtype of ``visible``.

    Raises:
        ValueError: wrong shape or device.
        TypeError: wrong dtype.
        IndexError: a position outside the table (on the CPU; elsewhere undefined).
    """
    return _forward(visible, mask_token, table, index)
