"""residual_attention and residual_mlp in C++, around the matrix products of PyTorch."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

residual_attention = _module.residual_attention
residual_mlp = _module.residual_mlp
