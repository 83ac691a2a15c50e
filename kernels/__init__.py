"""The operations SeaMo needs beside plain PyTorch, and two that PyTorch has but runs slower.

Each is one folder: the public function with its checks and schema in ``__init__.py``, and one file
per backend. ``explain_table()`` says which backend runs, and why the others do not.
"""

from __future__ import annotations

from ._layers import replaceable as replaceable
from ._registry import explain as explain
from ._registry import explain_table as explain_table
from ._torch_private import has_numbers as has_numbers
from .assemble_tokens import assemble_tokens as assemble_tokens
from .embed_patches import embed_patches as embed_patches
from .gather_patches import gather_patches as gather_patches
from .norm_pix_loss import norm_pix_loss as norm_pix_loss
from .residual_attention import residual_attention as residual_attention
from .residual_mlp import residual_mlp as residual_mlp
from .tm_attention import tm_attention as tm_attention
