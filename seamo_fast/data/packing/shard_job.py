"""The shards of one number: how they are packed, and what an earlier run wrote down of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from seamo_fast.data.packing.jobs import count
from seamo_fast.data.packing.offsets import JudgedTiles, add_judged, judge_reading
from seamo_fast.data.packing.radiometry import Judged
from seamo_fast.data.packing.sources import Reading, Source
from seamo_fast.data.packing.sources.fingerprint import fingerprint
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards import Encoding, Remark, ShardEntry
from seamo_fast.data.shards.remarks import unique
from seamo_fast.data.shards.write_shard import ShardFolder, ShardReport
from seamo_fast.errors import ConfigError, DataError, SeaMoError
from seamo_fast.files import locked

_MOVED: Final = "moved"  # in the settings of a shard's report
OnBad = Literal["skip", "stop"]
OnMetadata = Literal["use", "stop"]


class StopError(SeaMoError):
    """The first remark that ends packing, as the plan says."""


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
        verify: Whether shards that are kept are compared with what the source holds.

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
    verify: bool = False

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"shard_size must be 1 or more, but got {self.shard_size}")

    @property
    def folders(self) -> dict[str, Path]:
        """Where each split goes; the name is empty without splits."""
        names = self.splits.names if self.splits else ()
        return {name: self.out / name for name in names} or {"": self.out}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folders that are written; splits left empty go.

        Raises:
            ConfigError: Another process has one, or it cannot be made.
        """
        with ExitStack() as stack:
            for folder in dict.fromkeys((self.out, *self.folders.values())):
                stack.enter_context(locked(folder, "OUT", "folder"))
            yield
        for folder in self.folders.values():
            with suppress(OSError):  # it holds something
                folder.rmdir()

    def check(self, skipped: Iterable[Remark], noted: Iterable[Remark]) -> None:
        """Raises StopError with the first remark that ends packing."""
        stops = chain(
            (r for r in skipped if self.strict or self.on_bad == "stop"),
            (
                r
                for r in noted
                if self.strict or (self.on_metadata == "stop" and r.kind == "override")
            ),
        )
        remark = next(stops, None)
        if remark is not None:
            raise StopError(f"{remark.what}: {remark.why}")

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
class ShardJob:
    """The shards of one number, one in each split; picklable.

    Attributes:
        source: What is packed.
        plan: How.
        name: Of the shard.
        items: That go into it.
        moved: Places that share ground or pixels with others: place -> split.
        missing: The splits for which `run` packs it.
    """

    source: Source
    plan: Plan
    name: str
    items: list[str]
    moved: dict[str, str]
    missing: tuple[str, ...] = ()

    @property
    def targets(self) -> dict[str, Path]:
        """The shard's folder in each split."""
        return {split: folder / self.name for split, folder in self.plan.folders.items()}

    def reports(self) -> dict[str, ShardReport]:
        """Returns the reports of the splits that have the shard already.

        Raises:
            DataError: It was packed from other items or with other settings, or is damaged.
            StopError: Of the first remark in them that ends packing.
        """
        targets = self.targets.items()
        return {split: self._report_of(target) for split, target in targets if target.exists()}

    def fingerprints(self) -> list[str]:
        """Returns what the files of each item are."""
        return [fingerprint(self.source.path, self._files(item)) for item in self.items]

    def run(self) -> dict[str, Shard]:
        """Packs the shard of the splits that lack it.

        Raises:
            StopError: Of the first remark that ends packing.
            DataError: The disk is full.
        """
        source, settings = self.source, self._settings()
        files = self.fingerprints()  # before they are read: a change meanwhile will be noticed
        reports = {
            split: ShardReport(self.items, settings, files=files) for split in self.plan.folders
        }
        tiles: dict[str, dict[str, JudgedTiles]] = {split: {} for split in self.missing}
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
                for split in self.missing
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

    def _files(self, item: str) -> list[Path]:
        try:
            return list(self.source.files(item))
        except (DataError, OSError):  # reading says why
            return []

    def _report(
        self, skipped: Sequence[Remark], noted: Sequence[Remark], report: ShardReport
    ) -> None:
        self.plan.check(skipped, noted)
        report.skipped += skipped
        report.noted += noted

    def _report_of(self, target: Path) -> ShardReport:
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
        return report
