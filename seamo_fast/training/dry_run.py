"""What a run would take, worked out without training: `--dry_run`.

Mirrors `model/{layers,encoder,fusion,decoder}.py`: `activation_bytes` estimates what they keep.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from seamo_fast import kernels
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.training import batches, model_setup, precision
from seamo_fast.training.config import PretrainConfig, to_yaml
from seamo_fast.training.reporting import targets
from seamo_fast.training.schedule import Plan, Stage
from seamo_fast.training.step import step_flops

_MIB = 2**20


def dry_run(config: PretrainConfig) -> str:
    """Checks settings and data, reads a few samples of every stage, and describes the run.

    Raises:
        SeaMoError: The run would not start.
    """
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    device = precision.choose_device(config.run.device)
    dtype = precision.choose_dtype(config.run.precision, device)
    with torch.device("meta"):
        model = model_setup.make_model(config, shards, plan)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        to_yaml(config),
        f"data: {shards.path}, {len(shards)} samples, {shards.seasons} seasons, "
        + ", ".join(f"{m.name} ({len(m.bands)} bands)" for m in shards.modalities),
        *(
            _describe(config, shards, plan, stage, device, dtype, parameters)
            for stage in plan.stages
        ),
        *targets.without_targets(config, shards, plan),
        f"model: {parameters / 1e6:.2f} M parameters",
        f"checkpoints: {12 * parameters / _MIB:.0f} MiB each, {config.run.keep} kept; "
        f"{_free(Path(config.run.folder)) / _MIB:.0f} MiB free at {config.run.folder}",
        f"device: {device.type} in {str(dtype).removeprefix('torch.')}",
    ]
    return "\n".join(lines)


def _describe(
    config: PretrainConfig,
    shards: ShardSet,
    plan: Plan,
    stage: Stage,
    device: torch.device,
    dtype: torch.dtype,
    parameters: int,
) -> str:
    # a few samples show whether the data can be read; a whole batch may not fit into memory
    few = replace(config, data=replace(config.data, batch_size=min(8, config.data.batch_size)))
    loader = batches.make_loader(few, shards, stage)
    batch = next(iter(loader))
    batches.draw_views(config, batch, stage.number)
    size = config.data.batch_size
    together = size // config.optim.accumulate
    flops = size * step_flops(config, shards, stage)
    memory = 16 * parameters + together * activation_bytes(config, stage, device, dtype)
    present = batch.valid.float().mean().item()
    bad = f", damaged records: {len(loader.bad_records)}" if loader.bad_records else ""
    return (
        f"stage {stage.name}: {plan.steps[stage.number]} steps of {size} of {loader.samples} "
        f"samples, {stage.seasons} seasons of {', '.join(stage.modalities)}; "
        f"{flops / 1e9:.2f} GFLOP a step; about {memory / _MIB:.0f} MiB; "
        f"{len(batch.ids)} samples read, {present:.0%} of their groups present{bad}"
    )


def activation_bytes(
    config: PretrainConfig, stage: Stage, device: torch.device, dtype: torch.dtype
) -> int:
    """Estimates what one sample's forward pass keeps for the backward pass.

    A block keeps, for every token, the inputs of its two norms, of its four products, of its
    attention and of its GELU: (8 + 2 * mlp_ratio) * width numbers. Where
    `kernels.residual_attention` and `kernels.residual_mlp` run, it keeps its two inputs, queries,
    keys, values, what was attended to, and the input of the GELU.
    """
    model, views = config.model, config.views
    visible = views.num_visible(model.num_patches)
    decoded = views.num_decoded(model.num_patches)
    groups = stage.seasons * len(stage.modalities)
    blocks = model.depth + (model.fusion_depth if stage.fusion and model.fusion != "none" else 0)
    encoder = blocks * model.width * visible
    decoder = model.decoder_depth * model.decoder_width * (visible + decoded)
    kept = 8 + 2 * model.mlp_ratio
    if config.run.recompute == "blocks":
        kept = 1
    elif _has_branches(config, device, dtype):
        kept = 6 + model.mlp_ratio
    return int(groups * kept * (encoder + decoder) * dtype.itemsize)


def _has_branches(config: PretrainConfig, device: torch.device, dtype: torch.dtype) -> bool:
    if model_setup.choose_compile(config.run.compile, device) != "off" or dtype != torch.float32:
        return False
    chosen = (choice for choice in kernels.explain(device.type) if choice.chosen)
    return any((choice.op, choice.backend) == ("residual_mlp", "cpu") for choice in chosen)


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
