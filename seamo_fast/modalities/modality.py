"""Modality: a named, ordered set of bands with units and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from seamo_fast.modalities.band import Band, Grid, canonical_band, is_number

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
                if not is_number(value):
                    raise ValueError(
                        f"modality {self.name!r}: {field} must be finite numbers, but got {value!r}"
                    )
        if self.scale == 0:
            raise ValueError(f"modality {self.name!r} has scale 0; expected stored steps per unit")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"modality {self.name!r} has a standard deviation of 0 or less")
        inverse = (1 / each for each in (self.scale, *(self.std or ())))
        for value in (*(self.mean or ()), self.scale, *inverse):
            if abs(value) > _LARGEST:
                raise ValueError(
                    f"modality {self.name!r}: {value:g}, of its mean, scale or 1 / std, is beyond "
                    "float32"
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
                    fields[key] = tuple(float(v) if is_number(v) else v for v in fields[key])
            fields["composite"] = tuple(fields.get("composite") or ())
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"modality {data.get('name')!r} is not described as expected: {error}"
            ) from error
