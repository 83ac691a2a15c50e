"""Packs a dataset on disk into shards: `python -m seamo_fast.pack SOURCE OUT`."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from tqdm import tqdm

from seamo_fast.data.packing.disk_space import estimate
from seamo_fast.data.packing.jobs import count, run_jobs
from seamo_fast.data.packing.packer import OnBad, Plan, Shard, pack_splits, remove_shards
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards.manifest import Encoding, Manifest, Remark, record_bytes
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import ConfigError, DataError, SeaMoError

_SHOWN = 10


def command(
    source: Path,
    out: Path,
    layout: str = "auto",
    mapping: str | None = None,
    seasons: int | None = None,
    modalities: list[str] | None = None,
    format: Encoding = "npy",
    splits: str | None = None,
    split_cell: float = 0.0,
    shard_size: int = 512,
    workers: int = os.cpu_count() or 1,
    on_bad: OnBad = "skip",
    verify: bool = False,
    overwrite: bool = False,
) -> None:
    """Packs a dataset into shards and reports what was left out.

    Args:
        source: Folder (or NetCDF file) of the dataset.
        out: Folder to write the shards to; an interrupted run of the same command is continued.
        layout: auto, ssl4eo-v1.0, ssl4eo-v1.0-lmdb, ssl4eo-v1.1, series, or a mapping of this
            package: terramesh, sen12ms, sen12ms_cr, worldcereal.
        mapping: What the files and bands of a series are: a YAML file, or one of these names.
        seasons: Dates a sample; 4, or the mapping's, by default.
        modalities: Names of the modalities to pack; the layout's usual ones by default.
        format: npy (memory-mapped, fastest) or tiff (deflated, smaller).
        splits: Shares of train, val and test such as 0.9,0.05,0.05; each is a shard set in a folder
            of that name in OUT, and no place is in two of them.
        split_cell: Split by cells of so many degrees instead of by the names of places.
        shard_size: Items (locations or places) a shard.
        workers: Processes.
        on_bad: skip (and report) bad tiles, or stop at the first.
        verify: Read everything back after writing and compare the checksums.
        overwrite: Delete the shards that OUT holds before packing.
    """
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, but got {workers}")
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise ConfigError(f"{out} lies in the source {source}; name a folder outside of it")
    if split_cell and splits is None:
        raise ConfigError("split_cell needs splits, such as --splits 0.9,0.05,0.05")
    parsed = None if splits is None else Splits.parse(splits, split_cell)
    plan = Plan(out, shard_size, on_bad, format, parsed)
    opened = open_source(source, layout, mapping=mapping, seasons=seasons, modalities=modalities)
    if overwrite:
        remove_shards(plan)
    room = estimate(opened, plan)
    room.check(out)
    total = len(opened.items())
    say(f"packing {total} items: {room}")
    with progress_bar(room.samples) as bar:
        manifests = pack_splits(
            opened, plan, workers=workers, progress=partial(_show, bar), tick=partial(advance, bar)
        )
    for split, manifest in manifests.items():
        _report(split, manifest, total, plan.folders[split])
    for split in plan.folders.keys() - manifests.keys():
        say(f"{split}: no sample fell into it, so it was not written")
    if verify:
        _verify([plan.folders[split] for split in manifests], workers)


def progress_bar(samples: int) -> tqdm[None]:
    """Returns a bar over so many samples, with rate and time left; silent if no terminal reads."""
    return tqdm(total=samples, unit="sample", disable=not sys.stderr.isatty())


def advance(bar: tqdm[None], done: int) -> None:
    """Moves a bar on by so many samples."""
    bar.update(done)


def _show(bar: tqdm[None], split: str, shard: Shard) -> None:
    if bar.disable:
        state = "kept" if shard.kept else "packed"
        name = f"{split}/{shard.entry.name}" if split else shard.entry.name
        left_out = f", {len(shard.report.skipped)} skipped" if shard.report.skipped else ""
        say(f"{state} {name}: {shard.entry.samples} samples{left_out}")


def _report(split: str, manifest: Manifest, total: int, out: Path) -> None:
    samples = sum(entry.samples for entry in manifest.shards)
    if manifest.encoding == "npy":
        size = record_bytes(list(manifest.arrays.values())) * samples
    else:
        size = sum(file.stat().st_size for file in out.rglob("*.tif"))
    title = f"{split}: " if split else ""
    say(f"{title}packed {samples} samples of {total} items into {out} ({size / 1e6:.1f} MB)")
    _list("skipped", manifest.skipped, out)
    _list("noted", manifest.noted, out)


def _list(title: str, remarks: Sequence[Remark], out: Path) -> None:
    if remarks:
        say(f"{title} {len(remarks)}:")
    for remark in remarks[:_SHOWN]:
        say(f"  {remark.what}: {remark.why}")
    if len(remarks) > _SHOWN:
        say(f"  and {len(remarks) - _SHOWN} more, all in {out / 'manifest.json'}")


@dataclass(frozen=True)
class _Verification:
    """Reads one shard back; picklable."""

    path: Path
    shard: int

    def run(self) -> list[str]:
        shards = ShardSet(self.path)
        bad = shards.verify(self.shard)
        count(shards.manifest.shards[self.shard].samples)
        return bad


def _verify(folders: Sequence[Path], workers: int) -> None:
    """Raises DataError if a record does not read back as it was packed."""
    sets = [ShardSet(folder) for folder in folders]
    jobs = [_Verification(each.path, n) for each in sets for n in range(len(each.manifest.shards))]
    samples = sum(len(each) for each in sets)
    with progress_bar(samples) as bar:
        results = run_jobs(jobs, workers, partial(advance, bar))
        bad = [message for each in results for message in each]
    if bad:
        raise DataError(f"{len(bad)} of {samples} samples are damaged; the first: {bad[0]}")
    say(f"verified {samples} samples")


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_command(
    function: Callable[..., None],
    prog: str,
    arguments: Sequence[str] | None,
    description: str,
    interrupted: str = "",
) -> int:
    """Runs a command; a failure that the user can mend is one line and exit status 2.

    Args:
        function: Its parameters are the arguments and options of the command.
        prog: What the user types.
        arguments: What follows it; those of this process if None.
        description: What `--help` says first.
        interrupted: What Ctrl-C leaves to do.
    """
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_function_arguments(function, as_group=False, as_positional=True)
    given = _switched(function, sys.argv[1:] if arguments is None else arguments)
    settings = parser.instantiate(parser.parse_args(given))
    try:
        function(**settings.as_dict())
    except SeaMoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted{interrupted}\n")
        return 130
    return 0


def _switched(function: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """Lets the switches of a command stand without a value."""
    switches = {
        f"--{name}"
        for name, each in inspect.signature(function).parameters.items()
        if each.default is False
    }
    values = [*arguments[1:], ""]
    return [
        f"{argument}=true" if argument in switches and value not in ("true", "false") else argument
        for argument, value in zip(arguments, values, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `python -m seamo_fast.pack`."""
    return run_command(
        command,
        "python -m seamo_fast.pack",
        arguments,
        __doc__ or "",
        "; run the same command (without --overwrite) again to continue",
    )


if __name__ == "__main__":
    sys.exit(main())
