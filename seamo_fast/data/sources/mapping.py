r"""The YAML mapping of a time series: which variable or image band is which band of a modality.

    name: worldcereal            # release name in the manifest and of the measured statistics
    format: netcdf               # netcdf | geotiff
    time: t                      # netcdf: variable of the time axis, "<unit> since <date>"
    seasons: 4                   # T, time steps of a sample
    step: 3                      # time steps from one season to the next
    stride: 1                    # time steps from one sample to the next
    min_valid: 0.5               # a group with a smaller share of measured pixels is invalid
    modalities:
      s2:
        unit: dn                 # dn | db | reflectance | uint8
        gsd: 10                  # metres, of the stored grid
        scale: 10000             # reflectance = (stored - offset) / scale; default 1
        offset: 0                # default 0
        nodata: 65535            # stored value that means "not measured"; NaN always does
        composite: [B4, B3, B2]  # shown as red, green and blue
        bands: {B2: B2, B8: B8}  # band: variable (netcdf) or image band from 1 (geotiff)
        files: 'S2_(\d{8})\.tif'  # geotiff: pattern of the file names, its group is YYYYMMDD

`name`, `format`, `seasons`, `modalities` and a modality's `unit`, `gsd` and `bands` are needed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping as MappingType
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from seamo_fast.data.manifest import check_modality
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality, canonical_band, get_modality

_SENTINEL2 = frozenset(get_modality("s2l1c").band_names)


@dataclass(frozen=True)
class ModalityMapping:
    """One modality of the mapping; the module describes the fields."""

    unit: str
    gsd: float
    bands: dict[str, str | int]
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    composite: tuple[str, ...] = ()
    files: str = ""

    def modality(self, name: str) -> Modality:
        """Returns the modality that this describes, without statistics.

        Raises:
            ValueError: A setting is impossible, or a band is mapped to another one.
        """
        if not isinstance(self.bands, dict):
            raise ValueError(f"modality {name!r}: bands must be `band: variable` pairs")
        if self.nodata is not None and not math.isfinite(self.nodata):
            raise ValueError(f"modality {name!r}: leave nodata out, NaN always means not measured")
        for band, variable in self.bands.items():
            other = canonical_band(str(variable))
            if other in _SENTINEL2 and other != canonical_band(band):
                raise ValueError(
                    f"band {band} is mapped to variable {variable}, which is another Sentinel-2 "
                    "band; name the band after what it holds"
                )
        return Modality(
            name=name,
            bands=tuple(Band(canonical_band(band), float(self.gsd)) for band in self.bands),
            unit=self.unit,
            offset=float(self.offset),
            scale=float(self.scale),
            nodata=None if self.nodata is None else float(self.nodata),
            composite=tuple(self.composite),
        )


@dataclass(frozen=True)
class Mapping:
    """A time series mapping; the module describes the fields."""

    name: str
    format: Literal["netcdf", "geotiff"]
    seasons: int
    modalities: dict[str, ModalityMapping]
    time: str = "t"
    step: int = 1
    stride: int = 1
    min_valid: float = 0.0

    def check(self) -> None:
        """Raises ValueError naming the first setting that cannot work."""
        if self.format not in ("netcdf", "geotiff"):
            raise ValueError(f"format must be netcdf or geotiff, but got {self.format!r}")
        for setting in ("seasons", "step", "stride"):
            value = getattr(self, setting)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{setting} must be a whole number above 0, but got {value!r}")
        if not 0 <= self.min_valid <= 1:
            raise ValueError(f"min_valid must be in [0, 1], but got {self.min_valid!r}")
        for name, each in self.modalities.items():
            check_modality(each.modality(name))
            if self.format == "geotiff":
                self._check_images(name, each)

    def _check_images(self, name: str, each: ModalityMapping) -> None:
        try:
            groups = re.compile(each.files).groups
        except re.error as error:
            raise ValueError(f"modality {name!r}: files is no pattern ({error})") from error
        if groups != 1:
            raise ValueError(
                f"modality {name!r}: files must be a pattern with one group for the date, such as "
                rf"'S2_(\d{{8}})\.tif', but got {each.files!r}"
            )
        if not all(isinstance(number, int) and number > 0 for number in each.bands.values()):
            raise ValueError(f"modality {name!r}: bands must be image band numbers from 1")


def load_mapping(name: str) -> Mapping:
    """Reads a mapping.

    Args:
        name: Path of a YAML file, or the name of a mapping of this package such as "worldcereal".

    Raises:
        DataError: There is no such mapping, or it is wrong; the message names the setting.
    """
    packaged = files("seamo_fast.data") / "mappings"
    where = Path(name)
    try:
        if where.suffix in (".yaml", ".yml"):
            text = where.read_text()
        else:
            text = (packaged / f"{name}.yaml").read_text()
    except OSError:
        known = sorted(entry.name[:-5] for entry in packaged.iterdir())
        raise DataError(
            f"there is no mapping {name!r}; give a .yaml file or one of {', '.join(known)}"
        ) from None
    try:
        data = _fields(Mapping, yaml.safe_load(text), "the mapping")
        modalities = data["modalities"]
        if not isinstance(modalities, dict) or not modalities:
            raise ValueError("modalities must map names to their settings")
        data["modalities"] = {
            str(key): ModalityMapping(**_fields(ModalityMapping, value, f"modality {key!r}"))
            for key, value in modalities.items()
        }
        mapping = Mapping(**data)
        mapping.check()
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"mapping {name}: {error}") from error
    return mapping


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
        if each.default is MISSING and key not in data:
            raise ValueError(f"{where} lacks the setting {key!r}")
    return dict(data)
