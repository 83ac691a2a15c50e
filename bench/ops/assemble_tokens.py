"""assemble_tokens: arguments, sizes, the formula and the work; read by tests, benches and audit."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import sizes
from bench.ops.work import Audited, Threshold, Work, nbytes, without_memory
from seamo_fast.kernels import assemble_tokens
from seamo_fast.kernels._dtypes import accumulation

FUNCTION = assemble_tokens
OUTPUTS = ("tokens",)
GRADIENTS = ("visible", "mask_token", "table")  # in the order of the backward operator


class Arguments(NamedTuple):
    """As in the schema."""

    visible: Tensor  # [..., K, D]
    mask_token: Tensor  # [D]
    table: Tensor  # [N, D]
    index: Tensor  # int [..., N']


def make(
    dtype: torch.dtype = torch.float32,
    *,
    lead: tuple[int, ...] = (2, 3),
    k: int = 3,
    hidden: int = 4,
    n: int = 9,
    d: int = 16,
) -> Arguments:
    """Random arguments: K visible and some hidden tokens of width D, N positions."""
    visible, mask_token, table = (
        torch.randn(shape).to(dtype) for shape in ((*lead, k, d), (d,), (n, d))
    )
    return Arguments(visible, mask_token, table, torch.randint(0, n, (*lead, k + hidden)))


def formula(visible: Tensor, mask_token: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Concatenation and indexing."""
    hidden = index.shape[-1] - visible.shape[-2]
    masks = mask_token.expand(*index.shape[:-1], hidden, -1)
    return torch.cat([visible, masks], dim=-2) + table[index.long()]


def backward_arguments(
    x: Arguments, outputs: tuple[Tensor, ...], grad: Tensor, needed: list[bool]
) -> tuple[Any, ...]:
    """What the backward operator takes."""
    return grad, x.index, x.visible.shape[-2], x.table.shape[0], needed


def at_base(dtype: torch.dtype) -> Arguments:
    """Shapes alone: 64 samples of the base model, one modality."""
    lead, width = (64, sizes.SEASONS), sizes.BASE.decoder_width
    return Arguments(
        without_memory(*lead, sizes.TOKENS, width, dtype=dtype),
        without_memory(width),
        without_memory(sizes.POSITIONS, width),
        without_memory(*lead, sizes.POSITIONS, dtype=torch.int32),
    )


RIVALS = (formula,)


def shape(x: Arguments) -> tuple[int, ...]:
    """Of the tokens."""
    return (*x.index.shape, x.visible.shape[-1])


def batch(size: int) -> dict[str, Any]:
    """What ``make`` takes for a batch of that size."""
    return {"lead": (size, 2)}


def computed(x: Arguments) -> list[torch.dtype]:
    """The dtypes that a backend has to compute in."""
    return [x.visible.dtype]


def dtypes(x: Arguments) -> dict[str, torch.dtype]:
    """Of the results of the operators."""
    exact = accumulation(x.visible)
    own = x.visible.dtype
    return {"tokens": own, "visible": own, "mask_token": exact, "table": exact}


def terms(x: Arguments, grad: Tensor) -> dict[str, float]:
    """Sizes of numbers that cancel, where not 1."""
    return {}


def work(x: Arguments, *, both: bool) -> Work:
    """Visible tokens and the table are read, a sequence is written; backward the other way."""
    rows, width = x.index.numel(), x.table.shape[1]
    moved = nbytes(x.visible) + rows * width * x.visible.element_size()
    if both:
        return Work(2 * rows * width, 2 * moved + nbytes(x.table))
    return Work(rows * width, moved + nbytes(x.table))


# more than a block in every dimension and a rest: CPU 16 rows in order, 128 of a sum, 256 columns;
# Triton 8 rows and 512 or 1024 columns; CUDA 8 rows, 256 columns
SIZES: tuple[dict[str, Any], ...] = (
    {},
    {"k": 0},
    {"k": 7, "hidden": 0},
    {"lead": (2, 1), "k": 1, "hidden": 0, "n": 1, "d": 1},
    {"lead": (), "d": 513},
    {"lead": (5, 1, 2), "d": 64, "n": 70},
    {"lead": (1,), "d": 264},
    {"lead": (1,), "d": 1030},
    {"lead": (3,), "k": 40, "hidden": 41, "d": 70, "n": 70},
)
MANY: tuple[dict[str, Any], ...] = (  # for kernels that are not interpreted
    {"lead": (2, 3), "k": 97, "hidden": 98, "d": 200, "n": 130},
    {"lead": (2, 3), "k": 1, "hidden": 2, "d": 5, "n": 3},
    {"lead": (2, 3), "k": 70, "hidden": 71, "d": 6, "n": 400},
    {"lead": (2, 3), "k": 8, "hidden": 9, "d": 448, "n": 12},
    {"lead": (2, 3), "k": 150, "hidden": 151, "d": 65, "n": 40},
)
EMPTY: tuple[dict[str, Any], ...] = (
    {"lead": (0,)},
    {"lead": (2, 0)},
    {"k": 0, "hidden": 0},
    {"hidden": 0},
    {"k": 0},
    {"d": 0},
)
SMALLEST: dict[str, Any] = {
    "lead": (1, 1),
    "k": 2,
    "hidden": 2,
    "n": 4,
    "d": 8,
}  # where a call costs least
AUDITED = Audited(
    streams=("forward", "backward", "tokens", "copy"),
    needed=(True, True, False),  # the base model's table is fixed
)
THRESHOLDS = (Threshold(("small",), ("cat", "unshuffle"), 2),)
