"""Transformer layers that the encoder, the decoders and the fusion share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamo_fast import kernels

LAYER_NORM_EPS = 1e-6


@kernels.replaceable
class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence (Vaswani et al., 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None, skip: int = 0) -> Tensor:
        """Attends from the tokens after the first `skip` to all tokens.

        Args:
            x: [B, L, D].
            keep: bool [B, G], which of G equal parts of a sequence may be attended to; None
                admits all.
            skip: Leading tokens that need no output.

        Returns:
            [B, L - skip, D].
        """
        if skip:
            width = x.shape[-1]
            q = F.linear(x[:, skip:], self.qkv.weight[:width], self.qkv.bias[:width])
            k, v = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
        else:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mask = None
        if keep is not None:
            mask = keep.repeat_interleave(x.shape[1] // keep.shape[1], dim=1)[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))


@kernels.replaceable
class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., D] for x [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al., 2021)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        skip: int = 0,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Returns [B, L - skip, D] for x [B, L, D].

        Args:
            x: Tokens.
            keep: As in `SelfAttention.forward`.
            skip: As in `SelfAttention.forward`.
            scales: float [B, 2], what each sequence's attention and MLP are multiplied by, see
                `drop_path_scales`; None for 1.
        """
        y = kernels.residual_attention(x, self.norm1, self.attn, keep, skip)
        y = scaled_branch(x[:, skip:] if skip else x, y, scales, 0)
        return scaled_branch(y, kernels.residual_mlp(y, self.norm2, self.mlp), scales, 1)


def scaled_branch(x: Tensor, y: Tensor, scales: Tensor | None, branch: int) -> Tensor:
    """Returns x + scale * (y - x), where y is x plus what a branch of a block adds to it.

    Args:
        x: [B, ..., D].
        y: Of that shape.
        scales: float [B, branches]; None returns y.
        branch: Column of `scales`.
    """
    if scales is None:
        return y
    scale = scales[:, branch].to(y.dtype).view(-1, *[1] * (y.ndim - 1))
    return torch.lerp(x.to(y.dtype), y, scale)  # of scale 0 and 1 exactly x and y


def drop_path_scales(blocks: int, rate: float, draws: Tensor) -> Tensor:
    """Returns what stochastic depth multiplies each branch by (Huang et al., 2016).

    A branch of block l of L is dropped with probability rate * l / (L - 1), and what is kept is
    divided by the probability of being kept, so that the expectation is that without dropping.

    Args:
        blocks: L, those of the encoder and then those of the fusion.
        rate: That of the last block, at least 0 and below 1.
        draws: Uniform random numbers [B, L, 2], for the attention and the MLP of each block.

    Returns:
        float32 [B, L, 2].
    """
    rates = torch.linspace(0, rate, blocks, dtype=draws.dtype)[:, None]
    return ((draws >= rates) / (1 - rates)).float()


def init_weights(module: nn.Module) -> None:
    """Initialises linear layers as MAE does: Xavier-uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def compute_dtype(device: torch.device, parameter: torch.dtype) -> torch.dtype:
    """Returns the dtype that matrix products run in: autocast's where it is on."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return parameter
