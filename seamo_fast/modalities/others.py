"""PlanetScope, and images of three colours.

Sources: Planet Labs, "PlanetScope 8-band asset: band order, wavelengths, and metadata" (SuperDove,
instrument PSB.SD; uint16, 0 for no data), and Planet Imagery Product Specifications, February 2021,
table 1-A (Dove Classic, instrument PS2). Centres are the middle of the published edges. The stored
values are those of surface reflectance (assets `*_sr`), times 10000; radiance has another factor in
each scene.
"""

from __future__ import annotations

from typing import Final

from seamo_fast.modalities.band import Band
from seamo_fast.modalities.modality import Modality

# Eight bands of a SuperDove, four of a Dove Classic; four of a SuperDove are a subset of the eight.
PLANETSCOPE: Final = (
    Modality(
        name="planetscope",
        bands=(
            Band("COASTAL_BLUE", 3, 443),
            Band("BLUE", 3, 490),
            Band("GREEN_I", 3, 531),
            Band("GREEN", 3, 565),
            Band("YELLOW", 3, 610),
            Band("RED", 3, 665),
            Band("RED_EDGE", 3, 705),
            Band("NIR", 3, 865),
        ),
        unit="dn",
        scale=10000.0,
        nodata=0.0,
        composite=("RED", "GREEN", "BLUE"),
    ),
    Modality(
        name="planetscope4",
        bands=(
            Band("BLUE", 3, 485),
            Band("GREEN", 3, 545),
            Band("RED", 3, 630),
            Band("NIR", 3, 820),
        ),
        unit="dn",
        scale=10000.0,
        nodata=0.0,
        composite=("RED", "GREEN", "BLUE"),
    ),
)
RGB: Final = Modality(
    name="rgb",
    bands=(Band("RED", 10, 665), Band("GREEN", 10, 560), Band("BLUE", 10, 490)),
    unit="uint8",
    scale=255.0,
    composite=("RED", "GREEN", "BLUE"),
)
