"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seamo_fast.errors import ConfigError, expect, expect_seed
from seamo_fast.tasks.datasets.open import DatasetOptions
from seamo_fast.tasks.datasets.reading.base import OnBad
from seamo_fast.tasks.features.extractors import Pooling
from seamo_fast.tasks.probes.linear import Method

Baseline = Literal["random", "statistics", "pca"]
FrozenBands = Literal["leave_out", "nearest"]


@dataclass(frozen=True)
class ProbeConfig:
    """What is fitted on features, and how it is judged.

    Attributes:
        method: Linear probes by logistic regression, or by ridge regression in closed form.
        train_fraction: Share of the labels of the training and validation parts that is used.
        shots: Labelled items a class (patches, where pixels have labels) of the few-shot probes;
            as many of the validation part choose their penalty.
        draws: How often each number of shots is drawn.
        bootstrap: Resamples of the test items for the intervals.
        patches: Most patches that train, where pixels have labels; half as many validate.
        seed: Of random weights and all draws. The split does not depend on it.
    """

    method: Method = "logistic"
    train_fraction: float = 1.0
    shots: tuple[int, ...] = (1, 5, 10, 50)
    draws: int = 5
    bootstrap: int = 1000
    patches: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "train_fraction": (0 < self.train_fraction <= 1, "in (0, 1]"),
            "shots": (all(k >= 1 for k in self.shots), "at least 1 each"),
            "draws": (self.draws >= 1, "at least 1"),
            "bootstrap": (self.bootstrap >= 100, "at least 100"),
            "patches": (self.patches >= 100, "at least 100"),
        }
        for key, (holds, expected) in ranges.items():
            expect(holds, key, expected, getattr(self, key))
        expect_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DatasetOptions, ProbeConfig):
    """All settings of `python -m seamo_fast.evaluate`.

    Attributes:
        data: Folder of a labelled dataset, or `demo` for generated places.
        checkpoints: Pretrained weights: a model.safetensors, a checkpoint folder or a run folder
            each; without any, the baselines alone.
        dataset: Its name; `auto` looks.
        baselines: Rows beside the checkpoints: `random` weights of the first checkpoint's model,
            per-band `statistics`, and `pca` of raw pixels.
        reference: Row that the others are compared with; null for `random`, or the first row.
        unknown_bands: What becomes of bands that a checkpoint does not know by name and wavelength:
            `nearest` takes the weights of the nearest wavelength, at most 100 nm away, and leaves
            others out; `leave_out` all.
        pooling: Features of the `seasons` side by side, or their `mean` over them, as wide as the
            model. Those of the baselines of pixels are always side by side.
        model: Size of the random model where there is no checkpoint.
        output: Folder of the results; null for runs/evaluate-<dataset>, with a number if it is
            taken.
        cache: Keep features, so that they are made once; false leaves nothing behind.
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`.
        precision: `auto` takes bfloat16 where the hardware has matrix units for it, else float32.
        on_bad: What an image that cannot be read does: `skip` counts it and continues without it,
            `stop` ends the run.
        strict: End the run if images look like another unit than that of their dataset, instead
            of warning.
    """

    data: str
    checkpoints: list[str] = field(default_factory=list)
    dataset: str = "auto"
    baselines: tuple[Baseline, ...] = ("random", "statistics", "pca")
    reference: str | None = None
    unknown_bands: FrozenBands = "nearest"
    pooling: Pooling = "seasons"
    model: Literal["tiny", "small", "base", "large"] = "tiny"
    output: str | None = None
    cache: bool = True
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    on_bad: OnBad = "skip"
    strict: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [*self.checkpoints, *self.baselines]
        if not names:
            raise ConfigError("give a checkpoint, or leave a baseline in --baselines")
        if len(set(names)) < len(names):
            raise ConfigError(f"each checkpoint and baseline is one row, but got {names}")
        known = self.reference is None or self.reference in names
        expect(known, "reference", f"one of the rows {', '.join(names)}", self.reference)
