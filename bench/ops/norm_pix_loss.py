"""norm_pix_loss: arguments, sizes, the formula and the work; read by tests, benches and audit."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import sizes
from bench.ops.work import Audited, Threshold, Work, nbytes, without_memory
from seamo_fast.kernels import norm_pix_loss
from seamo_fast.kernels._dtypes import accumulation

FUNCTION = norm_pix_loss
OUTPUTS = ("loss", "total")
GRADIENTS = ("pred",)


class Arguments(NamedTuple):
    """As in the schema."""

    pred: Tensor  # [..., P]
    target: Tensor  # [..., P]
    weight: Tensor  # [...]
    normalize: bool = True
    eps: float = 1e-6


def make(
    dtype: torch.dtype = torch.float32,
    *,
    lead: tuple[int, ...] = (3, 5),
    p: int = 48,
    normalize: bool = True,
    eps: float = 1e-6,
) -> Arguments:
    """Random arguments: patches of P values, about a third of them without weight, never all."""
    pred, target = torch.randn(*lead, p), torch.randn(*lead, p) * 3 + 1
    weight = torch.rand(lead) * (torch.rand(lead) < 0.7)
    if weight.numel() and not weight.any():
        weight = torch.rand(lead)
    return Arguments(pred.to(dtype), target.to(dtype), weight, normalize, eps)


def formula(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: bool = True, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """That of masked autoencoders; a patch without weight may hold anything."""
    exact = torch.float64 if pred.dtype == torch.float64 else torch.float32
    pred, target, weight = pred.to(exact), target.to(exact), weight.to(exact)
    if normalize:
        mean = target.mean(dim=-1, keepdim=True)
        var = target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + eps) ** 0.5
    loss = ((pred - target) ** 2).mean(dim=-1)
    total = weight.sum()
    # where no patch counts: zero, and zero gradients
    return (loss * weight).sum() / torch.where(total == 0, 1, total), total


def backward_arguments(
    x: Arguments, outputs: tuple[Tensor, ...], grad: Tensor, needed: list[bool]
) -> tuple[Any, ...]:
    """What the backward operator takes."""
    return grad, *x[:3], outputs[1], *x[3:]


def at_base(dtype: torch.dtype, *, goal: torch.dtype | None = None) -> Arguments:
    """Shapes alone: 64 samples of the base model, Sentinel-2; ``goal``: the dtype of targets."""
    lead = (64, sizes.SEASONS, sizes.POSITIONS - sizes.TOKENS)
    pred = without_memory(*lead, sizes.VALUES, dtype=dtype)
    return Arguments(pred, pred.to(goal or dtype), without_memory(*lead, dtype=torch.bool))


RIVALS = (formula,)


def shape(x: Arguments) -> tuple[int, ...]:
    """Of the loss: one number."""
    return ()


def batch(size: int) -> dict[str, Any]:
    """What ``make`` takes for a batch of that size."""
    return {"lead": (size, 3)}


def computed(x: Arguments) -> list[torch.dtype]:
    """The dtypes that a backend has to compute in."""
    return [x.pred.dtype, x.target.dtype]


def dtypes(x: Arguments) -> dict[str, torch.dtype]:
    """Of the results of the operators."""
    exact = accumulation(x.pred, x.target)
    return {"loss": exact, "total": exact, "pred": x.pred.dtype}


def terms(x: Arguments, grad: Tensor) -> dict[str, float]:
    """Sizes of numbers that cancel, where not 1."""
    return {}


def work(x: Arguments, *, both: bool) -> Work:
    """One pass can do both directions: the backward pass adds no more than the gradient."""
    read, values = nbytes(x.pred, x.target), x.pred.numel()
    return Work(11 * values, read + nbytes(x.pred)) if both else Work(8 * values, read)


# CPU: 16 patches of a block, 16 values of a vector; Triton: all values of a patch, 4096 of a block;
# CUDA: 8 patches of a block, 256 values of a warp
SIZES: tuple[dict[str, Any], ...] = (
    *({"p": p} for p in (2, 13, 48, 64, 264, 1025, 5000)),
    {"lead": ()},
    {"lead": (1,)},
    {"lead": (2, 3, 4, 5), "p": 12},
)
LEADS: tuple[tuple[int, ...], ...] = ((2, 3, 4, 5), (2, 3, 4, 50))
MANY: tuple[dict[str, Any], ...] = (  # for kernels that are not interpreted
    {"lead": (2, 3, 97), "p": 131},
    {"lead": (2, 3, 1), "p": 4},
    {"lead": (2, 3, 70), "p": 401},
    {"lead": (2, 3, 150), "p": 41},
)
EMPTY: tuple[dict[str, Any], ...] = ({"lead": (0,)}, {"lead": (2, 0)}, {"lead": (2, 0, 3)})
SMALLEST: dict[str, Any] = {"lead": (1, 1, 2), "p": 16}  # where a call costs least
AUDITED = Audited(
    streams=("forward", "backward", "loss", "gradient"),
    more_cuda=(
        {"dtype": torch.bfloat16, "goal": torch.float32},
        {"dtype": torch.float16, "goal": torch.float32},
    ),
)
THRESHOLDS = (
    Threshold(("s2l2a",), ("eager",), 4),
    Threshold(("s2l2a",), ("eager compiled",), 1.5),
)
