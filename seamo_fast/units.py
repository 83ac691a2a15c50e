"""Whether values look like what their modality says: one judgement for `stats` and for models.

It is lenient: dark water, clouds, snow, another season or region, and an offset of 1000 that was
added or not are no other unit. What it names cannot be values of the modality's unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.modalities import Modality

_MOST: Final = 0.8  # share of the bands that must fit: B10 is 0 once it is scaled to bytes
_FEW: Final = 0.01  # share of the values that may be beyond what the unit can have
_HUGE: Final = 1e12  # no unit has such values
_BYTE: Final = 255


@dataclass(frozen=True)
class Look:
    """What the values of a modality look like, band by band.

    Attributes:
        count: [C], how many are measured.
        low: [C], the least of them; infinite where there is none.
        high: [C], the greatest.
        mean: [C].
        std: [C], of the population.
        whole: Whether all are whole numbers.
        lost: How many values are NaN or infinite.
        absurd: How many others were left out, being beyond what the unit can have.
    """

    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    whole: bool = False
    lost: int = 0
    absurd: int = 0

    @property
    def measured(self) -> np.ndarray:
        """Bool [C], bands that have a value."""
        return self.count > 0

    @property
    def span(self) -> tuple[float, float, float]:
        """The least and the greatest of all values, and the mean of the bands' means."""
        kept = self.measured
        return float(self.low[kept].min()), float(self.high[kept].max()), self.mean[kept].mean()

    @property
    def says_something(self) -> bool:
        """Whether there is more to see than nodata, or one number in each band."""
        if not self.count.any():
            return self.lost > 0
        return bool((self.low < self.high)[self.measured].any())

    def __str__(self) -> str:
        """The span in words."""
        if not self.count.any():
            return f"all {self.lost} values looked at"
        low, high, mean = self.span
        return f"values {low:g} to {high:g}, mean {mean:g}"


class Doubt(NamedTuple):
    """Why values cannot be what their modality says.

    Attributes:
        looks: What they look like, to follow "values 0.02 to 0.4, mean 0.1".
        advice: What the description of the data should say, or "".
        fix: How to make the values what the modality says.
    """

    looks: str
    advice: str
    fix: str


_NORMALISED: Final = Doubt(
    "look normalised already", "", "give stored values, the model normalises them itself"
)
_DECIBELS: Final = Doubt(
    "look like decibels", "", "give them to a modality in dB, or stored values to this one"
)
_DIGITAL: Final = Doubt(
    "look like digital numbers",
    "give unit dn",
    "subtract the product's offset and divide by its scale (10000 for Sentinel-2)",
)
_BYTES: Final = Doubt(
    "look like numbers that were scaled to 0 to 255",
    "give unit uint8",
    "give the numbers of the product",
)
_AMPLITUDES: Final = Doubt(
    "look like digital numbers or amplitudes", "", "calibrate them and convert them to decibels"
)
_LINEAR: Final = Doubt(
    "look like linear backscatter", "take 10 * log10 of it", "take 10 * log10 of them"
)
_HUNDREDFOLD: Final = Doubt("look like decibels times 100", "divide by 100", "divide by 100")
_WHOLE: Final = Doubt(
    "are decibels cut to whole numbers",
    "read them as floating-point numbers",
    "read them as floating-point numbers, a cast to integers takes up to 1 dB away",
)
_FRACTIONS: Final = Doubt("look like numbers from 0 to 1", "", "multiply by 255")
_NOT_BYTES: Final = Doubt("do not fit", "", "give numbers from 0 to 255")
_LOST: Final = Doubt("are NaN or infinite", "", "look at how they are read and divided")


_NUMBERS: Final = {
    "dn": "digital numbers",
    "db": "decibels",
    "reflectance": "reflectance",
    "uint8": "numbers from 0 to 255",
}


def _no(modality: Modality) -> Doubt:
    return Doubt(
        f"are no {_NUMBERS[modality.unit]}",
        "is a nodata value missing?",
        "give the modality its nodata value, or make such pixels NaN",
    )


def doubt_unit(modality: Modality, look: Look) -> Doubt | None:
    """Returns why the values cannot have the unit that the modality says; None if they can.

    Args:
        modality: What the values should be, with or without statistics.
        look: What they look like.
    """
    if not look.count.any():
        return _LOST if look.lost else None
    judge = {"dn": _digital, "db": _decibels, "reflectance": _reflectance, "uint8": _bytes}
    low, high, _ = look.span
    if max(-low, high) > _HUGE:
        return _no(modality)
    return judge[modality.unit](modality, look) or _absurd(modality, look)


def doubt_values(modality: Modality, look: Look) -> Doubt | None:
    """Returns why a model cannot use the values; None if it can.

    As `doubt_unit`, but values that the modality's own statistics describe are right whatever the
    unit is called, and those that say nothing (nodata, one number in each band) are not judged.
    """
    absurd = _absurd(modality, look)
    found = doubt_unit(modality, look) if look.says_something else None
    return found if found is _WHOLE or (found and not _fits(modality, look)) else absurd


def complaint(modality: Modality, look: Look, doubt: Doubt) -> str:
    """Returns one line: what came, what it looks like, what the modality says, and the fix."""
    says = [f"unit {modality.unit}", f"offset {modality.offset:g}"]
    for name, values in (("mean", modality.mean), ("standard deviation", modality.std)):
        if values is not None:
            says.append(f"{name} {min(values):g} to {max(values):g} by band")
    return (
        f"{modality.name}: {look} {doubt.looks}, but the modality says {', '.join(says)}. "
        f"{doubt.fix[0].upper()}{doubt.fix[1:]}; or describe the values as they are, in a Modality "
        "with their unit and statistics (SeaMoBackbone.adapt)"
    )


def _absurd(modality: Modality, look: Look) -> Doubt | None:
    """Whether values are beyond what the unit can have: those looked at, or many left out."""
    doubt, total = _no(modality), look.count.sum() + look.absurd
    if look.absurd > _FEW * total:
        return doubt._replace(looks=f"leave out {look.absurd} of {total:.0f} that {doubt.looks}")
    if not look.count.any():
        return None
    low, high, _ = look.span
    return doubt if max(-low, high) > modality.limit else None


def _digital(modality: Modality, look: Look) -> Doubt | None:
    low, high, mean = look.span
    if low < -200 and mean < 0:
        return _no(modality)
    if _normalised(look):
        return _NORMALISED
    if low < -1 and mean < 0:
        return _DECIBELS
    if high <= 4:
        return Doubt("look like reflectance", "give unit reflectance", _from_reflectance(modality))
    return _BYTES if _scaled_to_bytes(modality, look) else None


def _from_reflectance(modality: Modality) -> str:
    if modality.scale == 1:
        return _BYTES.fix
    add = f" and add {modality.offset:g}" if modality.offset else ""
    return f"multiply by {modality.scale:g}{add}"


def _decibels(modality: Modality, look: Look) -> Doubt | None:
    low, high, _ = look.span
    if low >= -0.5:
        return _AMPLITUDES if high > 100 else _LINEAR
    if low >= -9000 and _fits(modality, look, 0.01, 3):
        return _HUNDREDFOLD
    if low < -200 or high > 100:
        return _no(modality)
    if _normalised(look) and (np.abs(look.mean[look.measured]) < 1).all():
        return _NORMALISED
    return _WHOLE if look.whole and high - low >= 4 else None


def _reflectance(modality: Modality, look: Look) -> Doubt | None:
    low, _high, mean = look.span
    if mean > 4:
        return _DIGITAL
    if low < -200 and mean < 0:
        return _no(modality)
    if _normalised(look):
        return _NORMALISED
    return _DECIBELS if low < -1 and mean < -1 else None


def _bytes(_: Modality, look: Look) -> Doubt | None:
    low, high, _mean = look.span
    if _normalised(look):
        return _NORMALISED
    if low < 0 or high > _BYTE:
        return _NOT_BYTES
    return _FRACTIONS if high <= 1 and not look.whole else None


def _normalised(look: Look) -> bool:
    """Whether the mean is about 0 and the standard deviation about 1."""
    low, high, mean = look.span
    spread = look.std[look.measured].mean()
    return bool(low < -0.5 and high < 200 and abs(mean) < 2 and 0.4 < spread < 3)


def _scaled_to_bytes(modality: Modality, look: Look) -> bool:
    """Whether 0 to 255 is too little for the offset, or a factor gives the modality's statistics.

    Open water is as dark, but not in the colours of land; with few bands the deviations must show.
    """
    low, high, mean = look.span
    if low < 0 or high > _BYTE:
        return False
    if modality.offset > _BYTE:
        return True
    bands = look.measured.sum()
    if modality.mean is None or high < 80 or bands < 3:
        return False
    factor = np.array(modality.mean)[look.measured].mean() / mean
    narrowest = 0.0 if bands >= 6 else 1 / 3
    return bool(10 < factor < 100) and _fits(modality, look, factor, 1.5, narrowest)


def _fits(
    modality: Modality,
    look: Look,
    factor: float = 1.0,
    away: float = 1.0,
    narrowest: float = 1 / 3,
) -> bool:
    """Whether values times a factor have the modality's statistics, roughly, in most bands.

    Means may differ by `away` standard deviations, and these be `narrowest` to 3 times theirs.
    """
    if modality.mean is None or modality.std is None or not look.count.any():
        return False
    mean, std = (np.array(each)[look.measured] for each in (modality.mean, modality.std))
    near = np.abs(look.mean[look.measured] * factor - mean) <= away * std
    spread = look.std[look.measured] * factor / std
    return bool((near & (spread >= narrowest) & (spread <= 3)).mean() >= _MOST)
