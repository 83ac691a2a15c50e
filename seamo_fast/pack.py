"""Packs a dataset on disk into shards, and reports what was left out.

python -m seamo_fast.pack /data/ssl4eo-s12 shards/ssl4eo-s12
python -m seamo_fast.pack /data/ssl4eo-s12 shards/ssl4eo-s12 --splits 0.9,0.05,0.05 --verify
python -m seamo_fast.pack cubes shards/cubes --mapping mapping.yaml
python -m seamo_fast.pack photos shards/photos --size 128  # JPEG, PNG, TIFF of any size, in tiles
python -m seamo_fast.pack EuroSAT_RGB shards/eurosat      # a labelled dataset's training images
python -m seamo_fast.pack --check /data/ssl4eo-s12        # only reads and reports
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Final

from tqdm import tqdm

from seamo_fast.cli import Command, progress_bar, say
from seamo_fast.data.packing import check, report
from seamo_fast.data.packing.disk_space import estimate
from seamo_fast.data.packing.leaks.together import find_together
from seamo_fast.data.packing.packer import pack_splits, remove_shards
from seamo_fast.data.packing.shard_job import OnBad, OnMetadata, Plan, Shard
from seamo_fast.data.packing.sources import (
    PlainOptions,
    Source,
    layout_names,
    open_source,
    recognise,
)
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.packing.verify import verify
from seamo_fast.data.shards import Encoding, ShardSet
from seamo_fast.errors import ConfigError, DataError


@dataclass(frozen=True)
class PackSettings:
    """All settings of `python -m seamo_fast.pack`.

    Attributes:
        source: Folder (or NetCDF file) of the dataset.
        out: Folder to write the shards to; an interrupted run of the same command is resumed.
        layout: What the folder holds: the name of a layout; `auto` recognises it.
        mapping: What the files and bands of a series are: a YAML file, or the name of a mapping of
            this package.
        seasons: Dates a sample; 4, or the mapping's, by default.
        modalities: Names of the modalities to pack; the layout's usual ones by default.
        modality: What plain images hold: a registered modality; rgb by default.
        size: Edge of the tiles, in pixels of the finest grid, that images are cut into; by default
            all images have one size, and are not cut.
        part: train, val, test or all: which images to pack where a dataset has parts; train by
            default.
        format: npy (memory-mapped, fastest) or tiff (deflated, smaller).
        splits: Shares of train, val and test such as 0.9,0.05,0.05; each is a shard set in a folder
            of that name in OUT, and no place is in two of them; nor are places that share ground or
            pixels, whatever their names.
        split_cell: Split by cells of so many degrees instead of by the names of places.
        shard_size: Items (locations or places) a shard.
        workers: Processes.
        on_bad: skip (and report) bad tiles, or stop at the first.
        verify: Read everything back after writing and compare the checksums; read the source
            of shards that are kept again too, and compare the pixels.
        overwrite: Delete the shards that OUT holds before packing.
        on_metadata: use the mapping where a file says something else of its numbers, and report
            it; or stop.
        strict: Stop at the first remark of any kind.
        fix_offset: Take 1000 from the Sentinel-2 tiles to which it was added while their modality
            has offset 0, where the tile, its place or its processing baseline leaves no doubt.
    """

    source: Path
    out: Path
    layout: str = "auto"
    mapping: str | None = None
    seasons: int | None = None
    modalities: list[str] | None = None
    modality: str | None = None
    size: int | None = None
    part: str | None = None
    format: Encoding = "npy"
    splits: str | None = None
    split_cell: float = 0.0
    shard_size: int = 512
    workers: int = os.cpu_count() or 1
    on_bad: OnBad = "skip"
    verify: bool = False
    overwrite: bool = False
    on_metadata: OnMetadata = "use"
    strict: bool = False
    fix_offset: bool = False

    def __post_init__(self) -> None:
        _check_shared(self)
        source, out = self.source.resolve(), self.out.resolve()
        if out == source or source in out.parents:
            raise ConfigError(
                f"{self.out} is inside the source {self.source}; name a folder outside of it"
            )


@dataclass(frozen=True)
class CheckSettings:
    """All settings of `python -m seamo_fast.pack --check`, which writes nothing.

    Attributes:
        source: Folder (or NetCDF file) of the dataset.
        layout: As for packing.
        mapping: As for packing.
        seasons: As for packing.
        modalities: As for packing.
        modality: As for packing.
        size: As for packing.
        part: As for packing.
        splits: As for packing; places that share ground or pixels are then reported too.
        split_cell: As for packing.
        workers: Processes.
        strict: End with an error if there is a remark of any kind.
    """

    source: Path
    layout: str = "auto"
    mapping: str | None = None
    seasons: int | None = None
    modalities: list[str] | None = None
    modality: str | None = None
    size: int | None = None
    part: str | None = None
    splits: str | None = None
    split_cell: float = 0.0
    workers: int = os.cpu_count() or 1
    strict: bool = False

    def __post_init__(self) -> None:
        _check_shared(self)


def _check_shared(settings: PackSettings | CheckSettings) -> None:
    if settings.workers < 1:
        raise ConfigError(f"workers must be 1 or more, but got {settings.workers}")
    if settings.split_cell and settings.splits is None:
        raise ConfigError("split_cell needs splits, such as --splits 0.9,0.05,0.05")


_WITH_TEST: Final = ("sen12ms", "terramesh")  # mappings of datasets that have parts


def _open(settings: PackSettings | CheckSettings) -> Source:
    plain = PlainOptions(settings.modality, settings.size, settings.part)
    path, layout, seasons = settings.source, settings.layout, settings.seasons
    source: Source | None = None
    if _may_be_labelled(settings):
        from seamo_fast.tasks.unlabelled import open_labelled  # takes a second

        source = open_labelled(path, layout, seasons, settings.modalities, plain)
    if source is None:
        source = open_source(
            path,
            layout,
            mapping=settings.mapping,
            seasons=seasons,
            modalities=settings.modalities,
            images=plain,
        )
    for line in source.remarks:
        say(line)
    if settings.part is None and source.release in _WITH_TEST:
        say(f"{source.release}: all parts are packed, its test too; --part train leaves others out")
    return source


def _may_be_labelled(settings: PackSettings | CheckSettings) -> bool:
    """Whether a source is no layout of packing by itself, or a part of it is wanted."""
    if settings.mapping is not None:
        return False
    if settings.part is not None:
        return True
    if settings.layout != "auto":
        return settings.layout not in layout_names()
    return recognise(settings.source) is None


_LAYOUTS: Final = fill(f"Layouts: {', '.join(layout_names())}; names of labelled datasets")
CHECK: Final = Command("pack --check", CheckSettings, check.__doc__, positional=True)
COMMAND: Final = Command(
    "pack",
    PackSettings,
    f"{__doc__}\n{_LAYOUTS}",
    positional=True,
    interrupted="run the same command (without --overwrite) again to resume",
)


def _run(settings: PackSettings) -> None:
    plan = Plan(
        settings.out,
        settings.shard_size,
        settings.on_bad,
        settings.format,
        _splits(settings),
        settings.on_metadata,
        settings.strict,
        settings.fix_offset,
        settings.verify,
    )
    source = _open(settings)
    with plan.locked():
        _pack(settings, source, plan)


def _pack(settings: PackSettings, source: Source, plan: Plan) -> None:
    splits, unknown = plan.splits, list[Shard]()
    if settings.overwrite:
        remove_shards(plan)
    room = estimate(source, plan)
    room.check(plan.out)
    items = len(source.items())
    say(f"packing {items} items: {room}")
    together = None
    if splits is not None:
        say("looking for places that share ground or pixels")
        with progress_bar(items) as bar:
            together = find_together(source, splits, workers=settings.workers, tick=bar.update)
    with progress_bar(room.samples) as bar:
        manifests = pack_splits(
            source,
            plan,
            workers=settings.workers,
            progress=_shown(bar, unknown),
            tick=bar.update,
            together=together,
        )
    for split, folder in plan.folders.items():
        if split in manifests:
            for line in report.summary(split, manifests[split], items, folder):
                say(line)
        else:
            say(f"{split}: no sample fell into it, so it was not written")
    if unknown:
        say(
            f"kept {len(unknown)} shards of an earlier version, which wrote down nothing of the "
            "files that they were packed from; --verify compares them with the source"
        )
    if settings.verify:
        _verify([ShardSet(plan.folders[split]) for split in manifests], settings.workers)


def _splits(settings: PackSettings | CheckSettings) -> Splits | None:
    return None if settings.splits is None else Splits.parse(settings.splits, settings.split_cell)


def _check(settings: CheckSettings) -> None:
    splits = _splits(settings)
    source = _open(settings)
    with progress_bar(source.estimate()) as bar:
        found = check.check(source, splits, workers=settings.workers, tick=bar.update)
    say(f"{found.samples} samples of {len(source.items())} items can be packed")
    for title, remarks in (("skipped", found.skipped), ("noted", found.noted)):
        for line in report.listed(title, remarks, ""):
            say(line)
    if settings.strict and (found.skipped or found.noted):
        raise DataError(f"{len(found.skipped) + len(found.noted)} remarks, and strict allows none")


def _shown(bar: tqdm[None], unknown: list[Shard]) -> Callable[[str, Shard], None]:
    """Returns what reports a finished shard: a line where no terminal shows the bar.

    Kept ones of which nobody knows what files they are from are added to `unknown`.
    """

    def show(split: str, shard: Shard) -> None:
        if shard.kept and not shard.report.files:
            unknown.append(shard)
        if bar.disable:
            say(report.shard_line(split, shard))

    return show


def _verify(sets: Sequence[ShardSet], workers: int) -> None:
    samples = sum(len(each) for each in sets)
    with progress_bar(samples) as bar:
        verify(sets, workers, bar.update)
    say(f"verified {samples} samples")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if "--check" in given:
        return CHECK.run(_check, [each for each in given if each != "--check"])
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
