r"""The YAML mapping of a dataset: which files belong together, and which band is which.

    name: worldcereal            # release name in the manifest and of the measured statistics
    format: netcdf               # netcdf | geotiff (JPEG and PNG too)
    time: t                      # netcdf: variable of the time axis, "<unit> since <date>"
    seasons: 4                   # T, dates of a sample
    pairing: steps               # how dates become seasons, see below; or: seasons
    step: 3                      # time steps from one season to the next
    stride: 1                    # time steps from one sample to the next
    min_valid: 0.5               # a group with a smaller share of measured pixels is invalid
    sample: '{place}'            # geotiff: what tiles of one sample have in common
    place: '{place}'             # geotiff: what tiles that share ground have in common
    recognise: ['S2L2A/*.tif']   # --layout auto takes this mapping where one of these exists
    modalities:
      s2:
        like: s2l2a              # a registered modality whose settings hold where none are given;
                                 # s2l2a@ssl4eo-s12-v1.1 names its release
        unit: dn                 # dn | db | reflectance | uint8
        gsd: 10                  # metres, of the stored grid; or one a band: {B2: 10, B5: 20}
        scale: 10000             # reflectance = (stored - offset) / scale; default: what files
        offset: 0                # say (GDAL's or CF's scale and offset), else 1 and 0
        nodata: 65535            # stored value that means "not measured"; NaN always does;
                                 # default: what files say
        nodata_rule: band        # where it does: band, the default, anywhere; pixel, only where all
                                 # bands of a pixel hold it, if one alone may have it as a value
        dtype: float32           # convert to this dtype; default: as stored
        composite: [B4, B3, B2]  # shown as red, green and blue
        wavelengths: {B2: 490}   # nanometres, of the bands that have one
        mean: [884, 2518]        # of the stored values, one a band; null, the default: measured
        std: [1155, 1475]        # the same
        release: mine            # whose mean and std these are; default: name
        bands: {B2: B2, B8: B8}  # band: variable (netcdf), image band from 1 or, where files are
                                 # matched with a group `band`, what it matches (geotiff); image
                                 # bands are samples of a page, or pages if the highest number or
                                 # the number of bands is that of the pages (and not of the rows)
        files: 'S2_(\d{8})\.tif'  # geotiff: pattern of the files, or a list of patterns

`name`, `format`, `seasons`, `modalities` and a modality's `unit`, `gsd` and `bands` are needed.

With `like` the `bands` must be bands of that modality, and `unit`, `gsd`, `scale`, `offset`,
`nodata`, `composite`, `wavelengths`, `mean` and `std` are its own unless they are given. With
another unit, scale or offset than its own, its statistics do not hold and are measured; with
another `nodata`, its `nodata_rule` does not hold.

A pattern is a regular expression. With named groups it is matched against the whole path below
SOURCE (with `/`): `date` is YYYYMMDD, YYYY-MM-DD or YYYYDDD (day of the year), with or without a
time of day; where those are ambiguous, `year`, `month` and `day` are its digits. `band` names the
band of a single-band file, and the others make up `sample` and `place`. Without named groups each
folder in SOURCE is a place, and the only group is the date. Names are compared with case, but for
their ending: a pattern that ends in `\.tif` finds `B1.TIF` too. Hidden files and folders are not
looked at, nor is what macOS leaves in archives.

With pairing "steps" the dates of all modalities make one time axis, a sample is a window on it, and
seasons are `step` apart. With "seasons" a place is one sample, and each modality's dates are paired
with the seasons by `season_slots`.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from seamo_fast.data.shards import DTYPES, check_modality
from seamo_fast.modalities import Band, Modality, NodataRule, canonical_band, get_modality

_SENTINEL2 = frozenset(get_modality("s2l1c").band_names)
# The scale and the offset that hold where neither a mapping nor a file gives others.
_MOST_STEPS: Final = 2**16  # of a time axis
NEUTRAL: Final = {"scale": 1.0, "offset": 0.0}


@dataclass(frozen=True)
class ModalityMapping:
    """One modality of the mapping; the module describes the fields."""

    unit: str
    gsd: float | dict[str, float]
    bands: dict[str, str | int]
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    composite: tuple[str, ...] = ()
    files: str | tuple[str, ...] = ""
    dtype: str | None = None
    wavelengths: dict[str, float] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    release: str = ""
    nodata_rule: NodataRule = "band"

    @property
    def silent(self) -> frozenset[str]:
        """What this leaves to the files: "nodata", and "scale" with the offset."""
        unscaled = self.scale is None and self.offset is None
        return frozenset(["scale"] * unscaled + ["nodata"] * (self.nodata is None))

    @property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The patterns of the files, as they are matched against paths below the source.

        Raises:
            ValueError: One is no regular expression, or has no group.
        """
        given = (self.files,) if isinstance(self.files, str) else self.files
        return tuple(_pattern(each) for each in given)

    def modality(self, name: str) -> Modality:
        """Returns the modality that this describes.

        Raises:
            ValueError: A setting is impossible, or a band is mapped to another one.
        """
        self._check(name)
        return Modality(
            name=name,
            bands=tuple(self._band(name, band) for band in self.bands),
            unit=self.unit,
            mean=None if self.mean is None else tuple(map(float, self.mean)),
            std=None if self.std is None else tuple(map(float, self.std)),
            offset=0.0 if self.offset is None else float(self.offset),
            scale=1.0 if self.scale is None else float(self.scale),
            nodata=None if self.nodata is None else float(self.nodata),
            release=self.release,
            composite=tuple(canonical_band(band) for band in self.composite),
            nodata_rule=self.nodata_rule,
        )

    def _check(self, name: str) -> None:
        if not isinstance(self.bands, dict):
            raise ValueError(f"modality {name!r}: bands must be `band: variable` pairs")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"modality {name!r}: give both mean and std, or none of them")
        unknown = [str(band) for band in self.wavelengths if band not in self.bands]
        if unknown:
            raise ValueError(f"modality {name!r}: wavelengths names no bands {', '.join(unknown)}")
        if self.nodata is not None and not math.isfinite(self.nodata):
            raise ValueError(f"modality {name!r}: leave nodata out, NaN always means not measured")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(
                f"modality {name!r}: dtype must be one of {', '.join(DTYPES)}, "
                f"but got {self.dtype!r}"
            )
        where: dict[str, str] = {}
        for band, variable in self.bands.items():
            if where.setdefault(str(variable), band) != band:
                raise ValueError(
                    f"modality {name!r}: bands {where[str(variable)]} and {band} are both "
                    f"{variable}; give each band an image band or variable of its own"
                )
            other = canonical_band(str(variable))
            if other in _SENTINEL2 and other != canonical_band(band):
                raise ValueError(
                    f"band {band} is mapped to variable {variable}, which is another Sentinel-2 "
                    "band; name the band after what it holds"
                )
        if not isinstance(self.release, str):
            raise ValueError(f"modality {name!r}: release must be a name, but got {self.release!r}")

    def _band(self, name: str, band: str) -> Band:
        wavelength = self.wavelengths.get(band)
        return Band(
            canonical_band(band),
            self._gsd(name, band),
            None if wavelength is None else float(wavelength),
        )

    def _gsd(self, name: str, band: str) -> float:
        if isinstance(self.gsd, dict) and band not in self.gsd:
            raise ValueError(f"modality {name!r}: gsd has no value for band {band}")
        gsd = float(self.gsd[band] if isinstance(self.gsd, dict) else self.gsd)
        if not 0 < gsd < math.inf:
            raise ValueError(f"modality {name!r}: gsd must be above 0 metres, but got {gsd:g}")
        return gsd


@dataclass(frozen=True)
class Mapping:
    """A mapping; the module describes the fields."""

    name: str
    format: Literal["netcdf", "geotiff"]
    seasons: int
    modalities: dict[str, ModalityMapping]
    time: str = "t"
    step: int = 1
    stride: int = 1
    min_valid: float = 0.0
    pairing: Literal["steps", "seasons"] = "steps"
    sample: str = "{place}"
    place: str = "{place}"
    recognise: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """This mapping as text, which `from_key` reads back."""
        return json.dumps(asdict(self))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the content of shards.

        Wavelengths and the rule of nodata do not, and of what was added since only what is given
        counts: sets that earlier versions began are resumed.
        """
        result = asdict(self)
        for each in result["modalities"].values():
            del each["wavelengths"], each["nodata_rule"]
            for setting, value in NEUTRAL.items():  # as if it had been given
                each[setting] = value if each[setting] is None else each[setting]
            for added in ("mean", "std", "release"):
                if not each[added]:
                    del each[added]
        return result

    @classmethod
    def from_key(cls, key: str) -> Mapping:
        """Returns the mapping of a `key`."""
        data = json.loads(key)
        modalities = {
            name: ModalityMapping(**{**each, "files": file_patterns(each["files"])})
            for name, each in data["modalities"].items()
        }
        return cls(**{**data, "modalities": modalities})

    def check(self) -> None:
        """Raises ValueError naming the first setting that cannot work."""
        if self.format not in ("netcdf", "geotiff"):
            raise ValueError(f"format must be netcdf or geotiff, but got {self.format!r}")
        self._check_types()
        if self.pairing not in ("steps", "seasons"):
            raise ValueError(f"pairing must be steps or seasons, but got {self.pairing!r}")
        if self.pairing == "seasons" and self.format != "geotiff":
            raise ValueError("pairing: seasons needs format: geotiff")
        if not 0 <= self.min_valid <= 1:
            raise ValueError(f"min_valid must be in [0, 1], but got {self.min_valid!r}")
        for name, each in self.modalities.items():
            check_modality(each.modality(name))
            if self.format == "geotiff":
                self._check_images(name, each)

    def _check_types(self) -> None:
        for setting in ("seasons", "step", "stride"):
            value = getattr(self, setting)
            if type(value) is not int or value < 1:
                raise ValueError(f"{setting} must be a whole number above 0, but got {value!r}")
            if value > _MOST_STEPS:
                raise ValueError(f"{setting} must be at most {_MOST_STEPS}, but got {value}")
        for setting in ("name", "time", "sample", "place"):
            value = getattr(self, setting)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{setting} must be text, but got {value!r}")

    def _check_images(self, name: str, each: ModalityMapping) -> None:
        for template in (self.sample, self.place):
            _check_template(template)
        try:
            patterns = each.patterns
        except ValueError as error:
            raise ValueError(f"modality {name!r}: {error}") from error
        for pattern in patterns:
            groups = dict.fromkeys(pattern.groupindex, "")
            for setting, template in (("sample", self.sample), ("place", self.place)):
                try:
                    template.format(**groups)
                except (KeyError, IndexError, ValueError):
                    raise ValueError(
                        f"{setting} is {template!r}, but the pattern of modality {name!r} has the "
                        f"groups {', '.join(groups) or 'none'}"
                    ) from None
            self._check_bands(name, each, "band" in groups)

    def _check_bands(self, name: str, each: ModalityMapping, single: bool) -> None:
        numbers = all(type(number) is int and number > 0 for number in each.bands.values())
        if not single and not numbers:
            raise ValueError(f"modality {name!r}: bands must be image band numbers from 1")
        if not single and isinstance(each.gsd, dict) and len(set(each.gsd.values())) > 1:
            raise ValueError(
                f"modality {name!r}: the bands of one file share one grid; give one gsd, or a "
                "pattern with a group `band` for single-band files"
            )


def _check_template(template: str) -> None:
    """Raises ValueError unless a template names groups alone: `{place:>999999999}` takes memory."""
    for _, group, width, conversion in string.Formatter().parse(template):
        if group is not None and (width or conversion or not group.isidentifier()):
            raise ValueError(f"{template!r} must name groups only, such as {{place}}")


def _pattern(text: str) -> re.Pattern[str]:
    # the endings of names are compared in lower case
    text = re.sub(r"\\\.[A-Za-z]+\??$", lambda ending: ending[0].lower(), text)
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError) as error:
        raise ValueError(f"files is no pattern ({error})") from error
    if pattern.groupindex:
        return pattern
    if pattern.groups != 1:
        raise ValueError(
            "files must be a pattern with one group for the date, such as "
            rf"'S2_(\d{{8}})\.tif', or with named groups, but got {text!r}"
        )
    dated = re.sub(r"(?<!\\)\((?!\?)", "(?P<date>", text, count=1)
    return re.compile(f"(?P<place>[^/]+)/{dated}")


def file_patterns(files: str | Sequence[str]) -> str | tuple[str, ...]:
    """Returns one pattern, or several, as a mapping holds them."""
    if isinstance(files, str):
        return files
    if not isinstance(files, (list, tuple)) or not all(isinstance(each, str) for each in files):
        raise ValueError(f"files must be a pattern, or a list of patterns, but got {files!r}")
    return tuple(files)
