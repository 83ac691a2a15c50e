"""The modalities of a mapping of `pack`, as a labelled dataset takes them."""

from __future__ import annotations

from dataclasses import replace

from seamo_fast.data.packing.sources.mapping import Mapping
from seamo_fast.modalities import Modality


def mapped_modalities(mapping: Mapping) -> dict[str, Modality]:
    """Returns the modalities of a mapping by name, without statistics."""
    return {
        name: replace(each.modality(name), mean=None, std=None, release=mapping.name)
        for name, each in mapping.modalities.items()
    }
