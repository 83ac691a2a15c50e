"""Statistics of a dataset or shard set: `python -m seamo_fast.stats SOURCE`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from seamo_fast.data.checks.band_profile import BandProfile, suspicions
from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.sources import Source, open_source
from seamo_fast.data.shards.manifest import Manifest, Remark, is_packed
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality
from seamo_fast.pack import advance, progress_bar, run_command, say

_ITEMS = 64  # of a dataset, a job
_NOTE = "statistics"  # what remarks of this command are about
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
                bad.append(Remark(item, str(error)))

    def _stored(self, shards: ShardSet, bad: list[Remark]) -> _Groups:
        for number in map(int, self.items):
            count()
            try:
                sample = shards.read(number)
            except DataError as error:
                bad.append(Remark(f"sample {number}", str(error)))
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


def command(
    source: Path,
    layout: str = "auto",
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: list[str] | None = None,
    workers: int = os.cpu_count() or 1,
    normalize: bool = False,
) -> None:
    """Measures every band in one pass and flags what contradicts the modality's unit and offset.

    Args:
        source: A shard set, whose manifest gets the result; or a dataset that can be packed.
        layout: Layout of a dataset, as for the pack command.
        mapping: Mapping of a dataset, as for the pack command.
        seasons: Dates a sample of a dataset.
        modalities: Names of the modalities of a dataset.
        workers: Processes.
        normalize: Also make the measured mean and standard deviation those that normalise the
            shard set from now on.
    """
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, but got {workers}")
    packed = is_packed(source)
    if normalize and not packed:
        raise ConfigError(f"normalize needs a shard set, but {source} has no manifest.json")
    opened: Source | ShardSet
    if packed:
        opened = ShardSet(source)
    else:
        opened = open_source(
            source, layout, mapping=mapping, seasons=seasons, modalities=modalities
        )
    samples = len(opened) if isinstance(opened, ShardSet) else opened.estimate()
    with progress_bar(samples) as bar:
        profiles, bad = measure(opened, workers=workers, tick=partial(advance, bar))
    if bad:
        say(f"{len(bad)} tiles or samples cannot be read; the first: {bad[0].what}: {bad[0].why}")
    flags = [
        Remark(f"{_NOTE} of {modality.name}", why)
        for modality in opened.modalities
        for why in _report(modality, profiles.get(modality.name))
    ]
    if isinstance(opened, ShardSet):
        _store(opened, profiles, flags, normalize)


def _report(modality: Modality, profile: BandProfile | None) -> list[str]:
    """Prints what a modality looks like; returns what is suspicious."""
    offset = f", offset {modality.offset:g}" if modality.offset else ""
    say(f"{modality.name} ({modality.unit}{offset})")
    if profile is None:
        say("  flag: no valid group")
        return ["no valid group"]
    say(f"  {'band':<14}{'mean':>10}{'std':>10}{'min':>10}{'p1':>8}{'p99':>8}{'max':>10}  nodata")
    for name, band in profile.to_dict(modality).items():
        if not band["count"]:
            say(f"  {name:<14}{'none measured':>10}")
            continue
        low, high = (f"{band[key]:.0f}" if key in band else "" for key in ("p1", "p99"))
        say(
            f"  {name:<14}{band['mean']:>10.5g}{band['std']:>10.5g}{band['minimum']:>10.5g}"
            f"{low:>8}{high:>8}{band['maximum']:>10.5g}{band['unmeasured']:>8.2%}"
        )
    flags = suspicions(modality, profile)
    for why in flags:
        say(f"  flag: {why}")
    return flags


def _store(
    shards: ShardSet, profiles: dict[str, BandProfile], flags: list[Remark], normalize: bool
) -> None:
    """Writes the result into the manifest."""
    manifest: Manifest = shards.manifest
    modalities = manifest.modalities
    if normalize:
        modalities = tuple(
            profiles[each.name].moments.apply(each, manifest.release)
            if each.name in profiles
            else each
            for each in modalities
        )
    kept = tuple(each for each in manifest.noted if not each.what.startswith(f"{_NOTE} of "))
    replace(
        manifest,
        modalities=modalities,
        noted=(*kept, *flags),
        statistics={
            each.name: profiles[each.name].to_dict(each)
            for each in modalities
            if each.name in profiles
        },
    ).save(shards.path)
    say(f"written to {shards.path / 'manifest.json'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `python -m seamo_fast.stats`."""
    return run_command(command, "python -m seamo_fast.stats", arguments, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
