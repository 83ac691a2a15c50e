"""The embedded settings of pretraining runs."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Final

DEFAULT_PRESET: Final = "demo"


def presets() -> dict[str, Path]:
    """Returns the embedded configurations by name."""
    folder = Path(str(importlib.resources.files("seamo_fast") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
