"""What becomes of what files say of their numbers, beside what a mapping or a layout says.

Where the mapping is silent, the first place that can be read decides for the whole set. Where it
is not, it holds, and a file that says something else is an override, by name. Either way a pixel
that its own file calls not measured is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from seamo_fast.data.packing.sources.base import TileError
from seamo_fast.data.packing.sources.formats.metadata import SILENT, Said, stored_as
from seamo_fast.data.packing.sources.rules.contradictions import contradictions, formula, inverse
from seamo_fast.data.shards import Remark
from seamo_fast.data.shards.measured import measured
from seamo_fast.modalities import Modality


class Pixels(NamedTuple):
    """A tile as stored, and what its files say of the numbers.

    Attributes:
        grids: One [Cg, Hg, Wg] a grid of the modality.
        said: One for each band of the modality.
        measured: For each band which pixels [Hg, Wg] a mask keeps, None without one; none of
            them has one if empty.
    """

    grids: list[np.ndarray]
    said: tuple[Said, ...]
    measured: tuple[np.ndarray | None, ...] = ()


@dataclass(frozen=True)
class Declared:
    """A modality as a mapping or a layout declares it, to which files may add.

    Attributes:
        modality: With what files say, once it is `settled`.
        by: Who declares it: "mapping" or "modality".
        silent: Of "nodata" and "scale" (with offset) what it leaves to the files.
        adopted: What the files of the first place decided.
    """

    modality: Modality
    by: str = "modality"
    silent: frozenset[str] = frozenset()
    adopted: tuple[Remark, ...] = ()

    def settled(self, said: Sequence[Said], dtype: np.dtype[Any]) -> Declared:
        """Returns this with what the files of the first place say where it is silent.

        Raises:
            TileError: Bands have different scales.
        """
        modality, remarks = self.modality, []
        nodata = self._first_nodata(said, dtype)
        if nodata is not None:
            modality = replace(modality, nodata=nodata)
            why = f"nodata is {_text(nodata)}, as the files say"
            remarks.append(Remark(modality.name, why, "metadata"))
        line = self._one_line(said) if "scale" in self.silent else (1.0, 0.0)
        if line != (1.0, 0.0):
            scale, offset = inverse(*line)
            # scaled reflectance is stored as digital numbers, and no other numbers' mean is theirs
            unit = "dn" if modality.unit == "reflectance" else modality.unit
            modality = replace(modality, scale=scale, offset=offset, unit=unit, mean=None, std=None)
            why = f"{formula(*line)}, as the files say: scale {scale:.9g}, offset {offset:.9g}"
            remarks.append(Remark(modality.name, why, "metadata"))
        return replace(self, modality=modality, adopted=tuple(remarks))

    def _first_nodata(self, said: Sequence[Said], dtype: np.dtype[Any]) -> float | None:
        if "nodata" not in self.silent:
            return None
        values = (value for each in said for value in each.nodata)
        return next(
            (float(v) for v in (stored_as(v, dtype) for v in values) if v is not None), None
        )

    def _one_line(self, said: Sequence[Said]) -> tuple[float, float]:
        lines = dict(zip((each.line for each in said), self.modality.band_names, strict=True))
        if len(lines) > 1:
            found = ", ".join(f"{band}: {formula(*line)}" for line, band in lines.items())
            raise TileError(
                f"bands of {self.modality.name} differ in scale ({found}); give scale and offset "
                "in the mapping, or make modalities of bands that differ",
                "metadata",
            )
        return next(iter(lines))

    def apply(self, tile: Pixels) -> list[Remark]:
        """Marks in place what files say is not measured; returns what is to be said of it.

        Raises:
            TileError: The file has another scale than the set, or its missing pixels cannot be
                told from measured ones.
        """
        grids, said, masks = tile
        masks = masks or (None,) * len(said)
        if all(mask is None for mask in masks) and all(each == SILENT for each in said):
            return [*self.adopted]
        left = "scale" in self.silent
        remarks = [
            *self.adopted,
            *contradictions(
                self.modality, self.by, said, grids[0].dtype.kind, scaled_by_files=left
            ),
        ]
        marked = []
        for grid, values in zip(self.modality.grids, grids, strict=True):
            of_bands = [said[c] for c in grid.bands], [masks[c] for c in grid.bands]
            noted, pixels = self.mark(values, *of_bands)
            remarks += noted
            marked.append(pixels)
        if len(grids) > 1 and self.modality.nodata_rule == "pixel":
            self._check_marks(grids, marked)
        return list(dict.fromkeys(remarks))

    def mark(
        self, values: np.ndarray, said: Sequence[Said], masks: Sequence[np.ndarray | None]
    ) -> tuple[list[Remark], np.ndarray]:
        """Marks in place what is not measured in the bands of a grid: nodata, valid range, mask.

        Args:
            values: [C, H, W], as stored.
            said: What the file says of each band.
            masks: For each band which pixels [H, W] a mask keeps, None without one.

        Returns:
            What is to be said of it, and in which pixels [H, W] a band was marked.

        Raises:
            TileError: Missing pixels cannot be told from measured ones.
        """
        marked = np.zeros(values.shape[-2:], bool)
        remarks = []
        for plane, each, mask in zip(values, said, masks, strict=True):
            for what, bad, remark in self._excluded(plane, each, mask):
                if self._fill(plane, bad, what):
                    marked |= bad
                    remarks.append(remark)
        if self.modality.nodata_rule == "pixel" and values.dtype.kind in "iu" and remarks:
            values[:, marked] = self._own(values.dtype)  # in one band it would be a value
        return remarks, marked

    def _excluded(
        self, plane: np.ndarray, said: Said, mask: np.ndarray | None
    ) -> Iterator[tuple[str, np.ndarray, Remark]]:
        """Yields what excludes which pixels of a band [H, W], and the remark if there are any."""
        name = self.modality.name
        for value in said.nodata:
            stored = stored_as(value, plane.dtype)
            if stored is not None and stored != self._own(plane.dtype):
                yield f"nodata {_text(value)}", plane == stored, self._of_nodata(value)
        low = -math.inf if said.low is None else said.low
        high = math.inf if said.high is None else said.high
        if (low, high) != (-math.inf, math.inf):
            what = f"valid range {_text(low)}..{_text(high)}"
            why = f"values outside of the {what} that files say are not measured"
            yield what, (plane < low) | (plane > high), Remark(name, why, "metadata")
        if mask is not None:
            why = "pixels that masks in the files leave out are not measured"
            yield "mask", ~mask, Remark(name, why, "metadata")

    def _own(self, dtype: np.dtype[Any]) -> float | None:
        """Returns the nodata of the modality as a dtype holds it."""
        return None if self.modality.nodata is None else stored_as(self.modality.nodata, dtype)

    def _fill(self, plane: np.ndarray, bad: np.ndarray, what: str) -> bool:
        """Marks pixels that the file's `what` excludes; returns whether there were others yet."""
        own = self._own(plane.dtype)
        bad &= np.isfinite(plane)
        if own is not None:
            bad &= plane != own
        if not bad.any():
            return False
        if plane.dtype.kind == "f" and (own is None or self.modality.nodata_rule == "pixel"):
            own = np.nan
        if own is None:
            raise TileError(
                f"{int(bad.sum())} pixels are not measured by the file's {what}, but "
                f"{self.modality.name} has no nodata in {plane.dtype} to mark them with; give the "
                f"{self.by} one",
                "metadata",
            )
        plane[bad] = own
        return True

    def _check_marks(self, grids: Sequence[np.ndarray], marked: Sequence[np.ndarray]) -> None:
        """Raises TileError if a grid holds values where a pixel of another was marked."""
        for known, pixels in zip(measured(self.modality, grids), marked, strict=True):
            if known[:, pixels].any():
                raise TileError(
                    f"the files leave out pixels of some bands of {self.modality.name} alone, but "
                    f"by its nodata_rule a pixel is missing in all; give the {self.by} the rule "
                    "band",
                    "metadata",
                )

    def _of_nodata(self, value: float) -> Remark:
        name, own = self.modality.name, self.modality.nodata
        if "nodata" not in self.silent:
            why = (
                f"files say nodata {_text(value)}, the {self.by} {_text(own)}, which is used; "
                "pixels of either are not measured"
            )
            return Remark(name, why, "override")
        kept = "NaN" if own is None else _text(own)
        why = f"some files say nodata {_text(value)}, which is stored as {kept}, that of the first"
        return Remark(name, why, "metadata")


def registered(modality: Modality) -> Declared:
    """Returns a modality that no mapping describes; it leaves to files only what it has not."""
    return Declared(modality, silent=frozenset(["nodata"] * (modality.nodata is None)))


def said_settings(declared: Iterable[Declared]) -> dict[str, list[Remark]]:
    """Returns what files decided, as a part of a source's settings; nothing if they did not.

    Shards that were begun with files that say other things are then not resumed.
    """
    adopted = [remark for each in declared for remark in each.adopted]
    return {"said": adopted} if adopted else {}


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.9g}"
