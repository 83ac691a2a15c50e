"""Bands and modalities: what the numbers in a tile mean.

A Modality names its bands in the order their dataset publishes them, their unit, the constant that
a producer may have added, and the statistics that normalise them. Every loader, model, checkpoint
and test takes its normalisation from `Modality.normalization`; there is no second one.
"""

from __future__ import annotations

from seamo_fast.modalities.band import Band, Grid, canonical_band
from seamo_fast.modalities.dates import FIRST_DATE, LAST_DATE, MISSING_DATE
from seamo_fast.modalities.modality import NODATA_RULES, UNITS, Modality, NodataRule
from seamo_fast.modalities.registry import (
    DEFAULT_RELEASE,
    get_modality,
    list_modalities,
    register_modality,
)
from seamo_fast.modalities.sentinel import S1GRD, S2L1C, S2L2A

__all__ = [
    "DEFAULT_RELEASE",
    "FIRST_DATE",
    "LAST_DATE",
    "MISSING_DATE",
    "NODATA_RULES",
    "S1GRD",
    "S2L1C",
    "S2L2A",
    "UNITS",
    "Band",
    "Grid",
    "Modality",
    "NodataRule",
    "canonical_band",
    "get_modality",
    "list_modalities",
    "register_modality",
]
