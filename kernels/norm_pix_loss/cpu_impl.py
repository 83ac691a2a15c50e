"""norm_pix_loss in C++: one pass over the patches in each direction, in eager mode one for both."""

from __future__ import annotations

from typing import Any

from .. import _native

_module: Any = _native.load()

forward = _module.norm_pix_loss
backward = _module.norm_pix_loss_backward
