"""What the inputs are made from: good shards, a good run, good weights, written once."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from seamo_fast import SeaMoBackbone, finetune, pretrain
from seamo_fast.data import ShardWriter
from seamo_fast.data.shards import Encoding
from seamo_fast.modalities import get_modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.tasks.finetuning import run as finetuning
from tests.attack.series import write_series
from tests.data.packing import fuzzing
from tests.eurosat import make_eurosat
from tests.tasks.datasets.test_fuzz import DATASETS
from tests.tasks.evaluation.toys import write_checkpoint, write_mask_folder
from tests.tasks.finetuning.task_models import HEADS, task_model

SEASONS: Final = 2
SIZE: Final = 12
SAMPLES: Final = 5
MODALITIES: Final = (get_modality("s2l2a"), get_modality("s1grd"))
TINY: Final = ModelConfig(
    width=16,
    depth=1,
    heads=2,
    image_size=16,
    patch_size=8,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
)
RUN: Final = {
    "data": {"batch_size": 4, "workers": 0},
    "model": {name: getattr(TINY, name) for name in (
        "width", "depth", "heads", "image_size", "patch_size", "decoder_width", "decoder_depth",
        "decoder_heads")},
    "schedule": {"kind": "direct", "multi_season": {"epochs": 3}},
    "run": {"device": "cpu", "precision": "fp32", "tensorboard": False, "figure_samples": 1,
            "log_every": 1, "checkpoint_every": 1, "keep": 3},
}  # fmt: skip
FINETUNE: Final = {"method": "full", "epochs": 2, "batch_size": 6, "bootstrap": 100,
                   "device": "cpu", "precision": "fp32", "tensorboard": False, "log_every": 1,
                   "compile": "off"}  # fmt: skip


class Stored(NamedTuple):
    """One sample as it was written: what an independent look compares with."""

    grids: dict[str, list[np.ndarray]]
    valid: np.ndarray
    days: np.ndarray


def sample(number: int) -> Stored:
    """Returns sample `number`; one group of every second is missing."""
    rng = np.random.default_rng(number)
    grids: dict[str, list[np.ndarray]] = {}
    for modality in MODALITIES:
        grids[modality.name] = []
        for grid in modality.grids:
            side = round(SIZE * modality.grids[0].gsd / grid.gsd)
            shape = (SEASONS, len(grid.bands), side, side)
            values = rng.integers(200, 4000, shape, dtype=np.uint16)
            if modality.unit == "db":
                values = rng.normal(-14, 4, shape).astype(np.float32)
            grids[modality.name].append(values)
    valid = np.ones((SEASONS, len(MODALITIES)), bool)
    valid[1, 1] = number % 2 == 0
    for group in grids["s1grd"]:
        group[~valid[:, 1]] = 0
    first = (date(2020, 3, 5 + number) - date(1970, 1, 1)).days
    return Stored(grids, valid, np.array([[first] * 2, [first + 90] * 2]))


class Ground:
    """Good files in a folder; each is made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Makes all of them, and goes once through the doors, which import what they need."""
        for name in ("npy", "tiff", "run", "datasets", "remarks", "labelled", "series",
                     "task_models", "stopped"):  # fmt: skip
            getattr(self, name)
        SeaMoBackbone.from_checkpoint(self.run)

    def shards(self, encoding: Encoding = "npy") -> Path:
        """Returns shards of two and three samples."""
        return self.tiff if encoding == "tiff" else self.npy

    @cached_property
    def npy(self) -> Path:
        return self._write("npy")

    @cached_property
    def tiff(self) -> Path:
        return self._write("tiff")

    def _write(self, encoding: Encoding) -> Path:
        folder = self.folder / f"shards-{encoding}"
        writer = ShardWriter(
            folder, MODALITIES, SEASONS, source="made", release="r", shard_size=3, encoding=encoding
        )
        for number in range(SAMPLES):
            made = sample(number)
            days = {
                m.name: [date.fromordinal(719163 + int(d)) for d in made.days[:, i]]
                for i, m in enumerate(MODALITIES)
            }
            valid = {m.name: made.valid[:, i].tolist() for i, m in enumerate(MODALITIES)}
            writer.add(f"place-{number}", made.grids, days, valid)
        writer.finish()
        return folder

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of a run of three steps."""
        tree = json.loads(json.dumps(RUN))
        tree["data"]["path"] = str(self.npy)
        return tree

    @cached_property
    def run(self) -> Path:
        """A run that ended, with three checkpoints."""
        folder = self.folder / "run"
        config = self.folder / "run.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        with contextlib.redirect_stdout(io.StringIO()):
            status = pretrain.main(["--config", str(config), "--run.folder", str(folder)])
        assert status == 0
        return folder

    @cached_property
    def checkpoint(self) -> Path:
        """The newest checkpoint of the run."""
        return max((self.run / "checkpoints").glob("step_*"))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """What the run logged."""
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @cached_property
    def datasets(self) -> Path:
        """A dataset of every layout that is packed, by `fuzzing.KINDS`."""
        folder = self.folder / "datasets"
        folder.mkdir()
        for kind, (write, _) in fuzzing.KINDS.items():
            write(folder / kind)
        return folder

    @cached_property
    def remarks(self) -> dict[str, set[Any]]:
        """What packing says of each of these datasets while nothing is wrong."""
        out = self.folder / "packed"
        found = {}
        for kind in fuzzing.SAYING:
            found[kind] = set(fuzzing.KINDS[kind][1](self.datasets / kind, out))
            shutil.rmtree(out)
        return found

    @cached_property
    def labelled(self) -> Path:
        """A labelled dataset of every layout, by its name in the tests of their readers."""
        folder = self.folder / "labelled"
        for kind, (make, _) in DATASETS.items():
            (folder / kind).mkdir(parents=True)
            make(folder / kind)
        return folder

    @cached_property
    def series(self) -> Path:
        """Two places with two dates of two modalities, as GeoTIFF."""
        folder = self.folder / "series"
        write_series(folder)
        return folder

    @cached_property
    def small(self) -> Path:
        """Weights for Sentinel-2 and RGB."""
        return write_checkpoint(self.folder / "small.safetensors")

    @cached_property
    def eurosat(self) -> Path:
        """Thirty images of three classes."""
        return make_eurosat(self.folder / "eurosat", "eurosat_rgb")

    @cached_property
    def masks(self) -> Path:
        """Eight images with masks of two classes."""
        return write_mask_folder(self.folder / "masks")

    @cached_property
    def task_models(self) -> Path:
        """Untrained models of every task with every head."""
        folder = self.folder / "task_models"
        folder.mkdir()
        for number, (head, task) in enumerate(HEADS):
            task_model(head, task).save(folder / f"{number}.safetensors")
        return folder

    @cached_property
    def finetuned(self) -> Path:
        """A finetuning that ended."""
        return self.stopped.with_name("finetuned")

    @cached_property
    def stopped(self) -> Path:
        """The same before its results: with the survey, two checkpoints and the best weights."""
        folder, stopped = self.folder / "finetuned", self.folder / "stopped"
        write, draw = finetuning.write_results, finetuning.draw

        def copy_first(*given: Any) -> None:
            shutil.copytree(folder, stopped, ignore=shutil.ignore_patterns(".*"))
            write(*given)

        finetuning.write_results, finetuning.draw = copy_first, lambda *_: None
        try:
            status = finetune.main([str(word) for word in finetune_line(self, folder)])
        finally:
            finetuning.write_results, finetuning.draw = write, draw
        assert status == 0
        return stopped


def finetune_line(ground: Ground, out: Path, **changes: object) -> tuple[object, ...]:
    """Returns the words of a finetuning of two epochs that takes a second."""
    given = {"data": ground.eurosat, "checkpoint": ground.small, "output": out, **FINETUNE}
    return tuple(f"--{key}={value}" for key, value in {**given, **changes}.items())
