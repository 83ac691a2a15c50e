"""The model: embeddings, encoder, TM fusion, decoders, and what is built from them."""

from __future__ import annotations

from seamo_fast.model.config import PRESETS, ModelConfig
from seamo_fast.model.seamo import Losses, Reconstruction, SeaMo

__all__ = ["PRESETS", "Losses", "ModelConfig", "Reconstruction", "SeaMo"]
