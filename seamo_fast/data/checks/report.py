"""What measured statistics look like on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.modalities import Modality

_SHOWN: Final = 10  # tiles; the manifest of a shard set has all


def table(modality: Modality, profile: BandProfile | None, flags: Sequence[str]) -> Iterator[str]:
    """Yields the lines about a modality: a row a band, what is suspicious, and in which tiles.

    Args:
        modality: What was measured.
        profile: What was found; None where there is no valid group.
        flags: What of it is suspicious.
    """
    offset = f", offset {modality.offset:g}" if modality.offset else ""
    yield f"{modality.name} ({modality.unit}{offset})"
    if profile is not None:
        yield from _rows(modality, profile)
    for why in flags:
        yield f"  flag: {why}"
    named = [] if profile is None else profile.tiles.remarks(modality)[1:]
    for remark in named[:_SHOWN]:
        yield f"    {remark.what}: {remark.why}"
    if len(named) > _SHOWN:
        yield f"    and {len(named) - _SHOWN} more"


def _rows(modality: Modality, profile: BandProfile) -> Iterator[str]:
    yield f"  {'band':<14}{'mean':>10}{'std':>10}{'min':>10}{'p1':>8}{'p99':>8}{'max':>10}  nodata"
    for name, band in profile.to_dict(modality).items():
        if not band["count"]:
            yield f"  {name:<14}{'none measured':>10}"
            continue
        low, high = (f"{band[key]:.0f}" if key in band else "" for key in ("p1", "p99"))
        yield (
            f"  {name:<14}{band['mean']:>10.5g}{band['std']:>10.5g}{band['minimum']:>10.5g}"
            f"{low:>8}{high:>8}{band['maximum']:>10.5g}{band['unmeasured']:>8.2%}"
        )
