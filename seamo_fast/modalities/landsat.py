"""Landsat 4 to 9, Collection 2, optical bands.

Sources: Barsi et al., The Spectral Response of the Landsat-8 Operational Land Imager, Remote
Sensing 6(10), 2014 (centre wavelengths of OLI); USGS, "What are the band designations for the
Landsat satellites?" (grids; TM's centres are the middle of the edges); USGS, "How do I use a scale
factor with Landsat Level-2 science products?" (surface reflectance, fill value 0); USGS, "Using the
USGS Landsat Level-1 Data Product", and REFLECTANCE_MULT_BAND_x and REFLECTANCE_ADD_BAND_x in the
products' MTL files, 2e-5 and -0.1 for all bands of OLI (top of atmosphere).

Thermal bands are left out: they are no reflectance, and a modality has one unit.
"""

from __future__ import annotations

from typing import Final

from seamo_fast.modalities.band import Band
from seamo_fast.modalities.modality import Modality

_OLI: Final = (
    Band("B1", 30, 443),
    Band("B2", 30, 482),
    Band("B3", 30, 561),
    Band("B4", 30, 655),
    Band("B5", 30, 865),
    Band("B6", 30, 1609),
    Band("B7", 30, 2201),
)
_LEVEL2: Final = 0.0000275  # reflectance = stored * this - 0.2
_LEVEL1: Final = 0.00002  # reflectance = (stored * this - 0.1) / sin(elevation of the sun)


# OLI at the surface (Level-2), OLI at the top of the atmosphere (Level-1: the height of the sun is
# still in it), and TM (Landsat 4 and 5) and ETM+ (7) at the surface. Level-1 of TM and ETM+ has no
# entry: each band of each scene has its own factor.
LANDSAT: Final = (
    Modality(
        name="landsat89",
        bands=_OLI,
        unit="dn",
        offset=0.2 / _LEVEL2,
        scale=1 / _LEVEL2,
        nodata=0.0,
        composite=("B4", "B3", "B2"),
    ),
    Modality(
        name="landsat89_toa",
        bands=(*_OLI, Band("B8", 15, 590), Band("B9", 30, 1373)),
        unit="dn",
        offset=0.1 / _LEVEL1,
        scale=1 / _LEVEL1,
        nodata=0.0,
        composite=("B4", "B3", "B2"),
    ),
    Modality(
        name="landsat457",
        bands=(
            Band("B1", 30, 485),
            Band("B2", 30, 560),
            Band("B3", 30, 660),
            Band("B4", 30, 830),
            Band("B5", 30, 1650),
            Band("B7", 30, 2215),
        ),
        unit="dn",
        offset=0.2 / _LEVEL2,
        scale=1 / _LEVEL2,
        nodata=0.0,
        composite=("B3", "B2", "B1"),
    ),
)
