"""Model FLOPs from shapes alone: matrix products and attention, a multiply-add counting two.

Mirrors `model/{embedding,encoder,fusion,decoder}.py`: what they compute is counted here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seamo_fast.modalities import Modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.fusion import group_adjacency
from seamo_fast.views import ViewConfig


def forward_flops(
    config: ModelConfig,
    modalities: Sequence[Modality],
    seasons: int,
    views: ViewConfig,
    fusion: bool = True,
) -> int:
    """Returns the FLOPs of one sample's forward pass; a training step takes three times as many.

    Counts what the mathematics needs: every embedded patch is a visible one, every decoder block
    but the last runs on all tokens, and the last one on the decoded tokens only.

    Args:
        config: The model.
        modalities: Modalities of the batch.
        seasons: T.
        views: How many patches are visible and decoded.
        fusion: Whether the TM fusion runs.
    """
    visible = views.num_visible(config.num_patches)
    hidden = views.num_decoded(config.num_patches)
    groups = seasons * len(modalities)
    tokens = groups * visible
    total = seasons * config.depth * _block(config, len(modalities) * visible)
    for modality in modalities:
        values = len(modality.bands) * config.patch_size**2
        total += seasons * 2 * visible * values * config.width
        total += seasons * _decoder(config, visible, hidden, values)
    if fusion and config.fusion != "none":
        total += config.fusion_depth * _fusion(config, seasons, len(modalities), tokens, visible)
    return int(total)


def _linear(tokens: int, width: int, mlp_ratio: float) -> float:
    return tokens * (4 + 2 * mlp_ratio) * 2 * width**2


def _attention(queries: int, keys: int, width: int) -> int:
    return 4 * queries * keys * width


def _block(config: ModelConfig, tokens: int) -> float:
    width = config.width
    return _linear(tokens, width, config.mlp_ratio) + _attention(tokens, tokens, width)


def _decoder(config: ModelConfig, visible: int, hidden: int, values: int) -> float:
    width, tokens = config.decoder_width, visible + hidden
    full = _linear(tokens, width, config.mlp_ratio) + _attention(tokens, tokens, width)
    keys_and_values = 4 * visible * width**2
    last = _linear(hidden, width, config.mlp_ratio) + _attention(hidden, tokens, width)
    ends = 2 * width * (visible * config.width + hidden * values)
    return (config.decoder_depth - 1) * full + last + keys_and_values + ends


def _fusion(config: ModelConfig, seasons: int, modalities: int, tokens: int, visible: int) -> float:
    width = config.width
    linear = _linear(tokens, width, config.mlp_ratio)
    if config.fusion == "cascade":
        carried = (seasons - 1) * modalities * visible
        pairs = seasons * modalities * (modalities - 1)
        linear += carried * 4 * width**2
    else:
        adjacency = group_adjacency(
            config.fusion, seasons, modalities, config.fusion_window, torch.device("cpu")
        )
        pairs = int(adjacency.sum())
    return linear + pairs * _attention(visible, visible, width)
