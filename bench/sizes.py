"""The shapes that benches and the audit share: those of the presets, with all four seasons."""

from __future__ import annotations

from typing import Final

from seamo_fast.modalities import get_modality
from seamo_fast.model.config import PRESETS
from seamo_fast.views import ViewConfig

BASE: Final = PRESETS["base"]
SEASONS: Final = 4
CHANNELS: Final = {name: len(get_modality(name).bands) for name in ("s1grd", "s2l2a")}
MODALITIES: Final = len(CHANNELS)
IMAGE, PATCH, POSITIONS = BASE.image_size, BASE.patch_size, BASE.num_patches  # of every preset
TOKENS: Final = ViewConfig().num_visible(POSITIONS)
VALUES: Final = CHANNELS["s2l2a"] * PATCH**2  # of a patch of Sentinel-2
