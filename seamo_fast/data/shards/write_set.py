"""Writing of shard sets: sample by sample, or from the shards that several processes made."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.manifest import (
    DTYPES,
    ArraySpec,
    Encoding,
    Manifest,
    ShardEntry,
    array_names,
    check_modality,
)
from seamo_fast.data.shards.remarks import Remark, unique
from seamo_fast.data.shards.write_shard import ShardFolder, ShardReport
from seamo_fast.errors import DataError
from seamo_fast.files import brief, writing
from seamo_fast.modalities import Modality


def remove_partials(out: Path) -> None:
    """Removes what an earlier, killed run left unfinished."""
    for folder in out.glob(".shard-*"):
        shutil.rmtree(folder, ignore_errors=True)


def write_manifest(
    out: Path,
    modalities: Sequence[Modality],
    arrays: Mapping[str, ArraySpec],
    entries: Iterable[ShardEntry],
    reports: Sequence[ShardReport],
    *,
    source: str,
    release: str,
    skipped: Sequence[Remark] = (),
    noted: Sequence[Remark] = (),
    encoding: Encoding = "npy",
) -> Manifest:
    """Completes a shard set: merges the statistics of its shards and writes its manifest.

    Raises:
        DataError: No sample was packed, a band cannot be normalised, or the disk is full.
    """
    shards = tuple(entry for entry in entries if entry.samples)
    if not shards:
        left_out = unique([*skipped, *(each for report in reports for each in report.skipped)])
        raise DataError(f"no sample of {source} could be packed into {out}{_reasons(left_out)}")
    measured = []
    for modality in modalities:
        if modality.mean is None:
            total = BandStatistics(len(modality.bands))
            for report in reports:
                try:
                    total.merge(BandStatistics.from_dict(report.statistics[modality.name]))
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise DataError(
                        f"a report.json in {out} holds no statistics of {modality.name} "
                        f"({brief(repr(error))}); delete its shard and run again"
                    ) from error
            modality = total.apply(modality, release)
        measured.append(modality)
    manifest = Manifest(
        source=source,
        release=release,
        seasons=next(iter(arrays.values())).shape[0],
        modalities=tuple(measured),
        arrays=dict(arrays),
        shards=shards,
        skipped=unique([*skipped, *(each for report in reports for each in report.skipped)]),
        noted=unique([*noted, *(each for report in reports for each in report.noted)]),
        encoding=encoding,
    )
    manifest.save(out)
    return manifest


def _reasons(skipped: Sequence[Remark]) -> str:
    if not skipped:
        return ": it holds nothing to pack"
    shown = "; ".join(f"{remark.what}: {remark.why}" for remark in skipped[:3])
    return f": {shown}" + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "")


class ShardWriter:
    """Writes a shard set sample by sample.

    Args:
        path: Folder to write; must not hold a shard set yet.
        modalities: In the order of the M axis. Those without statistics are measured.
        seasons: T.
        source: What the samples are, for the manifest.
        release: Release name of the source and of measured statistics.
        shard_size: Samples a shard.
        encoding: How arrays are stored, "npy" or "tiff" (`seamo_fast.data.shards`).

    Raises:
        DataError: `path` holds shards already or cannot be written.
        ValueError: A modality contradicts the registered one of its name.
    """

    def __init__(
        self,
        path: Path | str,
        modalities: Sequence[Modality],
        seasons: int,
        *,
        source: str = "",
        release: str = "",
        shard_size: int = 512,
        encoding: Encoding = "npy",
    ) -> None:
        self._out = Path(path)
        if (self._out / "manifest.json").exists() or any(self._out.glob("shard-*")):
            raise DataError(f"{self._out} holds shards already; choose another folder")
        for modality in modalities:
            check_modality(modality)
        with writing(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        remove_partials(self._out)
        self._modalities = tuple(modalities)
        self._seasons = seasons
        self._source = source
        self._release = release
        self._shard_size = shard_size
        self._encoding = encoding
        self._arrays: dict[str, ArraySpec] = {}
        self._shard: ShardFolder | None = None
        self._ids: list[str] = []
        self._entries: list[ShardEntry] = []
        self._reports: list[ShardReport] = []

    def add(
        self,
        id: str,
        arrays: Mapping[str, Sequence[np.ndarray]],
        dates: Mapping[str, Sequence[date | None]],
        valid: Mapping[str, Sequence[bool]],
        place: str = "",
        position: tuple[float, float] | None = None,
    ) -> None:
        """Appends a sample.

        Args:
            id: Name of the sample in its source.
            arrays: For each modality its grids, each [T, Cg, Hg, Wg], stored as they are. The
                first sample decides dtypes and sizes; invalid groups are stored as zeros.
            dates: For each modality T acquisition dates, None where unknown.
            valid: For each modality whether each of its T groups exists.
            place: Name of the place that it shows; `id` if empty.
            position: Longitude and latitude in degrees, None where unknown.

        Raises:
            ValueError: Number of grids, shape or dtype differ from what was expected.
            DataError: The disk is full.
        """
        if not self._arrays:
            self._arrays = self._specify(arrays)
        if self._shard is None:
            name = f"shard-{len(self._entries):05d}"
            self._shard = ShardFolder(
                self._out,
                name,
                self._modalities,
                self._arrays,
                self._shard_size,
                self._encoding,
            )
        try:
            self._shard.add(id, arrays, dates, valid, place, position)
        except BaseException:
            self.abort()
            raise
        self._ids.append(id)
        if len(self._shard) == self._shard_size:
            self._close_shard()

    def finish(self, skipped: Sequence[Remark] = ()) -> Manifest:
        """Completes the last shard and writes the manifest.

        Raises:
            DataError: Nothing was added, or the disk is full.
        """
        if self._shard is not None:
            self._close_shard()
        return write_manifest(
            self._out,
            self._modalities,
            self._arrays,
            self._entries,
            self._reports,
            source=self._source,
            release=self._release,
            skipped=skipped,
            encoding=self._encoding,
        )

    def abort(self) -> None:
        """Removes the shard in the making; finished ones stay."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None

    def _close_shard(self) -> None:
        assert self._shard is not None
        report = ShardReport(items=self._ids)
        with self._shard as shard:
            self._entries.append(shard.close(report))
        self._reports.append(report)
        self._shard, self._ids = None, []

    def _specify(self, arrays: Mapping[str, Sequence[np.ndarray]]) -> dict[str, ArraySpec]:
        specs = {}
        for modality in self._modalities:
            for name, grid, values in zip(
                array_names(modality), modality.grids, arrays[modality.name], strict=True
            ):
                expected = (self._seasons, len(grid.bands))
                if values.ndim != 4 or values.shape[:2] != expected:
                    raise ValueError(
                        f"array {name} must be [{expected[0]}, {expected[1]}, H, W], "
                        f"but got {list(values.shape)}"
                    )
                if values.dtype.name not in DTYPES:
                    raise ValueError(
                        f"array {name} must have one of the dtypes {', '.join(DTYPES)}, "
                        f"but got {values.dtype}"
                    )
                specs[name] = ArraySpec(values.dtype.name, values.shape)
        return specs
