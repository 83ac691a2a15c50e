"""Reads mappings: YAML files, and those of this package by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping as MappingType
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from seamo_fast.data.packing.sources.mapping import (
    NEUTRAL,
    Mapping,
    ModalityMapping,
    file_patterns,
)
from seamo_fast.errors import DataError
from seamo_fast.files import read_yaml
from seamo_fast.modalities import get_modality

_ALIKE: Final = ("unit", "scale", "offset", "nodata", "composite")
_OF_STATISTICS: Final = ("unit", "scale", "offset")  # with others, mean and std would be others


def _packaged() -> Path:
    return Path(str(files("seamo_fast.data.packing") / "mappings"))


def packaged_mappings() -> list[str]:
    """Returns the names of the mappings of this package."""
    return sorted(each.stem for each in _packaged().glob("*.yaml"))


def load_mapping(name: str) -> Mapping:
    """Reads a mapping.

    Args:
        name: Path of a YAML file, or the name of a mapping of this package such as "worldcereal".

    Raises:
        DataError: There is no such mapping, or it is wrong; the message names the setting.
    """
    packaged = _packaged()
    where = Path(name)
    if where.suffix not in (".yaml", ".yml"):
        where = packaged / f"{name}.yaml"
    if not where.exists():
        raise DataError(
            f"there is no mapping {name!r}; give a .yaml file or one of "
            f"{', '.join(packaged_mappings())}"
        )
    try:
        data = _fields(Mapping, read_yaml(where), "the mapping")
        modalities = data["modalities"]
        if not isinstance(modalities, dict) or not modalities:
            raise ValueError("modalities must map names to their settings")
        data["modalities"] = {str(key): _modality(key, value) for key, value in modalities.items()}
        data["recognise"] = _names(
            data.get("recognise", ()), "recognise must be a list of patterns"
        )
        mapping = Mapping(**data)
        mapping.check()
    except OSError as error:
        raise DataError(f"mapping {name} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"mapping {name}: {error}") from error
    return mapping


def _modality(key: object, value: object) -> ModalityMapping:
    where = f"modality {key!r}"
    if isinstance(value, MappingType) and "like" in value:
        value = _filled_in(value, where)
    data = _fields(ModalityMapping, value, where)
    data["files"] = file_patterns(data.get("files", ""))
    data["composite"] = _names(
        data.get("composite", ()), f"{where}: composite must be a list of bands"
    )
    return ModalityMapping(**data)


def _names(value: object, expected: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{expected}, but got {value!r}")
    return tuple(value)


def _filled_in(given: MappingType[str, Any], where: str) -> dict[str, Any]:
    """Returns the settings of a modality with those of the one that it is like, where it has none.

    Raises:
        ValueError: There is no such modality, or it has not all of the bands.
    """
    name, _, release = str(given["like"]).partition("@")
    known = get_modality(name, release) if release else get_modality(name)
    bands = given.get("bands")
    if not isinstance(bands, MappingType):
        raise ValueError(f"{where}: bands must be `band: variable` pairs")
    known = known.subset(map(str, bands))
    defaults = {each.name: each.default for each in fields(ModalityMapping)} | NEUTRAL
    own = {key: _plain(getattr(known, key)) for key in _ALIKE}
    found: dict[str, Any] = {key: value for key, value in own.items() if value != defaults[key]}
    found["gsd"] = {band: each.gsd for band, each in zip(bands, known.bands, strict=True)}
    found["wavelengths"] = {
        band: each.wavelength
        for band, each in zip(bands, known.bands, strict=True)
        if each.wavelength is not None
    }
    if all(given.get(key, own[key]) == own[key] for key in _OF_STATISTICS):
        found.update(mean=known.mean, std=known.std)
    if given.get("nodata", own["nodata"]) == own["nodata"]:
        found.update(nodata_rule=known.nodata_rule)
    result = {**found, **{key: value for key, value in given.items() if key != "like"}}
    if known.mean is not None and result.get("mean") == known.mean:
        result.setdefault("release", known.release)
    return result


def _plain(value: Any) -> Any:
    """Returns a number as a person writes it into a mapping: 10000, not 10000.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fields(kind: type[Mapping | ModalityMapping], data: Any, where: str) -> dict[str, Any]:
    known = {each.name: each for each in fields(kind)}
    if not isinstance(data, MappingType):
        raise ValueError(f"{where} must be settings of the form `key: value`, but got {data!r}")
    for key in data:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"{where} has an unknown setting {key!r}{hint}")
    for key, each in known.items():
        needed = each.default is MISSING and each.default_factory is MISSING
        if needed and key not in data:
            raise ValueError(f"{where} lacks the setting {key!r}")
    return dict(data)
