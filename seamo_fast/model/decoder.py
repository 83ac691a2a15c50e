"""The decoder of one modality, shared by its seasons.

What changes here changes in its mirrors too: `reference.py` (the same mathematics),
`model/flops.py` (FLOPs), `training/dry_run.py` (memory), `model/weights.py` (parameter names).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamo_fast import kernels
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.embedding import sincos_positions
from seamo_fast.model.layers import LAYER_NORM_EPS, Block


class Decoder(nn.Module):
    """Predicts the hidden patches of each image from its encoded visible ones.

    Tokens stay in the order visible, hidden; nothing is shuffled back, since positions travel
    with the tokens. The last block works for the hidden tokens only.
    """

    table: Tensor

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_heads, config.mlp_ratio)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, channels * config.patch_size**2)
        table = sincos_positions(width, config.grid, config.grid)
        self.register_buffer("table", table, persistent=False)

    def forward(self, z: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Returns predicted patches [B, T, Kh, P].

        Args:
            z: [B, T, K, D], encoded visible tokens.
            visible: [B, T, K], their patch numbers.
            hidden: [B, T, Kh], numbers of the patches to predict.
        """
        tokens = self.embed(z)
        index = torch.cat([visible, hidden], dim=-1)
        x = kernels.assemble_tokens(tokens, self.mask_token, self.table, index).flatten(0, 1)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, skip=visible.shape[-1])
        return self.head(self.norm(x)).unflatten(0, hidden.shape[:2])
