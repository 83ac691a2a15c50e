"""TM fusion: cross-attention between the groups of a sample, after the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamo_fast import kernels
from seamo_fast.model.config import FusionMode, ModelConfig
from seamo_fast.model.layers import LAYER_NORM_EPS, Mlp, scaled_branch


def group_adjacency(
    mode: FusionMode, seasons: int, modalities: int, window: int | None, device: torch.device
) -> Tensor:
    """Returns which key groups each query group attends to, bool [T*M, T*M].

    Args:
        mode: `tm`, `temporal`, `modal` or `concat`, see `ModelConfig.fusion`.
        seasons: T.
        modalities: M.
        window: Largest |t - t'| of temporal links; None admits all.
        device: Where the result lives.
    """
    group = torch.arange(seasons * modalities, device=device)
    season, modality = group // modalities, group % modalities
    distance = (season[:, None] - season[None]).abs()
    same_modality = modality[:, None] == modality[None]
    if mode == "concat":
        return torch.ones_like(same_modality)
    temporal = same_modality & (distance > 0)
    if window is not None:
        temporal = temporal & (distance <= window)
    modal = (distance == 0) & ~same_modality
    return {"temporal": temporal, "modal": modal}.get(mode, temporal | modal)


class GroupAttention(nn.Module):
    """Projections around `kernels.tm_attention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, adjacency: Tensor, valid: Tensor) -> Tensor:
        """Returns [B, T, M, K, D] for queries and keys [B, T, M, K, D]."""
        q = self.q(queries).unflatten(-1, (self.heads, -1))
        k, v = self.kv(keys).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.proj(kernels.tm_attention(q, k, v, adjacency, valid).flatten(-2))


class FusionBlock(nn.Module):
    """Pre-norm block whose attention runs between groups: all groups at once."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = GroupAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))

    def forward(
        self, z: Tensor, adjacency: Tensor, valid: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Returns [B, T, M, K, D] for z of that shape.

        Args:
            z: Tokens.
            adjacency: bool [T*M, T*M].
            valid: bool [B, T, M].
            scales: float [B, 2] of stochastic depth, see `Block.forward`; None for 1.
        """
        normed = self.norm1(z)
        z = scaled_branch(z, z + self.attn(normed, normed, adjacency, valid), scales, 0)
        return scaled_branch(z, kernels.residual_mlp(z, self.norm2, self.mlp), scales, 1)


class CascadeBlock(FusionBlock):
    """Season by season: cross-modal attention, with the previous season's result carried in.

    The second published description of the TM block: queries are merged with the previous
    season's features by a linear layer. Tokens are merged by their rank among the visible ones.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.carry = nn.Linear(2 * config.width, config.width)

    def forward(
        self, z: Tensor, adjacency: Tensor, valid: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Returns [B, T, M, K, D] for z of that shape; adjacency [M, M], others as above."""
        results: list[Tensor] = []
        previous, seen = z[:, :1], torch.zeros_like(valid[:, :1])
        for season in range(z.shape[1]):
            now = slice(season, season + 1)
            queries = z[:, now]
            if season:
                carried = self.carry(torch.cat([queries, previous], dim=-1))
                queries = torch.where(seen[..., None, None], carried, queries)
            keys = self.norm1(z[:, now])
            u = queries + self.attn(self.norm1(queries), keys, adjacency, valid[:, now])
            u = scaled_branch(queries, u, scales, 0)
            u = scaled_branch(u, kernels.residual_mlp(u, self.norm2, self.mlp), scales, 1)
            results.append(u)
            previous = torch.where(valid[:, now, :, None, None], u, previous)
            seen = seen | valid[:, now]
        return torch.cat(results, dim=1)


class Fusion(nn.Module):
    """The stack of fusion blocks and its final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mode = config.fusion
        self.window = config.fusion_window
        block = CascadeBlock if config.fusion == "cascade" else FusionBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, z: Tensor, valid: Tensor, scales: Tensor | None = None) -> Tensor:
        """Fuses z [B, T, M, K, D]; the shape stays.

        Args:
            z: Encoded tokens.
            valid: bool [B, T, M], groups that exist.
            scales: float [B, fusion_depth, 2] of stochastic depth, see `drop_path_scales`; None
                for 1.
        """
        _, seasons, modalities = valid.shape
        if self.mode == "cascade":
            adjacency = group_adjacency("modal", 1, modalities, None, z.device)
        else:
            adjacency = group_adjacency(self.mode, seasons, modalities, self.window, z.device)
        for number, block in enumerate(self.blocks):
            z = block(z, adjacency, valid, None if scales is None else scales[:, number])
        return self.norm(z)
