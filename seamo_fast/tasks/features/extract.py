"""The passes over the images of a dataset: band statistics once, then features in chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from seamo_fast.cli import progress_bar
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.errors import DataError
from seamo_fast.files import write_json
from seamo_fast.modalities import Modality
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.randomness import generator
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import LabelledTile, OnBad
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.tasks.features.inputs import Inputs, by_shape, check_units, read_inputs
from seamo_fast.tasks.features.items import label_of
from seamo_fast.tasks.features.reading import (
    add_tile,
    chunked,
    no_statistics,
    read_chunks,
    with_statistics,
)
from seamo_fast.tasks.features.store import LABELS, Store, named

_HALF: Final = 6e4  # maps are kept as float16


@dataclass(frozen=True)
class Source:
    """A dataset, and where what is made of it is kept.

    Attributes:
        opened: The dataset and its split.
        store: Its cache.
        on_bad: What an item that cannot be read does.
        strict: End if images look like another unit, instead of warning.
    """

    opened: Opened
    store: Store
    on_bad: OnBad = "skip"
    strict: bool = False

    def chunks(self, part: str) -> list[Sequence[int]]:
        """Returns the numbers of a part's items, chunk by chunk."""
        return chunked(getattr(self.opened.split, part), self.opened.dataset.task)

    def read(
        self, chunks: Sequence[Sequence[int]]
    ) -> Iterator[tuple[dict[int, LabelledTile], list[str]]]:
        """Yields what `read_chunks` does of the dataset's chunks."""
        return read_chunks(self.opened.dataset, chunks, self.on_bad)


def measured_modalities(source: Source) -> tuple[Modality, ...]:
    """Returns the dataset's modalities with the statistics of its training part.

    Raises:
        DataError: A band has the same value everywhere, or no item can be read.
    """
    path = source.store.folder / "statistics.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {name: each.to_dict() for name, each in _measure(source).items()})
    found = json.loads(path.read_text(encoding="utf-8"))
    statistics = {name: BandStatistics.from_dict(each) for name, each in found.items()}
    return with_statistics(source.opened, statistics)


def _measure(source: Source) -> dict[str, BandStatistics]:
    statistics = no_statistics(source.opened)
    chunks = source.chunks("train")
    with progress_bar(sum(map(len, chunks))) as bar:
        bar.set_description("statistics")
        for (tiles, _), chunk in zip(source.read(chunks), chunks, strict=True):
            for tile in tiles.values():
                add_tile(statistics, source.opened, tile)
            bar.update(len(chunk))
    return statistics


def extract(source: Source, extractors: Sequence[Extractor]) -> list[str]:
    """Makes what the cache lacks of the features and labels of all three parts.

    Images are read once for all extractors. A chunk's features do not depend on which chunks were
    there before.

    Args:
        source: The images.
        extractors: What to make of them.

    Returns:
        Why items were left out.

    Raises:
        DataError: None of the items of a part can be read, items differ in their number of seasons
            where these are kept apart, or as `Source.read`.
    """
    for extractor in extractors:
        if _lacking(source, [extractor]):
            extractor.prepare(lambda count: _draw(source, count))
    reasons: list[str] = []
    seasons: set[int] = set()
    for part in source.opened.split._fields:
        _extract_part(source, part, extractors)
        found = [
            source.store.metadata(LABELS, part, chunk) for chunk in range(len(source.chunks(part)))
        ]
        skipped = [reason for each in found for reason in json.loads(each["skipped"])]
        if len(skipped) == len(getattr(source.opened.split, part)):
            raise DataError(f"no item of the {part} part can be read: {skipped[0]}")
        reasons += skipped
        seasons.update(count for each in found for count in json.loads(each["seasons"]))
    if len(seasons) > 1 and any(extractor.keeps_seasons for extractor in extractors):
        raise DataError(
            f"items of {source.opened.root} have {' or '.join(map(str, sorted(seasons)))} seasons, "
            "but features that keep them apart need one number; `evaluate` compares items with "
            "--pooling mean --baselines '[random]'"
        )
    return reasons


def _lacking(source: Source, extractors: Sequence[Extractor]) -> list[tuple[str, int]]:
    """Returns the part and number of each chunk that an extractor lacks."""
    return [
        (part, chunk)
        for part in source.opened.split._fields
        for chunk in range(len(source.chunks(part)))
        if _kinds(source, part, chunk, extractors)
    ]


def _kinds(
    source: Source, part: str, chunk: int, extractors: Sequence[Extractor]
) -> dict[str, Extractor | None]:
    """Returns what is lacking of a chunk by name; None for labels."""
    wanted: dict[str, Extractor | None] = {LABELS: None}
    wanted.update((named(extractor.key), extractor) for extractor in extractors)
    return {kind: each for kind, each in wanted.items() if not source.store.has(kind, part, chunk)}


def _extract_part(source: Source, part: str, extractors: Sequence[Extractor]) -> None:
    chunks = source.chunks(part)
    lacking = [n for n in range(len(chunks)) if _kinds(source, part, n, extractors)]
    check = UnitCheck(source.strict)
    with progress_bar(sum(len(chunks[number]) for number in lacking)) as bar:
        bar.set_description(f"features of {part}")
        read = source.read([chunks[number] for number in lacking])
        for number, (tiles, skipped) in zip(lacking, read, strict=True):
            kinds = _kinds(source, part, number, extractors)
            if LABELS in kinds:
                _write_labels(source, part, number, tiles, skipped)
            wanted = {kind: extractor for kind, extractor in kinds.items() if extractor}
            made = _features(tiles, wanted, source.opened.dataset.modalities, check)
            for kind, tensors in made.items():
                source.store.write(kind, part, number, tensors)
            bar.update(len(chunks[number]))


def _write_labels(
    source: Source,
    part: str,
    chunk: int,
    tiles: Mapping[int, LabelledTile],
    skipped: Sequence[str],
) -> None:
    seasons = {len(next(iter(tile.valid.values()))) for tile in tiles.values()}
    source.store.write(
        LABELS,
        part,
        chunk,
        labels_of(tiles, source.opened.dataset.task),
        skipped=json.dumps(skipped),
        seasons=json.dumps(sorted(seasons)),
    )


def _features(
    tiles: Mapping[int, LabelledTile],
    extractors: Mapping[str, Extractor],
    modalities: Sequence[Modality],
    check: UnitCheck,
) -> dict[str, dict[str, Tensor]]:
    """Returns by extractor the features of each item, by its number."""
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in extractors}
    for group in by_shape(tiles):
        inputs = read_inputs(list(group.values()), modalities)
        check_units(check, modalities, inputs.images, inputs.valid)
        for kind, extractor in extractors.items():
            features = extractor(inputs)
            kept = features.clamp(-_HALF, _HALF).half() if extractor.dense else features
            found[kind].update(
                {f"{number:09d}": each.clone() for number, each in zip(group, kept, strict=True)}
            )
    return found


def labels_of(tiles: Mapping[int, LabelledTile], task: str) -> dict[str, Tensor]:
    """Returns the label or mask of each item, by its number.

    Raises:
        DataError: An item has none.
    """
    found = {}
    for number, tile in tiles.items():
        found[f"{number:09d}"] = label_of(tile, task).to(torch.int16)
    return found


def _draw(source: Source, count: int) -> Iterator[Inputs]:
    """Yields so many items of the training part, drawn by a fixed rule.

    Others take the place of those that cannot be read, as long as there are any.
    """
    numbers = source.opened.split.train
    order = generator(0, "draw").random(len(numbers)).argsort(kind="stable").tolist()
    while count and order:
        drawn, order = sorted(numbers[at] for at in order[:count]), order[count:]
        for tiles, _ in source.read(chunked(drawn, source.opened.dataset.task)):
            count -= len(tiles)
            for group in by_shape(tiles):
                yield read_inputs(list(group.values()), source.opened.dataset.modalities)
