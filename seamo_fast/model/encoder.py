"""The encoder: one ViT, shared by modalities and seasons."""

from __future__ import annotations

from collections.abc import Collection

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

    def forward(self, tokens: Tensor, valid: Tensor | None, scales: Tensor | None = None) -> Tensor:
        """Encodes tokens [B, T, M, K, D]; the shape stays.

        Args:
            tokens: Embedded visible patches.
            valid: bool [B, T, M], groups that exist; None if all do.
            scales: float [B, depth, 2] of stochastic depth, see `drop_path_scales`; None for 1.
        """
        last = len(self.blocks) - 1
        return self.norm(self.after_blocks(tokens, valid, {last}, scales)[last])

    def after_blocks(
        self,
        tokens: Tensor,
        valid: Tensor | None,
        wanted: Collection[int],
        scales: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Returns tokens [B, T, M, K, D] after each wanted block, before the final norm.

        Blocks after the last wanted one do not run. Other arguments as in `forward`.
        """
        x, keep = seasons_as_sequences(tokens, valid)
        found = {}
        for number, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            if scales is None:
                x = block(x, keep)
            else:
                seasons = scales[:, number].repeat_interleave(tokens.shape[1], dim=0)
                x = block(x, keep, scales=seasons)
            if number in wanted:
                found[number] = x.view_as(tokens)
        return found


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
