"""Hugging Face's ViTMAE, imported past the folder `kernels/` of this repository."""

from __future__ import annotations

from seamo_fast.huggingface import kernels_hidden

with kernels_hidden():
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

__all__ = ["ViTMAEConfig", "ViTMAEForPreTraining"]
