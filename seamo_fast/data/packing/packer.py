"""Packs the items of a source into shards: in parallel, resumably, split by place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from seamo_fast.data.packing.jobs import Tick, count, run_jobs
from seamo_fast.data.packing.leaks.together import Together, find_together
from seamo_fast.data.packing.offsets import (
    JudgedTiles,
    add_judged,
    judge_reading,
    offset_remarks,
)
from seamo_fast.data.packing.radiometry import Judged
from seamo_fast.data.packing.repeated import packed_samples, repeated
from seamo_fast.data.packing.sources import Reading, Source
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards import Encoding, Manifest, Remark, ShardEntry
from seamo_fast.data.shards.remarks import unique
from seamo_fast.data.shards.write_set import remove_partials, write_manifest
from seamo_fast.data.shards.write_shard import ShardFolder, ShardReport, finished_entry
from seamo_fast.errors import ConfigError, DataError, SeaMoError
from seamo_fast.files import writing

_MOVED: Final = "moved"  # in the settings of a shard's report
OnBad = Literal["skip", "stop"]
OnMetadata = Literal["use", "stop"]


class Shard(NamedTuple):
    """A finished shard: its entry, what went into it, and whether an earlier run made it."""

    entry: ShardEntry
    report: ShardReport
    kept: bool


@dataclass(frozen=True)
class Plan:
    """How a source is packed.

    Attributes:
        out: Folder to write; with splits each goes to a folder of its name below.
        shard_size: Items a shard.
        on_bad: What a bad tile does: "skip" makes its group invalid and reports it, "stop" raises.
        encoding: How arrays are stored, "npy" or "tiff".
        splits: Parts that are packed apart, None for one set.
        on_metadata: What it does that a file says something else of its numbers than the mapping:
            "use" takes the mapping and reports it, "stop" raises.
        strict: Whether the first remark of any kind raises.
        fix_offset: Whether to take 1000 from Sentinel-2 tiles that have it for sure while their
            modality has offset 0.

    Raises:
        ConfigError: `shard_size` is below 1.
    """

    out: Path
    shard_size: int = 512
    on_bad: OnBad = "skip"
    encoding: Encoding = "npy"
    splits: Splits | None = None
    on_metadata: OnMetadata = "use"
    strict: bool = False
    fix_offset: bool = False

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"shard_size must be 1 or more, but got {self.shard_size}")

    @property
    def folders(self) -> dict[str, Path]:
        """Where each split goes; the name is empty without splits."""
        names = self.splits.names if self.splits else ()
        return {name: self.out / name for name in names} or {"": self.out}

    def check(self, skipped: Iterable[Remark], noted: Iterable[Remark]) -> None:
        """Raises _StopError with the first remark that ends packing."""
        stops = [each for each in skipped if self.strict or self.on_bad == "stop"]
        stops += [
            each
            for each in noted
            if self.strict or (self.on_metadata == "stop" and each.kind == "override")
        ]
        for remark in stops:
            raise _StopError(f"{remark.what}: {remark.why}")

    def settings(self, source: Source) -> dict[str, Any]:
        """Returns what decides the content of a shard, besides its items."""
        splits = self.splits and [list(self.splits.shares), self.splits.cell]
        settings = {
            "source": source.path.resolve().name,
            **source.settings,
            "encoding": self.encoding,
            "splits": splits,
        }
        if self.fix_offset:  # only then: sets that earlier versions began are resumed
            settings["fix_offset"] = True
        return json.loads(json.dumps(settings))


@dataclass(frozen=True)
class _Job:
    """The shards of one number, one in each split; picklable."""

    source: Source
    plan: Plan
    name: str
    items: list[str]
    moved: dict[str, str]  # places that share ground or pixels with others: place -> split

    def run(self) -> dict[str, Shard]:
        targets = {split: folder / self.name for split, folder in self.plan.folders.items()}
        shards = {split: self._keep(each) for split, each in targets.items() if each.exists()}
        missing = [split for split in targets if split not in shards]
        if missing:
            shards.update(self._pack(missing))
        else:
            count(sum(shard.entry.samples for shard in shards.values()))
        return shards

    def _pack(self, splits: Sequence[str]) -> dict[str, Shard]:
        source, settings = self.source, self._settings()
        reports = {split: ShardReport(self.items, settings) for split in self.plan.folders}
        tiles: dict[str, dict[str, JudgedTiles]] = {split: {} for split in splits}
        with ExitStack() as stack:
            folders = {
                split: stack.enter_context(
                    # An item may yield several samples: the bound is only for messages.
                    ShardFolder(
                        self.plan.folders[split],
                        self.name,
                        source.modalities,
                        source.arrays,
                        len(self.items),
                        self.plan.encoding,
                    )
                )
                for split in splits
            }
            for split, reading, judged in self._readings(reports):
                if split in folders:
                    add_judged(tiles[split], reading, judged)
                    folders[split].add(
                        reading.id,
                        reading.arrays,
                        reading.dates,
                        reading.valid,
                        reading.place,
                        reading.position,
                    )
            for report in reports.values():  # what holds for a whole set is said of each sample
                report.noted = list(unique(report.noted))
            for split, found in tiles.items():
                reports[split].radiometry = {name: each.to_dict() for name, each in found.items()}
            return {
                split: Shard(folder.close(reports[split]), reports[split], kept=False)
                for split, folder in folders.items()
            }

    def _readings(
        self, reports: Mapping[str, ShardReport]
    ) -> Iterator[tuple[str, Reading, dict[str, Judged]]]:
        first = next(iter(reports))
        for item in self.items:
            try:
                for reading in self.source.read(item):
                    count()
                    split = first if reading.empty else self._split(reading)
                    judged = judge_reading(reading, self.source.modalities, self.plan.fix_offset)
                    self._report(reading.left_out, reading.noted, reports[split])
                    if not reading.empty:
                        yield split, reading, judged
            except DataError as error:
                count()
                self._report([Remark(item, str(error), error.kind)], [], reports[first])

    def _split(self, reading: Reading) -> str:
        splits, place = self.plan.splits, reading.place or reading.id
        if splits is None:
            return ""
        return self.moved.get(place) or splits.choose(place, reading.position)

    def _settings(self) -> dict[str, Any]:
        # a shard without such places is what earlier versions made, so theirs are kept
        settings = self.plan.settings(self.source)
        return {**settings, _MOVED: self.moved} if self.moved else settings

    def _report(
        self, skipped: Sequence[Remark], noted: Sequence[Remark], report: ShardReport
    ) -> None:
        self.plan.check(skipped, noted)
        report.skipped += skipped
        report.noted += noted

    def _keep(self, target: Path) -> Shard:
        report, settings = ShardReport.load(target), self._settings()
        if report.items != self.items or report.settings != settings:
            why = "from other items or with other settings"
            besides = {**report.settings, _MOVED: None} == {**settings, _MOVED: None}
            if report.items == self.items and besides:
                why = "with another grouping of the places that share ground or pixels"
            raise DataError(
                f"{target} was packed {why}; choose another "
                "folder, or give --overwrite to delete the shards in this one"
            )
        self.plan.check(report.skipped, report.noted)
        return Shard(finished_entry(target), report, kept=True)


class _StopError(SeaMoError):
    """The first remark that ends packing, as the plan says."""


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

    Shards that an earlier run with the same settings finished are kept. If nothing at all can be
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
            holds something else, or the disk is full.
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
    except _StopError as error:
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
        _Job(source, plan, f"shard-{n:05d}", chunk, together.of(chunk))
        for n, chunk in enumerate(chunks)
    ]
    found: dict[str, list[Shard]] = {split: [] for split in plan.folders}
    try:
        for shards in run_jobs(jobs, workers, tick):
            for split, shard in shards.items():
                progress(split, shard)
                found[split].append(shard)
    finally:
        for folder in plan.folders.values():
            remove_partials(folder)
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
