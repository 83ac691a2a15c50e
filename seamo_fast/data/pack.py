"""Packs a dataset on disk into shards: `python -m seamo_fast.data.pack SOURCE OUT`."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from jsonargparse import ArgumentParser
from tqdm import tqdm

from seamo_fast.data.folder import ShardFolder, ShardReport, finished_entry
from seamo_fast.data.manifest import Manifest, Remark, ShardEntry, writing
from seamo_fast.data.sources import Reading, Source, open_source
from seamo_fast.data.writing import remove_partials, write_manifest
from seamo_fast.errors import ConfigError, DataError, SeaMoError

OnBad = Literal["skip", "stop"]
_SHOWN = 10


class Shard(NamedTuple):
    """A finished shard: its entry, what went into it, and whether an earlier run made it."""

    entry: ShardEntry
    report: ShardReport
    kept: bool


@dataclass(frozen=True)
class _Job:
    """One shard to pack; picklable."""

    source: Source
    out: Path
    name: str
    items: list[str]
    on_bad: OnBad

    def run(self) -> Shard:
        target = self.out / self.name
        if target.exists():
            return self._keep(target)
        report = ShardReport(items=self.items, settings=_plain(self.source.settings))
        source = self.source
        # A series yields several samples an item, so this bound is only for messages.
        with ShardFolder(
            self.out, self.name, source.modalities, source.arrays, len(self.items)
        ) as folder:
            for item in self.items:
                for reading in self._readings(item, report):
                    folder.add(reading.id, reading.arrays, reading.dates, reading.valid)
            entry = folder.close(report)
        return Shard(entry, report, kept=False)

    def _readings(self, item: str, report: ShardReport) -> Iterator[Reading]:
        try:
            for reading in self.source.read(item):
                for remark in reading.skipped:
                    self._skip(remark, report)
                report.noted += reading.noted
                if reading.empty:
                    self._skip(Remark(reading.id, "no tile of it can be used"), report)
                else:
                    yield reading
        except DataError as error:
            self._skip(Remark(item, str(error)), report)

    def _skip(self, remark: Remark, report: ShardReport) -> None:
        if self.on_bad == "stop":
            raise _StopError(f"{remark.what}: {remark.why}")
        report.skipped.append(remark)

    def _keep(self, target: Path) -> Shard:
        report = ShardReport.load(target)
        if report.items != self.items or report.settings != _plain(self.source.settings):
            raise DataError(
                f"{target} was packed from other items or with other settings; "
                "choose another folder, or delete this one"
            )
        return Shard(finished_entry(target), report, kept=True)


class _StopError(SeaMoError):
    """The first bad tile with on_bad="stop"."""


def _plain(settings: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(settings))


def pack(
    source: Source,
    out: Path,
    *,
    shard_size: int = 512,
    workers: int = 1,
    on_bad: OnBad = "skip",
    progress: Callable[[Shard], None] = lambda shard: None,
) -> Manifest:
    """Packs every item of a source; the result does not depend on the number of workers.

    Shards that an earlier run with the same settings finished are kept.

    Args:
        source: What to pack.
        out: Folder to write.
        shard_size: Items a shard.
        workers: Processes, each packing whole shards.
        on_bad: What a bad tile does: "skip" makes its group invalid and reports it, "stop" raises.
        progress: Called after each shard, in order.

    Raises:
        DataError: There is nothing to pack, a tile is bad and `on_bad` is "stop", `out` holds
            something else, or the disk is full.
        ConfigError: `shard_size` or `workers` is below 1.
    """
    if shard_size < 1 or workers < 1:
        raise ConfigError(
            f"shard_size and workers must be 1 or more, but got {shard_size} and {workers}"
        )
    items = iter(source.items())
    chunks = list(iter(lambda: list(islice(items, shard_size)), []))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    jobs = [
        _Job(source, out, f"shard-{number:05d}", chunk, on_bad)
        for number, chunk in enumerate(chunks)
    ]
    shards = []
    try:
        for shard in _run(jobs, workers):
            progress(shard)
            shards.append(shard)
    except _StopError as error:
        raise DataError(str(error)) from None
    finally:
        remove_partials(out)
    return write_manifest(
        out,
        source.modalities,
        source.arrays,
        [shard.entry for shard in shards],
        [shard.report for shard in shards],
        source=f"{source.layout}: {source.path.resolve().name}",
        release=source.release,
    )


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[Shard]:
    if min(workers, len(jobs)) <= 1:
        yield from map(_Job.run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _die_on_interrupt) as pool:
        try:
            with _interrupts_held():
                shards = pool.map(_Job.run, jobs)
            yield from shards
        except BrokenProcessPool:
            raise DataError(
                "a packing process died, most often for lack of memory; run the same command "
                "again with fewer workers (finished shards are kept)"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Makes processes that start inside ignore Ctrl-C until `_die_on_interrupt` runs in them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _die_on_interrupt() -> None:
    """Lets Ctrl-C end a worker without a traceback; the main process reports it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def command(
    source: Path,
    out: Path,
    layout: str = "auto",
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: list[str] | None = None,
    shard_size: int = 512,
    workers: int = os.cpu_count() or 1,
    on_bad: OnBad = "skip",
) -> None:
    """Packs a dataset into shards and reports what was left out.

    Args:
        source: Folder (or NetCDF file) of the dataset.
        out: Folder to write the shards to; an interrupted run of the same command is continued.
        layout: auto, ssl4eo-v1.0 or series.
        mapping: What the bands of a series are: a YAML file, or worldcereal.
        seasons: Dates a sample; 4, or the mapping's, by default.
        modalities: Names of the modalities to pack; the layout's usual ones by default.
        shard_size: Items (locations or places) a shard.
        workers: Processes.
        on_bad: skip (and report) bad tiles, or stop at the first.
    """
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise ConfigError(f"{out} lies in the source {source}; name a folder outside of it")
    opened = open_source(source, layout, mapping=mapping, seasons=seasons, modalities=modalities)
    total = len(opened.items())
    with tqdm(total=total, unit="item", disable=not sys.stderr.isatty()) as bar:
        manifest = pack(
            opened,
            out,
            shard_size=shard_size,
            workers=workers,
            on_bad=on_bad,
            progress=partial(_show, bar),
        )
    samples = sum(entry.samples for entry in manifest.shards)
    size = sum(spec.nbytes for spec in manifest.arrays.values()) * samples
    _say(f"packed {samples} samples of {total} items into {out} ({size / 1e6:.1f} MB)")
    _list("skipped", manifest.skipped, out)
    _list("noted", manifest.noted, out)


def _show(bar: tqdm[None], shard: Shard) -> None:
    bar.update(len(shard.report.items))
    if bar.disable:
        state = "kept" if shard.kept else "packed"
        left_out = f", {len(shard.report.skipped)} skipped" if shard.report.skipped else ""
        _say(f"{state} {shard.entry.name}: {shard.entry.samples} samples{left_out}")


def _list(title: str, remarks: Sequence[Remark], out: Path) -> None:
    if remarks:
        _say(f"{title} {len(remarks)}:")
    for remark in remarks[:_SHOWN]:
        _say(f"  {remark.what}: {remark.why}")
    if len(remarks) > _SHOWN:
        _say(f"  and {len(remarks) - _SHOWN} more, all in {out / 'manifest.json'}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; a failure that the user can mend is one line and exit status 2."""
    parser = ArgumentParser(prog="python -m seamo_fast.data.pack", description=__doc__)
    parser.add_function_arguments(command, as_group=False, as_positional=True)
    settings = parser.instantiate(parser.parse_args(arguments))
    try:
        command(**settings.as_dict())
    except SeaMoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to continue\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
