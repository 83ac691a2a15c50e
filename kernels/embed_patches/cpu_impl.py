"""embed_patches in C++: the other terms are added to a product while it is in the cache."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

forward = _module.embed_patches
backward = _module.embed_patches_backward
