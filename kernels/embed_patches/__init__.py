"""embed_patches: projection, position and group offset of each patch in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _checks
from .._dtypes import accumulation
from .._registry import define, implement


def _fake(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor:
    return patches.new_empty((*patches.shape[:-1], weight.shape[0]))


def _fake_backward(
    grad: Tensor, patches: Tensor, index: Tensor, positions: int, needed: Sequence[bool]
) -> tuple[Tensor, ...]:
    width = grad.shape[-1]
    shapes = ((width, patches.shape[-1]), (width,), (positions, width), (*grad.shape[:-2], width))
    exact = accumulation(patches)
    return tuple(
        grad.new_empty(shape if wanted else (0,), dtype=exact)
        for shape, wanted in zip(shapes, needed, strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[4])
    ctx.positions = inputs[3].size(0)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    patches, index = ctx.saved_tensors
    _, *needed, _, offset_needed = ctx.needs_input_grad
    needed.append(offset_needed)
    grads = _backward(grad, patches, index, ctx.positions, needed)
    # autograd rounds to the dtypes of the inputs
    weight, bias, table, offset = (
        g if wanted else None for g, wanted in zip(grads, needed, strict=True)
    )
    return None, weight, bias, table, None, offset


def _check(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> None:
    _checks.rank("patches", patches, "K, P", 2)
    *lead, count, size = patches.shape
    _checks.shape("weight", weight, "D, P", (None, size))
    width = weight.shape[0]
    _checks.shape("table", table, "N, D", (None, width))
    _checks.shape("index", index, "..., K", (*lead, count))
    _checks.integer("index", index)
    _checks.same_device("index", index, patches.device)
    _checks.constant("patches", patches, "embed_patches")
    if bias is not None:
        _checks.shape("bias", bias, "D", (width,))
    if offset is not None:
        _checks.shape("offset", offset, "..., D", (*lead, width))
    names = ("patches", "weight", "bias", "table", "offset")
    for name, tensor in zip(names, (patches, weight, bias, table, offset), strict=True):
        if tensor is not None:
            _checks.floating(name, tensor)
            _checks.same_device(name, tensor, patches.device)


_forward = define(
    "embed_patches",
    "forward",
    "embed_patches(Tensor patches, Tensor weight, Tensor? bias, Tensor table, Tensor index, "
    "Tensor? offset) -> Tensor",
    _fake,
    _differentiate,
    _setup_context,
    check=_check,
)
# a gradient that is not needed (weight, bias, table, offset) comes back as an empty tensor
_backward = define(
    "embed_patches",
    "backward",
    "_embed_patches_backward(Tensor grad, Tensor patches, Tensor index, SymInt positions, "
    "bool[] needed) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)
implement(__name__, "reference", "cpu", "triton", "cuda")


def embed_patches(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """Projects patches to tokens and adds their positions and the offset of their group.

    ``tokens = patches @ weight.T + bias + table[index] + offset[..., None, :]``, accumulated in
    float32 (float64 for float64 patches) and rounded once to the dtype of ``patches``. Inputs may
    differ in dtype; autocast changes nothing. Differentiable in weight, bias, table and offset.

    Equivalent to::

        tokens = F.linear(patches, weight, bias) + table[index] + offset.unsqueeze(-2)

    Args:
        patches: [..., K, P], float: what :func:`gather_patches` returns.
        weight: [D, P], float: a Conv2d patch-embedding weight, flattened.
        bias: [D], float, or None.
        table: [N, D], float: one row for each position.
        index: [..., K], int32 or int64: positions of the patches.
        offset: [..., D], float: one vector for each group, or None.

    Returns:
        Tokens [..., K, D] in the dtype of ``patches``.

    Raises:
        ValueError: wrong shape or device, or ``patches`` requires grad.
        TypeError: wrong dtype.
        IndexError: a position outside the table (on the CPU; elsewhere undefined).
    """
    return _forward(patches, weight, bias, table, index, offset)
