"""One pass over a dataset or a shard set, and what it measures in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.shards import Remark, ShardSet
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality

_ITEMS: Final = 64  # of a dataset, a job
_NOTE: Final = "statistics of "  # how remarks on statistics begin
_Groups = Iterator[tuple[Modality, Sequence[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class _Part:
    """A piece of a dataset or of a shard set to be measured; picklable."""

    source: Source | Path
    items: list[str]

    def run(self) -> tuple[dict[str, BandProfile], list[Remark]]:
        profiles: dict[str, BandProfile] = {}
        bad: list[Remark] = []
        for modality, grids, valid in self._groups(bad):
            if modality.name not in profiles:
                profiles[modality.name] = BandProfile(len(modality.bands))
            profiles[modality.name].add(modality, grids, valid)
        return profiles, bad

    def _groups(self, bad: list[Remark]) -> _Groups:
        if isinstance(self.source, Path):
            yield from self._stored(ShardSet(self.source), bad)
            return
        for item in self.items:
            try:
                for reading in self.source.read(item):
                    count()
                    bad += reading.skipped
                    for modality in self.source.modalities:
                        if modality.name in reading.arrays:
                            valid = np.array(reading.valid[modality.name], bool)
                            yield modality, reading.arrays[modality.name], valid
            except DataError as error:
                count()
                bad.append(Remark(item, str(error), error.kind))

    def _stored(self, shards: ShardSet, bad: list[Remark]) -> _Groups:
        for number in map(int, self.items):
            count()
            try:
                sample = shards.read(number)
            except DataError as error:
                bad.append(Remark(f"sample {number}", str(error), error.kind))
                continue
            for column, modality in enumerate(shards.modalities):
                yield modality, sample.bands[modality.name], sample.valid[:, column]


def measure(
    source: Source | ShardSet, *, workers: int = 1, tick: Tick = lambda done: None
) -> tuple[dict[str, BandProfile], list[Remark]]:
    """Reads everything once; memory does not grow with the dataset.

    Returns:
        What each modality looks like (those without a valid group are absent), and what could not
        be read.
    """
    of: Source | Path
    if isinstance(source, ShardSet):
        items, of = [str(number) for number in range(len(source))], source.path
    else:
        items, of = source.items(), source
    parts = [_Part(of, items[start : start + _ITEMS]) for start in range(0, len(items), _ITEMS)]
    total: dict[str, BandProfile] = {}
    bad: list[Remark] = []
    for profiles, remarks in run_jobs(parts, workers, tick):
        bad += remarks
        for name, profile in profiles.items():
            if name in total:
                total[name].merge(profile)
            else:
                total[name] = profile
    return total, bad


def store(
    shards: ShardSet,
    profiles: Mapping[str, BandProfile],
    flags: Mapping[str, Sequence[str]],
    normalize: bool,
) -> None:
    """Writes what was measured into the manifest of a shard set.

    Args:
        shards: What was measured.
        profiles: By modality, as `measure` returns them.
        flags: What is suspicious, by modality; stands in place of earlier remarks of this kind.
        normalize: Whether the measured mean and standard deviation normalise from now on.

    Raises:
        DataError: The manifest cannot be written.
    """
    manifest = shards.manifest
    modalities = manifest.modalities
    if normalize:
        modalities = tuple(
            profiles[each.name].moments.apply(each, manifest.release)
            if each.name in profiles
            else each
            for each in modalities
        )
    kept = [each for each in manifest.noted if not each.what.startswith(_NOTE)]
    found = [Remark(f"{_NOTE}{name}", why) for name, reasons in flags.items() for why in reasons]
    statistics = {
        each.name: profiles[each.name].to_dict(each) for each in modalities if each.name in profiles
    }
    replace(manifest, modalities=modalities, noted=(*kept, *found), statistics=statistics).save(
        shards.path
    )
