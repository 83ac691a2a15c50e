"""The settings of a finetuning run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from seamo_fast.errors import expect, expect_seed
from seamo_fast.tasks.datasets.reading.base import OnBad

Method = Literal["linear", "full"]


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of `python -m seamo_fast.finetune`.

    Attributes:
        data: EuroSAT's class folders, or the folder that an archive was unpacked in.
        dataset: What the folder holds; `auto` looks.
        checkpoint: Pretrained weights: a model.safetensors, a checkpoint folder or a run folder;
            `none` for random weights.
        model: Size of the model; null for the checkpoint's, or tiny without one.
        method: `linear` trains a linear probe on frozen features, `full` all parameters.
        output: Folder of the results; null for runs/<dataset>-<method>-<checkpoint>, with -2, -3
            ... at its end where there is one.
        epochs: Passes over the training images (`full`); validation chooses one.
        batch_size: Images a step.
        blr: Base learning rate (`full`); the peak is blr * batch_size / 256, at the defaults that
            of MAE's recipe, 2e-3.
        weight_decay: Of matrices (`full`).
        layer_decay: Factor of the learning rate from each block to the one before it (`full`).
        label_smoothing: Share of the target that goes to all classes alike (`full`).
        seed: Of weights, order of images and flips. The split does not depend on it.
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`.
        precision: `auto` takes bfloat16 where the hardware has matrix units for it, else float32.
        on_bad: What an image that cannot be read does: `skip` counts it and continues without it,
            `stop` ends the run.
        strict: End the run if images look like another unit than that of their dataset, instead
            of warning.
    """

    data: str
    dataset: Literal["auto", "eurosat_rgb", "eurosat_ms"] = "auto"
    checkpoint: str = "none"
    model: Literal["tiny", "small", "base", "large"] | None = None
    method: Method = "linear"
    output: str | None = None
    epochs: int = 8
    batch_size: int = 32
    blr: float = 16e-3
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    label_smoothing: float = 0.1
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    on_bad: OnBad = "skip"
    strict: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "blr": (0 < self.blr < math.inf, "above 0 and finite"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0 and finite"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
        }
        for key, (holds, expected) in ranges.items():
            expect(holds, key, expected, getattr(self, key))
        expect_seed("seed", self.seed)
