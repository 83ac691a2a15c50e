"""An operation a module: what tests, benches and the audit have to know of it, in one place.

Each module has ``Arguments`` (with the names of the schema), ``make`` (random ones), ``formula``
(the same result in plain PyTorch), ``OUTPUTS`` and ``GRADIENTS`` (the names of what the operators
return), ``work``, the sizes that reach every border of the kernels' blocks, the thresholds of the
benches, and for the audit ``AUDITED`` and ``at_base`` (arguments without memory).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

OPS = tuple(
    sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("__init__", "work"))
)
MODULES: tuple[Any, ...] = tuple(import_module(f"{__name__}.{name}") for name in OPS)
BY_NAME: dict[str, Any] = dict(zip(OPS, MODULES, strict=True))
