"""Hugging Face's ViTMAE, imported past the folder `kernels/` of this repository.

In the repository's root transformers takes that folder for Hugging Face's package of the same name.
"""

from __future__ import annotations

import sys
from typing import Any, cast

_modules = cast(dict[str, Any], sys.modules)
_modules["kernels"] = None  # not to be found
try:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining
finally:
    del _modules["kernels"]

__all__ = ["ViTMAEConfig", "ViTMAEForPreTraining"]
