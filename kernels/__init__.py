"""The five operations SeaMo needs beside plain PyTorch, and two that PyTorch has but runs slower.

Each is one folder: the public function with its checks and schema in ``__init__.py``, and one file
per backend. ``explain_table()`` says which backend runs, and why the others do not.
"""

from __future__ import annotations

from ._registry import explain, explain_table
from .assemble_tokens import assemble_tokens
from .embed_patches import embed_patches
from .gather_patches import gather_patches
from .norm_pix_loss import norm_pix_loss
from .residual import residual_attention, residual_mlp
from .tm_attention import tm_attention

__all__ = [
    "assemble_tokens",
    "embed_patches",
    "explain",
    "explain_table",
    "gather_patches",
    "norm_pix_loss",
    "residual_attention",
    "residual_mlp",
    "tm_attention",
]
