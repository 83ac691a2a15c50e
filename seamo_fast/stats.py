"""Measures every band of a dataset or shard set in one pass and reports what is suspicious.

python -m seamo_fast.stats shards/ssl4eo-s12
python -m seamo_fast.stats shards/ssl4eo-s12 --normalize
python -m seamo_fast.stats /data/ssl4eo-s12 --layout ssl4eo-v1.0
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seamo_fast.cli import Command, progress_bar, say
from seamo_fast.data.checks.measure import measure, store
from seamo_fast.data.checks.opening import open_data
from seamo_fast.data.checks.report import table
from seamo_fast.data.checks.suspicions import suspicions
from seamo_fast.data.shards import ShardSet, is_packed
from seamo_fast.errors import ConfigError


@dataclass(frozen=True)
class StatsSettings:
    """All settings of `python -m seamo_fast.stats`.

    Attributes:
        source: A shard set, whose manifest gets the result; or a dataset that can be packed.
        layout: Layout of a dataset, as for the pack command.
        mapping: Mapping of a dataset, as for the pack command.
        seasons: Dates a sample of a dataset.
        modalities: Names of the modalities of a dataset.
        workers: Processes.
        normalize: Also make the measured mean and standard deviation those that normalise the
            shard set from now on.
    """

    source: Path
    layout: str = "auto"
    mapping: str | None = None
    seasons: int | None = None
    modalities: list[str] | None = None
    workers: int = os.cpu_count() or 1
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers must be 1 or more, but got {self.workers}")
        if self.normalize and not is_packed(self.source):
            raise ConfigError(
                f"normalize needs a shard set, but {self.source} has no manifest.json"
            )


COMMAND: Final = Command("stats", StatsSettings, __doc__, positional=True)


def _run(settings: StatsSettings) -> None:
    source = open_data(
        settings.source,
        settings.layout,
        settings.mapping,
        settings.seasons,
        settings.modalities,
    )
    samples = len(source) if isinstance(source, ShardSet) else source.estimate()
    with progress_bar(samples) as bar:
        profiles, bad = measure(source, workers=settings.workers, tick=bar.update)
    if bad:
        say(f"{len(bad)} tiles or samples cannot be read; the first: {bad[0].what}: {bad[0].why}")
    flags = {each.name: suspicions(each, profiles.get(each.name)) for each in source.modalities}
    for modality in source.modalities:
        for line in table(modality, profiles.get(modality.name), flags[modality.name]):
            say(line)
    if isinstance(source, ShardSet):
        store(source, profiles, flags, settings.normalize)
        say(f"written to {source.path / 'manifest.json'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
