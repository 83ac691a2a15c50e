"""gather_patches in C++: reads pixels where they are stored, writes each patch once."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

forward = _module.gather_patches
