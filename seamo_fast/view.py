"""Draws samples of a dataset or shard set as a model will be fed them: a contact sheet.

python -m seamo_fast.view shards/ssl4eo-s12
python -m seamo_fast.view shards/ssl4eo-s12 --numbers '[5,17]' --out two.pdf
python -m seamo_fast.view cubes --mapping mapping.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seamo_fast.cli import Command, say
from seamo_fast.data.checks.contact_sheet import draw, source_samples, stored_samples
from seamo_fast.data.checks.opening import open_data
from seamo_fast.data.shards import ShardSet
from seamo_fast.errors import ConfigError, DataError, expect, expect_once
from seamo_fast.files import new_name, replacing, writing

_PICTURES: Final = (".png", ".jpg", ".pdf", ".svg")


@dataclass(frozen=True)
class ViewSettings:
    """All settings of `python -m seamo_fast.view`.

    Attributes:
        source: Folder of shards, or a dataset that `python -m seamo_fast.pack` reads.
        out: Picture to write; null for view.png, or view-2.png ... where there is one.
        samples: How many samples, the first ones.
        numbers: Which samples of a folder of shards instead.
        layout: As for pack.
        mapping: As for pack.
        seasons: As for pack.
        modalities: Names of the modalities to show; all by default.
    """

    source: Path
    out: Path | None = None
    samples: int = 3
    numbers: list[int] | None = None
    layout: str = "auto"
    mapping: str | None = None
    seasons: int | None = None
    modalities: list[str] | None = None

    def __post_init__(self) -> None:
        expect(self.samples >= 1, "samples", "at least 1", self.samples)
        expect_once("modalities", self.modalities)
        if self.out is not None and self.out.suffix.lower() not in _PICTURES:
            raise ConfigError(f"out must end in one of {', '.join(_PICTURES)}, but got {self.out}")


COMMAND: Final = Command("view", ViewSettings, __doc__, positional=True)


def _run(settings: ViewSettings) -> None:
    source = open_data(
        settings.source,
        settings.layout,
        settings.mapping,
        settings.seasons,
        settings.modalities,
    )
    if isinstance(source, ShardSet):
        first = range(min(settings.samples, len(source)))
        numbers = first if settings.numbers is None else settings.numbers
        found = list(stored_samples(source, numbers))
        modalities = source.select(settings.modalities)
    else:
        found = list(source_samples(source, settings.samples))
        modalities = source.modalities
    if not found:
        raise DataError(f"{settings.source} holds no sample that can be shown")
    figure = draw(modalities, found, f"{settings.source.name}: {len(found)} samples")
    out = settings.out or new_name(Path("view.png"))
    with writing(out), replacing(out) as temporary:
        figure.savefig(temporary, format=out.suffix[1:].lower())
    say(f"{out}: {', '.join(each.id for each in found)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
