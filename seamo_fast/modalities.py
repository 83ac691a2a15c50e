"""Bands and modalities: what the numbers in a tile mean.

A Modality names its bands in the order their dataset publishes them, their unit, the constant that
a producer may have added, and the statistics that normalise them. Every loader, model, checkpoint
and test takes its normalisation from `Modality.normalization`; there is no second one.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any, Final, Literal, NamedTuple, get_args

UNITS: Final = ("dn", "db", "reflectance", "uint8")
# Magnitudes beyond what a unit can have, by orders of magnitude. Fill values are beyond: -9999 in
# decibels, 1e30. Digital numbers in place of reflectance, or hundredths of decibels, are not: they
# are values of another unit, which `seamo_fast.units` names.
_LIMITS: Final = {"dn": 1e6, "db": 9e3, "reflectance": 9e3, "uint8": 9e3}
_LIMIT_STDS: Final = 10  # that statistics may be away from 0 whatever the unit is called
_LARGEST: Final = 3.4028234663852886e38  # finite float32
NodataRule = Literal["band", "pixel"]
NODATA_RULES: Final[tuple[NodataRule, ...]] = get_args(NodataRule)
_MOST_BANDS: Final = 1024
MISSING_DATE: Final = -(2**31)  # days since 1970-01-01 of a group whose date is unknown
FIRST_DATE: Final = -25567  # 1900-01-01; no image of the Earth from above is older
LAST_DATE: Final = 84006  # 2200-01-01; YYYYMMDD, seconds and other units of time are beyond


@dataclass(frozen=True)
class Band:
    """One spectral or polarisation channel.

    Attributes:
        name: Name, such as "B8A" or "VV"; kept in its canonical spelling.
        gsd: Ground sampling distance of the stored grid, in metres.
        wavelength: Centre wavelength in nanometres, None for radar.
    """

    name: str
    gsd: float
    wavelength: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"a band's name must be text, but got {self.name!r}")
        object.__setattr__(self, "name", canonical_band(self.name))
        for field in ("gsd", "wavelength"):
            value = getattr(self, field)
            if (value is not None or field == "gsd") and not (_is_number(value) and value > 0):
                raise ValueError(
                    f"{field} of band {self.name!r} must be a number above 0, but got {value!r}"
                )


def _is_number(value: object) -> bool:
    """Whether a value is a finite number and no bool."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


class Grid(NamedTuple):
    """The bands of a modality that are stored at one ground sampling distance."""

    gsd: float
    bands: tuple[int, ...]


def canonical_band(name: str) -> str:
    """Returns the name that this package uses for a band spelled in a common other way.

    B02 is B2, b8a is B8A and vv is VV. B8 and B8A are different bands and never exchanged.
    """
    upper = name.strip().upper()
    if upper.startswith("B0") and len(upper) == 3:
        return "B" + upper[2:]
    return upper


@dataclass(frozen=True)
class Modality:
    """A named, ordered set of bands with their unit and statistics.

    Attributes:
        name: Key of the modality in models and shards, such as "s2l2a".
        bands: Bands in published order.
        unit: Unit of the stored values, one of `UNITS`.
        mean: Mean of each band's stored values, or None if unknown.
        std: Standard deviation of each band's stored values, or None if unknown.
        offset: Constant that the producer added; physical value = (stored - offset) / scale.
        scale: Stored steps per physical unit.
        nodata: Stored value that means "not measured"; NaN and what is beyond `limit` always do.
        nodata_rule: Where `nodata` does: "band" anywhere; "pixel" where each band holds it, or NaN
            or what is beyond `limit` (of another grid the pixel at the centre counts), because a
            single band may have it as a value.
        release: Whose data the statistics describe.
        composite: Bands shown as red, green and blue.
    """

    name: str
    bands: tuple[Band, ...]
    unit: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    offset: float = 0.0
    scale: float = 1.0
    nodata: float | None = None
    release: str = ""
    composite: tuple[str, ...] = ()
    nodata_rule: NodataRule = "band"

    def __post_init__(self) -> None:
        for field in ("name", "release"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise ValueError(f"a modality's {field} must be text, but got {value!r}")
        names = self.band_names
        if not names:
            raise ValueError(f"modality {self.name!r} must have at least one band")
        if len(names) > _MOST_BANDS:
            raise ValueError(
                f"modality {self.name!r} has {len(names)} bands; expected at most {_MOST_BANDS}"
            )
        if len(set(names)) != len(names):
            raise ValueError(f"modality {self.name!r} names a band twice: {', '.join(names)}")
        if self.unit not in UNITS:
            raise ValueError(
                f"modality {self.name!r} has unit {self.unit!r}; expected one of {', '.join(UNITS)}"
            )
        for field in ("mean", "std"):
            values = getattr(self, field)
            if values is not None and len(values) != len(names):
                raise ValueError(
                    f"modality {self.name!r} has {len(names)} bands but {len(values)} values of "
                    f"{field}"
                )
        self._check_numbers()
        if self.nodata_rule not in NODATA_RULES:
            raise ValueError(
                f"modality {self.name!r} has nodata_rule {self.nodata_rule!r}; expected one of "
                f"{', '.join(NODATA_RULES)}"
            )
        self._channels(self.composite)

    def _check_numbers(self) -> None:
        if self.nodata is not None and self.nodata != self.nodata:
            raise ValueError(f"modality {self.name!r}: NaN is nodata always; leave nodata out")
        nodata = () if self.nodata is None else (self.nodata,)
        scalars = {"offset": (self.offset,), "scale": (self.scale,), "nodata": nodata}
        for field, values in {"mean": self.mean, "std": self.std, **scalars}.items():
            for value in values or ():
                if not _is_number(value):
                    raise ValueError(
                        f"modality {self.name!r}: {field} must be finite numbers, but got {value!r}"
                    )
        if self.scale == 0:
            raise ValueError(f"modality {self.name!r} has scale 0; expected stored steps per unit")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"modality {self.name!r} has a standard deviation of 0 or less")
        for value in (*(self.mean or ()), *(1 / each for each in self.std or ())):
            if abs(value) > _LARGEST:
                raise ValueError(
                    f"modality {self.name!r}: {value:g}, of its mean or 1 / std, is beyond float32"
                )

    @property
    def band_names(self) -> tuple[str, ...]:
        """Canonical names in published order."""
        return tuple(band.name for band in self.bands)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The stored grids, finest first, each with its channels in published order."""
        spacings = sorted({band.gsd for band in self.bands})
        return tuple(
            Grid(gsd, tuple(c for c, band in enumerate(self.bands) if band.gsd == gsd))
            for gsd in spacings
        )

    @property
    def order(self) -> tuple[int, ...]:
        """Where each published channel stands when the grids are laid one after the other."""
        concatenated = [channel for grid in self.grids for channel in grid.bands]
        return tuple(concatenated.index(channel) for channel in range(len(self.bands)))

    @property
    def limit(self) -> float:
        """The largest magnitude that a stored value can have; larger ones were not measured."""
        described = [
            abs(mean) + _LIMIT_STDS * std
            for mean, std in zip(self.mean or (), self.std or (), strict=False)
        ]
        return min(max([_LIMITS[self.unit], *described]), _LARGEST)

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns (shift, scale) of each band: normalised = (stored - shift) * scale.

        Raises:
            ValueError: The statistics are unknown.
        """
        if self.mean is None or self.std is None:
            raise ValueError(
                f"modality {self.name!r} has no statistics; pack the data with "
                "`python -m seamo_fast.pack`, which measures them, or use with_statistics()"
            )
        return self.mean, tuple(1.0 / std for std in self.std)

    def with_statistics(
        self, mean: Sequence[float], std: Sequence[float], release: str
    ) -> Modality:
        """Returns this modality normalised by the statistics of another release."""
        return replace(self, mean=tuple(mean), std=tuple(std), release=release)

    def on_one_grid(self, gsd: float) -> Modality:
        """Returns this modality with all bands stored at `gsd` metres."""
        return replace(self, bands=tuple(replace(band, gsd=gsd) for band in self.bands))

    def subset(self, names: Iterable[str]) -> Modality:
        """Returns this modality with only the named bands, in the given order.

        Raises:
            ValueError: A name is not a band of this modality.
        """
        channels = self._channels(names)
        kept = tuple(self.bands[channel] for channel in channels)
        shown = {band.name for band in kept}
        return replace(
            self,
            bands=kept,
            mean=self.mean and tuple(self.mean[channel] for channel in channels),
            std=self.std and tuple(self.std[channel] for channel in channels),
            composite=self.composite if shown.issuperset(self.composite) else (),
        )

    def check_bands(self, names: Sequence[str]) -> None:
        """Raises ValueError unless `names` are exactly this modality's bands in its order."""
        came = tuple(canonical_band(name) for name in names)
        if came != self.band_names:
            raise ValueError(
                f"modality {self.name!r} expects the {len(self.bands)} bands "
                f"{', '.join(self.band_names)} in this order, but got {len(came)}: "
                f"{', '.join(came)}; reorder them, or use Modality.subset()"
            )

    def _channels(self, names: Iterable[str]) -> list[int]:
        known = self.band_names
        channels = []
        for name in names:
            if canonical_band(name) not in known:
                raise ValueError(
                    f"modality {self.name!r} has no band {name!r}; its bands are {', '.join(known)}"
                )
            channels.append(known.index(canonical_band(name)))
        return channels

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-able description; `from_dict` reads it back."""
        fields = asdict(self)
        if self.nodata_rule == "band":  # not named: equals what was written before there was one
            del fields["nodata_rule"]
        return fields

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Modality:
        """Reads what `to_dict` returned.

        Raises:
            ValueError: A field is missing or unknown, or describes an impossible modality.
        """
        if not isinstance(data, dict):
            raise ValueError(f"modality {data!r} is not described as expected: by its fields")
        fields = dict(data)
        try:
            fields["bands"] = tuple(Band(**band) for band in fields["bands"])
            for key in ("mean", "std"):
                if fields.get(key) is not None:
                    fields[key] = tuple(float(v) if _is_number(v) else v for v in fields[key])
            fields["composite"] = tuple(fields.get("composite") or ())
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"modality {data.get('name')!r} is not described as expected: {error}"
            ) from error


_REGISTRY: dict[tuple[str, str], Modality] = {}
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


# Centre wavelengths of Sentinel-2A and native grids: ESA, Sentinel-2 User Handbook, table 1.
_SENTINEL2: Final = (
    Band("B1", 60, 443),
    Band("B2", 10, 490),
    Band("B3", 10, 560),
    Band("B4", 10, 665),
    Band("B5", 20, 705),
    Band("B6", 20, 740),
    Band("B7", 20, 783),
    Band("B8", 10, 842),
    Band("B8A", 20, 865),
    Band("B9", 60, 945),
    Band("B10", 60, 1375),
    Band("B11", 20, 1610),
    Band("B12", 20, 2190),
)
# Nodata 0 of Sentinel-2 is the product's own fill value; SSL4EO-S12 sets no tag. It fills all bands
# of a pixel: 0 in some alone is a value, of B10 and of water a common one.
S2L1C: Final = register_modality(
    Modality(
        name="s2l1c",
        bands=_SENTINEL2,
        unit="dn",
        mean=(1605.58, 1390.78, 1314.87, 1363.52, 1549.44, 2091.75, 2371.72, 2299.90, 2560.30,
              830.07, 22.10, 2177.07, 1524.07),
        std=(786.79, 850.35, 875.06, 1138.85, 1122.18, 1161.59, 1274.39, 1248.43, 1345.53,
             577.32, 51.15, 1336.10, 1136.54),
        scale=10000.0,
        nodata=0.0,
        nodata_rule="pixel",
        release="ssl4eo-s12-v1.0",
        composite=("B4", "B3", "B2"),
    )
)  # fmt: skip
S2L2A: Final = register_modality(
    Modality(
        name="s2l2a",
        bands=tuple(band for band in _SENTINEL2 if band.name != "B10"),
        unit="dn",
        mean=(752.40, 884.30, 1144.16, 1297.47, 1624.91, 2194.64, 2422.21, 2517.76, 2581.65,
              2645.52, 2368.51, 1805.07),
        std=(1108.03, 1155.15, 1183.63, 1368.11, 1370.27, 1355.56, 1416.51, 1474.79, 1439.31,
             1582.28, 1455.52, 1343.48),
        scale=10000.0,
        nodata=0.0,
        nodata_rule="pixel",
        release="ssl4eo-s12-v1.0",
        composite=("B4", "B3", "B2"),
    )
)  # fmt: skip
S1GRD: Final = register_modality(
    Modality(
        name="s1grd",
        bands=(Band("VV", 10), Band("VH", 10)),
        unit="db",
        mean=(-12.54847, -20.19237),
        std=(5.25698, 5.91151),
        nodata=0.0,
        release="ssl4eo-s12-v1.0",
        composite=("VV", "VH"),
    )
)
# SSL4EO-S12 v1.1 keeps the +1000 DN of processing baseline 04.00 and stores every band at 10 m.
register_modality(
    replace(
        S2L1C.on_one_grid(10),
        mean=(2607.345, 2393.068, 2320.225, 2373.963, 2562.536, 3110.071, 3392.832, 3321.154,
              3583.77, 1838.712, 1021.753, 3205.112, 2545.798),
        std=(786.523, 849.702, 875.318, 1143.578, 1126.248, 1161.98, 1273.505, 1246.79, 1342.755,
             576.795, 45.626, 1340.347, 1145.036),
        offset=1000.0,
        release="ssl4eo-s12-v1.1",
    )
)  # fmt: skip
register_modality(
    replace(
        S2L2A.on_one_grid(10),
        mean=(1793.243, 1924.863, 2184.553, 2340.936, 2671.402, 3240.082, 3468.412, 3563.244,
              3627.704, 3711.071, 3416.714, 2849.625),
        std=(1160.144, 1201.092, 1219.943, 1397.225, 1400.035, 1373.136, 1429.17, 1485.025,
             1447.836, 1652.703, 1471.002, 1365.307),
        offset=1000.0,
        release="ssl4eo-s12-v1.1",
    )
)  # fmt: skip
register_modality(
    replace(
        S1GRD, mean=(-12.577, -20.265), std=(5.179, 5.872), nodata=None, release="ssl4eo-s12-v1.1"
    )
)
# USGS Landsat 8-9 Collection 2 Level-2 surface reflectance: reflectance = DN * 0.0000275 - 0.2.
register_modality(
    Modality(
        name="landsat89",
        bands=(
            Band("B1", 30, 443),
            Band("B2", 30, 482),
            Band("B3", 30, 561),
            Band("B4", 30, 655),
            Band("B5", 30, 865),
            Band("B6", 30, 1609),
            Band("B7", 30, 2201),
        ),
        unit="dn",
        offset=0.2 / 0.0000275,
        scale=1 / 0.0000275,
        nodata=0.0,
        composite=("B4", "B3", "B2"),
    )
)
# PlanetScope SuperDove, 8-band surface reflectance (Planet product specification).
register_modality(
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
    )
)
register_modality(
    Modality(
        name="rgb",
        bands=(Band("RED", 10, 665), Band("GREEN", 10, 560), Band("BLUE", 10, 490)),
        unit="uint8",
        scale=255.0,
        composite=("RED", "GREEN", "BLUE"),
    )
)
