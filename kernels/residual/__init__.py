"""residual_attention and residual_mlp: the two branches of a transformer block, in eager mode.

Layers of PyTorch are their reference, and run wherever these functions return None: on GPUs, in
other dtypes, under autocast, and where a compiler, a mode or a transform has to see the operators.
"""

from __future__ import annotations

from torch import Tensor, nn

from .._registry import implement, unobserved

for _op in ("residual_attention", "residual_mlp"):
    implement(_op, "cpu", f"{__name__}.cpu_impl")
    implement(_op, "reference", "torch.nn")


def residual_attention(
    x: Tensor,
    norm: nn.LayerNorm,
    qkv: nn.Linear,
    proj: nn.Linear,
    heads: int,
    keep: Tensor | None = None,
    skip: int = 0,
) -> Tensor | None:
    """Returns ``x[:, skip:] + proj(attention(qkv(norm(x)))[:, skip:])``, if a kernel can.

    Sequences pass some at a time, so that what lies between the products stays in the cache;
    queries, keys and values are read where their projection left them. Differentiable once, in x
    and the parameters.

    Args:
        x: [B, L, D], float32 on the CPU.
        norm: over D, with weight and bias.
        qkv: from D to 3 D: queries, keys, values, each head by head.
        proj: from D to D.
        heads: divides D.
        keep: bool [B, G], which of G equal parts of a sequence may be attended to; None: all. A
            sequence without any gives x + proj(0).
        skip: leading tokens that need no output.

    Returns:
        [B, L - skip, D]; None if the layers themselves have to run.
    """
    arguments = (
        x, norm.weight, norm.bias, qkv.weight, qkv.bias, proj.weight, proj.bias, keep, heads, skip,
        norm.eps,
    )  # fmt: skip
    return _run("residual_attention", arguments)


def residual_mlp(x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor | None:
    """Returns ``x + fc2(gelu(fc1(norm(x))))``, with the exact GELU, if a kernel can.

    Rows pass some at a time, so that what the GELU gives stays in the cache. It is found again in
    the backward pass, from what it took. Differentiable once, in x and the parameters.

    Args:
        x: [..., D], float32 on the CPU.
        norm: over D, with weight and bias.
        fc1: from D to any width.
        fc2: back to D.

    Returns:
        [..., D]; None if the layers themselves have to run.
    """
    arguments = (
        x, norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, norm.eps
    )  # fmt: skip
    return _run("residual_mlp", arguments)


def _run(op: str, arguments: tuple[object, ...]) -> Tensor | None:
    if any(argument is None for argument in arguments[:7]):
        return None
    function = unobserved(op, arguments)
    return None if function is None else function(*arguments)
