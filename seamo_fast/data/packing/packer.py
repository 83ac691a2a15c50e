"""Packs the items of a source into shards: in parallel, resumably, split by place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from seamo_fast.data.packing.jobs import Tick, run_jobs
from seamo_fast.data.packing.kept import kept_shards
from seamo_fast.data.packing.leaks.together import Together, find_together
from seamo_fast.data.packing.offsets import JudgedTiles, offset_remarks
from seamo_fast.data.packing.repeated import packed_samples, repeated
from seamo_fast.data.packing.shard_job import OnBad, Plan, Shard, ShardJob, StopError
from seamo_fast.data.packing.sources import Source
from seamo_fast.data.shards import Encoding, Manifest, Remark
from seamo_fast.data.shards.remarks import unique
from seamo_fast.data.shards.write_set import remove_partials, write_manifest
from seamo_fast.data.shards.write_shard import ShardReport
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.files import writing


def pack_splits(
    source: Source,
    plan: Plan,
    *,
    workers: int = 1,
    progress: Callable[[str, Shard], None] = lambda split, shard: None,
    tick: Tick = lambda done: None,
    together: Together | None = None,
) -> dict[str, Manifest]:
    """Packs every item of a source; the result does not depend on the number of workers.

    Shards that an earlier run with the same settings finished are kept, if the files of the source
    are those that they were packed from. The caller holds `Plan.locked`. If nothing at all can be
    packed, nothing is left behind that would hinder the next run. With splits the source is scanned
    first for places that share ground or pixels: none of them are in two splits.

    Args:
        source: What to pack.
        plan: How.
        workers: Processes, each packing whole shards.
        progress: Called after each shard, in order, with the name of its split.
        tick: Called with the number of samples that were read since the last call.
        together: What `find_together` found with these splits; None looks.

    Returns:
        The manifest of each split that got a sample; its name is empty without splits. Modalities
        that come without statistics are measured on the first split, for all.

    Raises:
        DataError: There is nothing to pack, a tile is bad and `on_bad` is "stop", a folder
            holds something else or shards of other files, or the disk is full.
        ConfigError: `workers` is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, but got {workers}")
    if together is None:
        splits = plan.splits
        together = find_together(source, splits, workers=workers) if splits else Together()
    try:
        plan.check([], together.remarks)
        found = _pack_shards(source, plan, workers, progress, tick, together)
        return _finish(source, plan, found, together)
    except StopError as error:
        raise DataError(str(error)) from None


def _pack_shards(
    source: Source,
    plan: Plan,
    workers: int,
    progress: Callable[[str, Shard], None],
    tick: Tick,
    together: Together,
) -> dict[str, list[Shard]]:
    """Returns the shards of each split, packed or kept."""
    items = iter(source.items())
    chunks = list(iter(lambda: list(islice(items, plan.shard_size)), []))
    for folder in plan.folders.values():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
    jobs = [
        ShardJob(source, plan, f"shard-{n:05d}", chunk, together.of(chunk))
        for n, chunk in enumerate(chunks)
    ]
    try:
        return _packed(jobs, kept_shards(jobs, workers, tick), workers, progress, tick)
    finally:
        for folder in plan.folders.values():
            remove_partials(folder)


def _packed(
    jobs: Sequence[ShardJob],
    kept: Mapping[str, dict[str, Shard]],
    workers: int,
    progress: Callable[[str, Shard], None],
    tick: Tick,
) -> dict[str, list[Shard]]:
    """Packs what is not kept; returns the shards of each split in order."""
    found: dict[str, list[Shard]] = {}
    missing = [
        replace(
            job, missing=tuple(each for each in job.targets if each not in kept.get(job.name, {}))
        )
        for job in jobs
    ]
    packed = run_jobs([job for job in missing if job.missing], workers, tick)
    for job in missing:
        shards = {**kept.get(job.name, {}), **(next(packed) if job.missing else {})}
        for split in job.targets:
            progress(split, shards[split])
            found.setdefault(split, []).append(shards[split])
    return found


def _finish(
    source: Source, plan: Plan, found: dict[str, list[Shard]], together: Together
) -> dict[str, Manifest]:
    """Writes the manifests; a split without a sample leaves nothing behind."""
    filled = [
        split for split, shards in found.items() if any(each.entry.samples for each in shards)
    ]
    empty = [split for split in found if split not in filled]
    for split in empty:
        _remove(plan.folders[split], found[split])
    # what was left out of a split that has no manifest
    skipped = [each for split in empty for shard in found[split] for each in shard.report.skipped]
    manifests: dict[str, Manifest] = {}
    modalities = source.modalities
    noted = {
        split: [
            *together.noted.get(split, ()),
            *_judged(source, found[split]),
            *repeated(packed_samples(plan.folders[split], _filled(found[split]))),
        ]
        for split in filled
    }
    for remarks in noted.values():
        plan.check([], remarks)
    for split in filled or list(found)[:1]:
        finished = _finished(plan.folders[split], found[split], noted.get(split, ()))
        manifests[split] = finished or write_manifest(
            plan.folders[split],
            modalities,
            source.arrays,
            [shard.entry for shard in found[split]],
            [shard.report for shard in found[split]],
            source=f"{source.layout}: {source.path.resolve().name}",
            release=source.release,
            skipped=skipped,
            noted=noted.get(split, ()),
            encoding=plan.encoding,
        )
        modalities, skipped = manifests[split].modalities, []
    return manifests


def _filled(shards: Sequence[Shard]) -> list[str]:
    return [shard.entry.name for shard in shards if shard.entry.samples]


def _judged(source: Source, shards: Sequence[Shard]) -> list[Remark]:
    """Returns what contradicts the offsets of the modalities in a whole set."""
    parts = [
        {name: JudgedTiles(**each) for name, each in shard.report.radiometry.items()}
        for shard in shards
    ]
    return offset_remarks(source.modalities, parts)


def _finished(folder: Path, shards: Sequence[Shard], noted: Sequence[Remark]) -> Manifest | None:
    """Returns the manifest of these very shards, which may hold statistics, if there is one."""
    if not all(shard.kept for shard in shards) or not (folder / "manifest.json").is_file():
        return None
    manifest = Manifest.load(folder)
    entries = [shard.entry for shard in shards if shard.entry.samples]
    if list(manifest.shards) != entries:
        return None
    if not set(noted) <= set(manifest.noted):  # earlier versions did not look for such places
        manifest = replace(manifest, noted=unique([*noted, *manifest.noted]))
        manifest.save(folder)
    return manifest


def _remove(folder: Path, shards: Sequence[Shard]) -> None:
    for shard in shards:
        shutil.rmtree(folder / shard.entry.name, ignore_errors=True)
    with suppress(OSError):  # something else is there
        folder.rmdir()


def pack(
    source: Source,
    out: Path,
    *,
    shard_size: int = 512,
    workers: int = 1,
    on_bad: OnBad = "skip",
    encoding: Encoding = "npy",
    progress: Callable[[Shard], None] = lambda shard: None,
) -> Manifest:
    """Packs a source into one shard set; see `Plan` and `pack_splits`."""
    plan = Plan(out, shard_size, on_bad, encoding)
    with plan.locked():
        manifests = pack_splits(
            source, plan, workers=workers, progress=lambda _, shard: progress(shard)
        )
    return manifests[""]


def remove_shards(plan: Plan) -> None:
    """Deletes the shard sets that are where a plan would write.

    Raises:
        DataError: One of them was not written by this program, or cannot be deleted.
    """
    for folder in plan.folders.values():
        found = sorted(folder.glob("shard-*"))
        for shard in found:
            ShardReport.load(shard)
        with writing(folder):
            (folder / "manifest.json").unlink(missing_ok=True)
            for shard in found:
                shutil.rmtree(shard)
