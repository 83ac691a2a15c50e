"""The two branches of a transformer block: `residual_attention` and `residual_mlp` in turn."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from bench.kernels import common
from bench.ops.work import Work
from bench.sizes import MODALITIES, SEASONS
from seamo_fast.model.layers import Block


class Inputs(NamedTuple):
    """Of the encoder: the tokens of a season's modalities are a sequence."""

    x: Tensor  # [B * T, M * K, D]
    block: Block
    grad: Tensor


def inputs_of(case: common.Case) -> Inputs:
    """Weights as PyTorch initialises them."""
    model = case.model
    shape = (case.batch * SEASONS, MODALITIES * case.tokens, model.width)
    x, grad = common.randoms(shape, shape)
    block = Block(model.width, model.heads, model.mlp_ratio)
    return Inputs(x, block.to(common.device()), grad)


def ours(x: Inputs) -> Tensor:
    """The block under test."""
    return x.block(x.x)


def layers(x: Inputs) -> Tensor:
    """PyTorch's functions, as in the code of vision transformers."""
    block, attn, mlp = x.block, x.block.attn, x.block.mlp
    packed = F.linear(block.norm1(x.x), attn.qkv.weight, attn.qkv.bias)
    q, k, v = packed.unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
    heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    tokens = x.x + F.linear(heads, attn.proj.weight, attn.proj.bias)
    hidden = F.linear(block.norm2(tokens), mlp.fc1.weight, mlp.fc1.bias)
    return tokens + F.linear(F.gelu(hidden), mlp.fc2.weight, mlp.fc2.bias)


def work(x: Inputs, *, both: bool) -> Work:
    """The products, thrice for both directions; tokens and weights are read, tokens written."""
    tokens, width = x.x.shape[1], x.x.shape[2]
    weights = sum(parameter.numel() for parameter in x.block.parameters())
    matrices = sum(parameter.numel() for parameter in x.block.parameters() if parameter.ndim > 1)
    products = 2 * x.x.shape[0] * tokens * (matrices + 2 * tokens * width)
    once = 4 * (2 * x.x.numel() + weights)
    return Work(3 * products, 2 * once) if both else Work(products, once)
