"""SeaMo: season-aware masked autoencoders for multi-modal Earth observation."""

from __future__ import annotations

from seamo_fast._version import __version__
from seamo_fast.errors import SeaMoError
from seamo_fast.modalities import Band, Modality, get_modality, list_modalities, register_modality
from seamo_fast.model.backbone import (
    SeaMoBackbone,
    seamo_vit_base,
    seamo_vit_large,
    seamo_vit_small,
    seamo_vit_tiny,
)
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.seamo import SeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.views import ViewConfig, Views

__all__ = [
    "Band",
    "Modality",
    "ModelConfig",
    "SeaMo",
    "SeaMoBackbone",
    "SeaMoError",
    "TileBatch",
    "ViewConfig",
    "Views",
    "__version__",
    "get_modality",
    "list_modalities",
    "register_modality",
    "seamo_vit_base",
    "seamo_vit_large",
    "seamo_vit_small",
    "seamo_vit_tiny",
]
