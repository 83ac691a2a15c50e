"""The settings of a pretraining run, and how two runs' settings are compared."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import yaml

from seamo_fast.errors import expect, expect_once, expect_seed
from seamo_fast.model.config import ModelConfig
from seamo_fast.views import ViewConfig

ScheduleKind = Literal["progressive", "direct", "unimodal_first"]
Compile = Literal["auto", "off", "regional", "full"]
Recompute = Literal["none", "blocks"]
Strategy = Literal["ddp", "fsdp"]


_MOST: Final = 2**31 - 1  # of numbers that nobody means, and that would overflow others


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        path: A folder of shards, or `demo` for generated scenes (written once to the cache).
        batch_size: Samples a step, all devices together.
        workers: Threads that read ahead, with one more that draws views; 0 does both when a batch
            is needed.
        loader: `torch` reads with numpy and tifffile; `dali` copies and decodes with NVIDIA DALI,
            on the GPU where there is one. Both yield the same batches.
        on_bad: What a record that fails its checksum does: `skip` counts it and trains without
            it, `stop` ends the run.
        verify: Check each record's checksum when it is read first.
    """

    path: str = "demo"
    batch_size: int = 64
    workers: int = 1
    loader: Literal["torch", "dali"] = "torch"
    on_bad: Literal["skip", "stop"] = "skip"
    verify: bool = True

    def __post_init__(self) -> None:
        expect(self.batch_size > 0, "data.batch_size", "at least 1", self.batch_size)
        expect(self.batch_size <= _MOST, "data.batch_size", f"at most {_MOST}", self.batch_size)
        expect(0 <= self.workers <= 1000, "data.workers", "in [0, 1000]", self.workers)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its learning rate.

    Attributes:
        blr: Base learning rate; the peak is blr * data.batch_size / 256.
        min_lr: Where the cosine of every stage ends.
        warmup_fraction: Share of a stage's steps in which the rate rises linearly from 0.
        weight_decay: Of matrices; biases, norms, mask tokens and the embeddings of modalities and
            dates have none.
        betas: AdamW's averaging factors.
        accumulate: Micro-batches that a rank's part of a batch is cut into; their gradients are
            summed, so more of them take less memory and give the same step.
        clip: Largest norm of the gradient; null for no clipping.
    """

    blr: float = 1.5e-4
    min_lr: float = 0.0
    warmup_fraction: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        expect(0 < self.blr < math.inf, "optim.blr", "above 0 and finite", self.blr)
        expect(0 <= self.min_lr < math.inf, "optim.min_lr", "at least 0 and finite", self.min_lr)
        fraction = self.warmup_fraction
        expect(0 <= fraction <= 1, "optim.warmup_fraction", "in [0, 1]", fraction)
        decay = self.weight_decay
        expect(0 <= decay < math.inf, "optim.weight_decay", "at least 0 and finite", decay)
        expect(all(0 <= b < 1 for b in self.betas), "optim.betas", "in [0, 1)", self.betas)
        expect(self.accumulate > 0, "optim.accumulate", "at least 1", self.accumulate)
        clip = self.clip
        finite = clip is None or 0 < clip < math.inf
        expect(finite, "optim.clip", "above 0 and finite, or null for none", clip)


@dataclass(frozen=True)
class StageLength:
    """How long a stage of a named schedule lasts.

    Attributes:
        epochs: Passes over the stage's share of the data.
        data_fraction: Share of the samples, a fixed subset.
    """

    epochs: float = 20
    data_fraction: float = 1.0

    def __post_init__(self) -> None:
        epochs = self.epochs
        expect(0 < epochs <= _MOST, "epochs of a stage", f"above 0 and at most {_MOST}", epochs)
        fraction = self.data_fraction
        expect(0 < fraction <= 1, "data_fraction of a stage", "in (0, 1]", fraction)


@dataclass(frozen=True)
class StageConfig:
    """One stage written out.

    Attributes:
        name: Shown in logs and figures.
        epochs: Passes over the stage's share of the data.
        modalities: Names; null for all that the schedule has.
        seasons: T; null for all that the schedule has.
        fusion: Run the TM fusion.
        data_fraction: Share of the samples, a fixed subset.
    """

    name: str
    epochs: float
    modalities: tuple[str, ...] | None = None
    seasons: int | None = None
    fusion: bool = True
    data_fraction: float = 1.0

    def __post_init__(self) -> None:
        StageLength(self.epochs, self.data_fraction)
        expect_once("modalities of a stage", self.modalities)


@dataclass(frozen=True)
class ScheduleConfig:
    """The stages of a run.

    Attributes:
        kind: `progressive` trains on single seasons without fusion and then on all seasons with
            it; `direct` is the second part alone; `unimodal_first` puts a stage of the first
            modality alone before both.
        modalities: Names; null for all that the shards hold.
        seasons: T of the last stage; null for all that the shards hold.
        unimodal: Length of the single-season stage of one modality.
        single_season: Length of the single-season stage of all modalities.
        multi_season: Length of the stage of all seasons with fusion.
        stages: Stages written out, instead of `kind`.
    """

    kind: ScheduleKind = "progressive"
    modalities: tuple[str, ...] | None = None
    seasons: int | None = None
    unimodal: StageLength = StageLength(20, 0.25)
    single_season: StageLength = StageLength(20, 0.25)
    multi_season: StageLength = StageLength(200, 1.0)
    stages: tuple[StageConfig, ...] = ()

    def __post_init__(self) -> None:
        expect_once("schedule.modalities", self.modalities)


@dataclass(frozen=True)
class RunConfig:
    """Where and how the run happens.

    `seed` and `steps_per_stage` decide what is trained; `precision`, `device` and `compile` change
    how results are rounded. A run keeps these five when it resumes; the others may change, see
    `FREE_KEYS`.

    Attributes:
        folder: The run folder.
        seed: Of weights, order of samples, seasons, regions and masks.
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`.
        precision: `auto` takes bfloat16 where the hardware has matrix units for it, else float32.
        compile: `regional` compiles the transformer blocks with torch.compile, `full` the whole
            model, `auto` the blocks on a GPU; see `model_setup.compile_model`.
        recompute: `blocks` keeps nothing inside a transformer block for the backward pass, which
            recomputes it: less memory, about a third more work.
        resume: `auto` resumes the run in the run folder, `none` starts over (an earlier run is
            moved into a subfolder), anything else is a checkpoint or run folder to resume from.
        checkpoint_every: Steps between checkpoints; every stage ends with one as well.
        keep: Checkpoints that are kept, the newest ones.
        log_every: Steps between lines of metrics.
        figures_every: Steps between figures; null for the ends of stages only.
        figure_samples: Samples shown in the figures.
        probe: Folder of a labelled dataset that says during training what the features are worth,
            or `demo` for generated places; null for none.
        probe_every: Steps between probes; null for the ends of stages only.
        tensorboard: Write TensorBoard events.
        wandb: Project of Weights & Biases that gets the metrics; null for none.
        stall_seconds: Write the stacks of all threads when no step ends in this time; null never.
        max_nonfinite: Steps without a finite gradient, one after the other, that end the run.
        steps_per_stage: Cuts every stage to at most so many steps; null for all of them.
    """

    folder: str = "runs/pretrain"
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Compile = "auto"
    recompute: Recompute = "none"
    resume: str = "auto"
    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 20
    figures_every: int | None = None
    figure_samples: int = 3
    probe: str | None = None
    probe_every: int | None = None
    tensorboard: bool = True
    wandb: str | None = None
    stall_seconds: float | None = 600
    max_nonfinite: int = 5
    steps_per_stage: int | None = None

    def __post_init__(self) -> None:
        for key in ("checkpoint_every", "keep", "log_every", "max_nonfinite", "figure_samples"):
            expect(getattr(self, key) > 0, f"run.{key}", "at least 1", getattr(self, key))
        for key in ("figures_every", "probe_every", "steps_per_stage"):
            value = getattr(self, key)
            expect(value is None or value > 0, f"run.{key}", "at least 1 or null", value)
        stall = self.stall_seconds
        waits = stall is None or 0 < stall <= _MOST  # threads cannot wait for longer
        expect(waits, "run.stall_seconds", f"above 0 and at most {_MOST}, or null", stall)
        expect_seed("run.seed", self.seed)
        expect(bool(self.folder), "run.folder", "the name of a folder", self.folder)
        expect(self.probe != "", "run.probe", "the name of a folder, demo or null", self.probe)


@dataclass(frozen=True)
class DistributedConfig:
    """How the ranks of `torchrun` share a step; a run without it does not look here.

    Attributes:
        strategy: `ddp` keeps the whole model on each rank. `fsdp` shards parameters, gradients and
            optimiser state over ranks (FSDP2), for models that do not fit otherwise.
        reshard_after_forward: fsdp frees a block's gathered parameters after its forward pass and
            gathers them again for the backward pass: less memory, half as much traffic again.
    """

    strategy: Strategy = "ddp"
    reshard_after_forward: bool = True


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of `python -m seamo_fast.pretrain`."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


# Settings that may change when a run resumes. None changes what is computed; some change the order
# of sums, and so their rounding.
FREE_KEYS: Final = frozenset(
    {"data.path", "data.workers", "data.loader", "optim.accumulate", "run.recompute"}
    | {"distributed.strategy", "distributed.reshard_after_forward"}
    | {
        f"run.{key}"
        for key in (
            "folder", "resume", "checkpoint_every", "keep", "log_every", "figures_every",
            "figure_samples", "probe", "probe_every", "tensorboard", "wandb", "stall_seconds",
            "max_nonfinite",
        )
    }
)  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a dataclass of settings as plain dictionaries, lists and scalars (YAML and JSON)."""
    return _plain(asdict(config))


def to_yaml(config: Any) -> str:
    """Returns the settings as a file that `--config` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lists where two `to_dict` results disagree, except in `FREE_KEYS`.

    Returns:
        Entries "key: old there, new here".
    """
    was, now = dict(_flatten(old)), dict(_flatten(new))
    keys = [key for key in {**was, **now} if key not in FREE_KEYS]
    return [
        f"{key}: {reprlib.repr(was.get(key))} there, {reprlib.repr(now.get(key))} here"
        for key in keys
        if was.get(key) != now.get(key)
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
