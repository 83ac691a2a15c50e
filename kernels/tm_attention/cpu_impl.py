"""tm_attention in C++: blocks of queries pass over the blocks of keys that they may see."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

forward = _module.tm_attention
backward = _module.tm_attention_backward
