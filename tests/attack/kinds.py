"""The kinds of inputs, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tests.attack import (
    commands,
    files,
    images,
    known_data,
    known_doors,
    known_trust,
    runs,
    settings,
    shards,
    task_files,
    tensors,
)
from tests.attack import weights as checkpoints
from tests.attack.ground import Ground
from tests.attack.isolate import Attack

Make = Callable[[np.random.Generator, Ground, Path], Attack]


class Kind(NamedTuple):
    """How inputs of a kind are made, and their share of all; 0 for the one that is always there."""

    make: Make
    weight: int


def _known(name: str, case: Callable[[Ground, Path], str]) -> Make:
    def make(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
        return Attack(name, lambda: case(ground, folder), str, 120.0)

    return make


KINDS: Final[dict[str, Kind]] = {
    **{
        f"known: {name}": Kind(_known(name, case), 0)
        for name, case in {**known_data.KNOWN, **known_doors.KNOWN, **known_trust.KNOWN}.items()
    },
    "known: local_file": Kind(partial(files.netcdf, how="external"), 0),
    "shards: manifest": Kind(shards.manifest, 12),
    "shards: records": Kind(shards.records, 9),
    "shards: arrays": Kind(shards.arrays, 7),
    "shards: tiles": Kind(shards.tiles, 6),
    "weights: header": Kind(checkpoints.header, 7),
    "weights: config": Kind(checkpoints.config, 9),
    "weights: tensors": Kind(checkpoints.tensors, 4),
    "checkpoint: record": Kind(checkpoints.record, 7),
    "checkpoint: resume": Kind(checkpoints.resume, 5),
    "settings: pretrain": Kind(settings.pretraining, 8),
    "settings: finetune": Kind(settings.finetuning, 4),
    "settings: words": Kind(settings.words, 5),
    "settings: mapping": Kind(settings.mapping, 8),
    "files: datasets": Kind(files.sources, 12),
    "files: labelled": Kind(files.labelled, 10),
    "files: images": Kind(files.images, 4),
    "files: archives": Kind(files.archives, 5),
    "files: netcdf": Kind(files.netcdf, 4),
    "files: strange": Kind(files.strange, 2),
    "tensors: values": Kind(tensors.values, 4),
    "tensors: invalid": Kind(tensors.invalid, 4),
    "tensors: alone": Kind(tensors.alone, 4),
    "tensors: dates": Kind(tensors.dates, 4),
    "tensors: shapes": Kind(tensors.shapes, 4),
    "tasks: metadata": Kind(task_files.metadata, 4),
    "tasks: tensors": Kind(task_files.tensors, 4),
    "tasks: given": Kind(task_files.given, 2),
    "finetune: settings": Kind(runs.settings, 3),
    "finetune: data": Kind(runs.data, 3),
    "finetune: resume": Kind(runs.resume, 4),
    "finetune: finished": Kind(runs.finished, 2),
    "files: packed images": Kind(images.packed, 4),
    "commands": Kind(commands.line, 2),
}
