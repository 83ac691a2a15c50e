"""assemble_tokens in C++: writes each token once, sums gradients in a fixed order."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

forward = _module.assemble_tokens
backward = _module.assemble_tokens_backward
