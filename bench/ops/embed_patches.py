"""embed_patches: arguments, sizes, the formula and the work; read by tests, benches and audit."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import sizes
from bench.ops.work import Audited, Threshold, Work, nbytes, without_memory
from seamo_fast.kernels import embed_patches
from seamo_fast.kernels._dtypes import accumulation

FUNCTION = embed_patches
OUTPUTS = ("tokens",)
GRADIENTS = ("weight", "bias", "table", "offset")  # in the order of the backward operator


class Arguments(NamedTuple):
    """As in the schema."""

    patches: Tensor  # [..., K, P]
    weight: Tensor  # [D, P]
    bias: Tensor | None  # [D]
    table: Tensor  # [N, D]
    index: Tensor  # int [..., K]
    offset: Tensor | None  # [..., D]


def make(
    dtype: torch.dtype = torch.float32,
    *,
    lead: tuple[int, ...] = (2, 3),
    k: int = 4,
    p: int = 6,
    n: int = 9,
    d: int = 5,
) -> Arguments:
    """Random arguments: K patches of P values to tokens of width D, N positions."""
    patches, weight, bias, table, offset = (
        torch.randn(shape).to(dtype) for shape in ((*lead, k, p), (d, p), (d,), (n, d), (*lead, d))
    )
    return Arguments(patches, weight, bias, table, torch.randint(0, n, (*lead, k)), offset)


def formula(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    index: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """``F.linear``, indexing and two sums; rounds after each."""
    tokens = F.linear(patches, weight.to(patches.dtype)) + table[index.long()].to(patches.dtype)
    for more in (bias, None if offset is None else offset.unsqueeze(-2)):
        tokens = tokens if more is None else tokens + more.to(patches.dtype)
    return tokens


def backward_arguments(
    x: Arguments, outputs: tuple[Tensor, ...], grad: Tensor, needed: list[bool]
) -> tuple[Any, ...]:
    """What the backward operator takes."""
    return grad, x.patches, x.index, x.table.shape[0], needed


def at_base(dtype: torch.dtype, *, batch: int = 64) -> Arguments:
    """Shapes alone: samples of the base model, Sentinel-2."""
    lead, width, size = (batch, sizes.SEASONS), sizes.BASE.width, sizes.VALUES
    return Arguments(
        without_memory(*lead, sizes.TOKENS, size, dtype=dtype),
        without_memory(width, size),
        without_memory(width),
        without_memory(sizes.POSITIONS, width),
        without_memory(*lead, sizes.TOKENS, dtype=torch.int32),
        without_memory(*lead, width),
    )


RIVALS = (formula,)


def shape(x: Arguments) -> tuple[int, ...]:
    """Of the tokens."""
    return (*x.index.shape, x.weight.shape[0])


def batch(size: int) -> dict[str, Any]:
    """What ``make`` takes for a batch of that size."""
    return {"lead": (size, 2)}


def computed(x: Arguments) -> list[torch.dtype]:
    """The dtypes that a backend has to compute in."""
    return [x.patches.dtype]


def dtypes(x: Arguments) -> dict[str, torch.dtype]:
    """Of the results of the operators."""
    return {"tokens": x.patches.dtype, **dict.fromkeys(GRADIENTS, accumulation(x.patches))}


def terms(x: Arguments, grad: Tensor) -> dict[str, float]:
    """Sizes of numbers that cancel, where not 1."""
    return {}


def work(x: Arguments, *, both: bool) -> Work:
    """One product of matrices in each direction; the gradients of bias and offset are small."""
    (width, size), rows = x.weight.shape, x.index.numel()
    product = 2 * rows * size * width
    tokens = rows * width * x.patches.element_size()
    once = nbytes(x.patches, x.weight, x.bias, x.offset) + tokens
    if both:
        return Work(2 * product, 2 * once + nbytes(x.table))
    return Work(product, once + nbytes(x.table))


# more than a block in every dimension and a rest: Triton's are 32 to 128, CUDA's 128, its slices of
# the depth 16 or 32; CPU 12 rows, 64 columns, 128 rows of a sum, 256 of its columns
SIZES: tuple[dict[str, Any], ...] = (
    {},
    {"lead": (2, 1), "k": 1},
    {"lead": (1, 1), "k": 1, "p": 1, "d": 1},
    {"p": 1, "d": 1},
    {"k": 33, "p": 70, "d": 66, "n": 70},
    {"k": 64, "p": 64, "d": 64},
    {"lead": (2, 2), "k": 64, "p": 72, "d": 136},
    {"k": 3, "p": 7, "d": 15},
    {"lead": (3,), "k": 97, "p": 130, "d": 200},
    {"n": 1},
)
MANY: tuple[dict[str, Any], ...] = (  # for kernels that are not interpreted
    {"k": 97, "p": 130, "d": 200},
    {"k": 1, "p": 3, "d": 5},
    {"k": 8, "p": 12, "d": 448},
    {"k": 70, "p": 400, "d": 6},
    {"k": 150, "p": 40, "d": 65},
)
EMPTY: tuple[dict[str, Any], ...] = (
    {"lead": (2, 0)},
    {"lead": (0,)},
    {"k": 0},
    {"p": 0},
    {"d": 0},
)
SMALLEST: dict[str, Any] = {
    "lead": (1, 1),
    "k": 2,
    "p": 16,
    "n": 4,
    "d": 8,
}  # where a call costs least
AUDITED = Audited(
    products=("forward", "weight_grad", "tokens", "gradient"),
    more=({"batch": 8},),  # so few patches take smaller blocks
)
THRESHOLDS = (
    Threshold(("small",), ("all patches",), 3),
    Threshold(("small",), ("bare product",), 0.95),
)
