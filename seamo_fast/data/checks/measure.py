"""One pass over a dataset or a shard set, and what it measures in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from seamo_fast.data.checks.band_profile import BandProfile
from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.shards import Manifest, Remark, ShardSet
from seamo_fast.data.shards.remarks import unique
from seamo_fast.errors import DataError
from seamo_fast.files import locked
from seamo_fast.modalities import MISSING_DATE, Modality

_ITEMS: Final = 64  # of a dataset, a job
_NOTE: Final = "statistics of "  # how remarks on statistics begin
_EPOCH: Final = date(1970, 1, 1)


class _Groups(NamedTuple):
    """What one modality has of a sample; the arguments of `BandProfile.add`."""

    modality: Modality
    grids: Sequence[np.ndarray]
    valid: np.ndarray
    id: str
    dates: Sequence[date | None]
    baselines: Sequence[float | None] = ()


@dataclass(frozen=True)
class _Part:
    """A piece of a dataset or of a shard set to be measured; picklable."""

    source: Source | Path
    items: list[str]

    def run(self) -> tuple[dict[str, BandProfile], list[Remark]]:
        profiles: dict[str, BandProfile] = {}
        bad: list[Remark] = []
        for groups in self._groups(bad):
            name = groups.modality.name
            if name not in profiles:
                profiles[name] = BandProfile(len(groups.modality.bands))
            profiles[name].add(*groups)
        return profiles, bad

    def _groups(self, bad: list[Remark]) -> Iterator[_Groups]:
        if isinstance(self.source, Path):
            yield from self._stored(ShardSet(self.source), bad)
            return
        for item in self.items:
            try:
                for reading in self.source.read(item):
                    count()
                    bad += reading.skipped
                    for modality in self.source.modalities:
                        name = modality.name
                        if name in reading.arrays:
                            yield _Groups(
                                modality,
                                reading.arrays[name],
                                np.array(reading.valid[name], bool),
                                reading.id,
                                reading.dates[name],
                                reading.baselines.get(name, ()),
                            )
            except DataError as error:
                count()
                bad.append(Remark(item, str(error), error.kind))

    def _stored(self, shards: ShardSet, bad: list[Remark]) -> Iterator[_Groups]:
        for number in map(int, self.items):
            count()
            try:
                sample = shards.read(number)
            except DataError as error:
                bad.append(Remark(f"sample {number}", str(error), error.kind))
                continue
            for column, modality in enumerate(shards.modalities):
                yield _Groups(
                    modality,
                    sample.bands[modality.name],
                    sample.valid[:, column],
                    shards.id(number),
                    [_date(day) for day in sample.dates[:, column].tolist()],
                )


def _date(day: int) -> date | None:
    return None if day == MISSING_DATE else _EPOCH + timedelta(day)


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
        DataError: The manifest cannot be written, or the shards are others than were measured.
        ConfigError: Another process writes them.
    """
    with locked(shards.path, "the shard set", "one"):
        manifest = Manifest.load(shards.path)
        if manifest.shards != shards.manifest.shards:
            raise DataError(
                f"{shards.path} was packed again while it was measured; run the same command again"
            )
        _store(shards.path, manifest, profiles, flags, normalize)


def _store(
    folder: Path,
    manifest: Manifest,
    profiles: Mapping[str, BandProfile],
    flags: Mapping[str, Sequence[str]],
    normalize: bool,
) -> None:
    modalities = manifest.modalities
    if normalize:
        modalities = tuple(
            profiles[each.name].moments.apply(each, manifest.release)
            if each.name in profiles
            else each
            for each in modalities
        )
    kept = [each for each in manifest.noted if not each.what.startswith(_NOTE)]
    said = {each.why for each in kept}
    found = [Remark(f"{_NOTE}{name}", why) for name, reasons in flags.items() for why in reasons]
    found = [each for each in found if each.why not in said]
    for each in modalities:
        if each.name in profiles:
            found += profiles[each.name].tiles.remarks(each)[1:]
    statistics = {
        each.name: profiles[each.name].to_dict(each) for each in modalities if each.name in profiles
    }
    replace(
        manifest, modalities=modalities, noted=unique([*kept, *found]), statistics=statistics
    ).save(folder)
