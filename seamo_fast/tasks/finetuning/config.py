"""The settings of a finetuning."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from seamo_fast.errors import ConfigError, expect, expect_seed
from seamo_fast.model.inputs import UnknownBands
from seamo_fast.tasks.datasets.open import DatasetOptions
from seamo_fast.tasks.datasets.reading.base import OnBad
from seamo_fast.tasks.finetuning.augment import Orientations
from seamo_fast.tasks.finetuning.heads import HeadName
from seamo_fast.tasks.finetuning.methods import Method
from seamo_fast.training.config import Compile, OptimConfig


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(DatasetOptions):
    """All settings of `python -m seamo_fast.finetune`.

    Attributes:
        data: Folder of a labelled dataset, or `demo` for generated places.
        dataset: Its name; `auto` looks.
        checkpoint: Pretrained weights: a model.safetensors, a checkpoint folder or a run folder;
            `none` for random weights.
        model: Size of the model; null for the checkpoint's, or tiny without one.
        unknown_bands: What becomes of bands that the checkpoint does not know by name and
            wavelength: `nearest` takes the weights of the nearest wavelength, at most 100 nm away,
            `zero` starts from zero (`full`; others leave such bands out), `leave_out` leaves them
            out.
        method: `linear` fits a linear probe on frozen features (of masks it trains a linear head),
            `frozen` trains a head, `lora` a head and adapters in the blocks, `full` everything.
        head: `linear`, `attention` (classes) or `fpn` (masks); null for linear, of masks fpn.
        output: Folder of the results; null for runs/<dataset>-<method>-<checkpoint>, with -2, -3
            ... at its end where there is one.
        train_fraction: Share of the labels of the training and validation parts that is used,
            within each class.
        shots: Labelled items of each class instead, of as many validate; null for all.
        size: Side of the windows in pixels; null for whole images, of masks for the size of
            pretraining.
        epochs: Passes over the training items; validation chooses one.
        patience: Epochs without a better one that end the run; null for none.
        batch_size: Windows a step, of all ranks together.
        accumulate: Micro-batches that a rank's part of a batch is cut into.
        blr: Base learning rate; the peak is blr * batch_size / 256.
        warmup_fraction: Share of the steps in which the rate rises linearly from 0.
        weight_decay: Of matrices.
        layer_decay: Factor of the learning rate from each block to the one before it.
        clip: Largest norm of the gradient; null for no clipping.
        drop_path: Rate at which the last block is skipped in training, that of others rises to it.
        lora_rank: Rank of an adapter.
        lora_alpha: What an adapter adds is multiplied by lora_alpha / lora_rank.
        loss: `cross_entropy`, `focal`, `dice`, `lovasz`, or a sum such as cross_entropy+dice.
        focal_gamma: How much less counts in the focal loss what is right already.
        class_weights: `balanced` lets all classes count alike in the loss.
        label_smoothing: Share of the target that goes to all classes alike; null for 0.1 where an
            image has one class, else 0.
        augment: `flips` along both axes, `turns` by quarters as well, or `none`.
        mixup: a of mixup's Beta(a, a), of classes; 0 for none.
        cutmix: a of cutmix's Beta(a, a), of classes; 0 for none.
        bootstrap: Resamples of the test items for the intervals.
        seed: Of weights, order, windows and augmentation. The split does not depend on it.
        seeds: Runs, with seed, seed + 1 ..., and a summary of them.
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`.
        precision: `auto` takes bfloat16 where the hardware has matrix units for it, else float32.
        compile: As in pretraining.
        on_bad: What an item that cannot be read does: `skip` counts it and continues without it,
            `stop` ends the run.
        strict: End the run if images look like another unit than that of their dataset, instead
            of warning.
        workers: Batches that are read at once, each by a thread.
        checkpoint_every: Steps between checkpoints; every epoch ends with one as well.
        log_every: Steps between lines of metrics.
        max_nonfinite: Steps without a finite gradient, one after the other, that end the run.
        tensorboard: Write TensorBoard events.
        wandb: Project of Weights & Biases that gets the metrics; null for none.
    """

    data: str = "demo"
    dataset: str = "auto"
    checkpoint: str = "none"
    model: Literal["tiny", "small", "base", "large"] | None = None
    unknown_bands: UnknownBands = "nearest"
    method: Method = "linear"
    head: HeadName | None = None
    output: str | None = None
    train_fraction: float = 1.0
    shots: int | None = None
    size: int | None = None
    epochs: int = 8
    patience: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    blr: float = 16e-3
    warmup_fraction: float = 0.1
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    clip: float | None = None
    drop_path: float = 0.0
    lora_rank: int = 8
    lora_alpha: int = 16
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float | None = None
    augment: Orientations = "turns"
    mixup: float = 0.0
    cutmix: float = 0.0
    bootstrap: int = 1000
    seed: int = 0
    seeds: int = 1
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Compile = "auto"
    on_bad: OnBad = "skip"
    strict: bool = False
    workers: int = 2
    checkpoint_every: int = 1000
    log_every: int = 20
    max_nonfinite: int = 5
    tensorboard: bool = True
    wandb: str | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "lora_rank", "lora_alpha", "seeds")
        for key in (*counts, "checkpoint_every", "log_every", "max_nonfinite"):
            expect(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        for key in ("size", "patience", "shots"):
            value = getattr(self, key)
            expect(value is None or value >= 1, key, "at least 1, or null", value)
        smoothing = self.label_smoothing
        ranges = {
            "data": (self.data != "", "the name of a folder, or demo"),
            "output": (self.output != "", "the name of a folder, or null"),
            "train_fraction": (0 < self.train_fraction <= 1, "in (0, 1]"),
            "blr": (0 < self.blr < math.inf, "above 0 and finite"),
            "warmup_fraction": (0 <= self.warmup_fraction <= 1, "in [0, 1]"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0 and finite"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "clip": (self.clip is None or 0 < self.clip < math.inf, "above 0 and finite, or null"),
            "drop_path": (0 <= self.drop_path < 1, "in [0, 1)"),
            "focal_gamma": (0 <= self.focal_gamma < math.inf, "at least 0 and finite"),
            "label_smoothing": (smoothing is None or 0 <= smoothing < 1, "in [0, 1), or null"),
            "mixup": (0 <= self.mixup < math.inf, "at least 0 and finite"),
            "cutmix": (0 <= self.cutmix < math.inf, "at least 0 and finite"),
            "bootstrap": (self.bootstrap >= 100, "at least 100"),
            "workers": (0 <= self.workers <= 1000, "in [0, 1000]"),
        }
        for key, (holds, expected) in ranges.items():
            expect(holds, key, expected, getattr(self, key))
        if self.method == "linear" and self.head not in (None, "linear"):
            raise ConfigError(
                f"method linear has no head {self.head}; give --method frozen, or leave --head out"
            )
        expect_seed("seed", self.seed)
        expect_seed("seed + seeds - 1", self.seed + self.seeds - 1)

    @property
    def schedule(self) -> OptimConfig:
        """What the learning rate of each step follows from."""
        return OptimConfig(blr=self.blr, warmup_fraction=self.warmup_fraction)


# Settings that change no result, and so may change when a run resumes.
FREE_KEYS: Final = frozenset(
    {
        *("data", "checkpoint", "output", "workers", "accumulate", "max_nonfinite", "seeds"),
        *("checkpoint_every", "log_every", "tensorboard", "wandb"),
    }
)


def fixed_settings(config: FinetuneConfig) -> dict[str, Any]:
    """Returns the settings that a run keeps when it resumes; data and weights count by contents."""
    return {key: value for key, value in asdict(config).items() if key not in FREE_KEYS}
