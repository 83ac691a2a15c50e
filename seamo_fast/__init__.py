"""SeaMo: season-aware masked autoencoders for multi-modal Earth observation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from seamo_fast._version import __version__
from seamo_fast.errors import SeaMoError, UnitError, UnitWarning
from seamo_fast.modalities import Band, Modality, get_modality, list_modalities, register_modality

if TYPE_CHECKING:
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

# imported when asked for: packing starts without torch
_MODULES: Final = {
    "ModelConfig": "model.config",
    "SeaMo": "model.seamo",
    "SeaMoBackbone": "model.backbone",
    "TileBatch": "tiles",
    "ViewConfig": "views",
    "Views": "views",
    "seamo_vit_base": "model.backbone",
    "seamo_vit_large": "model.backbone",
    "seamo_vit_small": "model.backbone",
    "seamo_vit_tiny": "model.backbone",
}

__all__ = [
    "Band",
    "Modality",
    "ModelConfig",
    "SeaMo",
    "SeaMoBackbone",
    "SeaMoError",
    "TileBatch",
    "UnitError",
    "UnitWarning",
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
