"""The modalities that have a name."""

from __future__ import annotations

import difflib
from typing import Final

from seamo_fast.modalities.landsat import LANDSAT
from seamo_fast.modalities.modality import Modality
from seamo_fast.modalities.others import PLANETSCOPE, RGB
from seamo_fast.modalities.sentinel import SENTINEL

_REGISTRY: dict[tuple[str, str], Modality] = {
    (each.name, each.release): each for each in (*SENTINEL, *LANDSAT, *PLANETSCOPE, RGB)
}
DEFAULT_RELEASE: Final = "ssl4eo-s12-v1.0"


def register_modality(modality: Modality) -> Modality:
    """Makes a modality available to `get_modality` under its name and release.

    Raises:
        ValueError: Another modality has this name and release.
    """
    key = (modality.name, modality.release)
    if _REGISTRY.get(key, modality) != modality:
        raise ValueError(f"modality {key[0]!r} of release {key[1]!r} is registered already")
    _REGISTRY[key] = modality
    return modality


def get_modality(name: str, release: str = DEFAULT_RELEASE) -> Modality:
    """Returns a registered modality.

    A modality without statistics of its own serves every release; it has to be measured by
    packing before it can be normalised.

    Raises:
        ValueError: The name or the release is unknown; the message names the nearest known.
    """
    found = _REGISTRY.get((name, release)) or _REGISTRY.get((name, ""))
    if found is not None:
        return found
    releases = sorted(known for modality, known in _REGISTRY if modality == name)
    if releases:
        raise ValueError(
            f"modality {name!r} has no release {release!r}; known are {', '.join(releases)}"
        )
    known = list_modalities()
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown modality {name!r}; {hint}known are {', '.join(known)}")


def list_modalities() -> list[str]:
    """Returns the names of all registered modalities."""
    return sorted({name for name, _ in _REGISTRY})
