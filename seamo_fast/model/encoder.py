"""The encoder: one ViT, shared by modalities and seasons."""

from __future__ import annotations

from torch import Tensor, nn

from seamo_fast.model.config import ModelConfig
from seamo_fast.model.layers import LAYER_NORM_EPS, Block


class Encoder(nn.Module):
    """Joint self-attention over all tokens of one season (SeaMo, unified encoder)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Encodes tokens [B, T, M, K, D]; the shape stays.

        Args:
            tokens: Embedded visible patches.
            valid: bool [B, T, M], groups that exist; None if all do.
        """
        x, keep = seasons_as_sequences(tokens, valid)
        for block in self.blocks:
            x = block(x, keep)
        return self.norm(x).view_as(tokens)


def seasons_as_sequences(tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Returns tokens [B*T, M*K, D] and the groups that may be seen, bool [B*T, M] or None.

    A season without any valid group admits all its groups: its output is never used, and a softmax
    over nothing would be NaN.
    """
    x = tokens.flatten(0, 1).flatten(1, 2)
    if valid is None:
        return x, None
    keep = valid | ~valid.any(dim=2, keepdim=True)
    return x, keep.flatten(0, 1)
