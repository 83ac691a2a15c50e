"""The model of a run: made from the seed, with recomputation and torch.compile as asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton
from torch.utils.checkpoint import checkpoint

from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.model.fusion import FusionBlock
from seamo_fast.model.layers import Block
from seamo_fast.model.seamo import SeaMo
from seamo_fast.training.config import Compile, PretrainConfig, Recompute, RunConfig
from seamo_fast.training.schedule import Plan

_PROGRAMS: Final = 64  # compiled from one function; torch gives up after eight


def make_model(config: PretrainConfig, shards: ShardSet, plan: Plan) -> SeaMo:
    """Returns a new model for the modalities of all stages, initialised from the seed."""
    wanted = {name for stage in plan.stages for name in stage.modalities}
    torch.manual_seed(config.run.seed)
    try:
        return SeaMo(config.model, [m for m in shards.modalities if m.name in wanted])
    except ValueError as error:
        raise DataError(f"{shards.path} cannot be trained on: {error}") from error


def prepare_model(model: SeaMo, config: RunConfig, device: torch.device) -> None:
    """Applies `run.recompute` and `run.compile` to a model, in place; parameters keep their names.

    Args:
        model: From `make_model`.
        config: The settings `run`.
        device: Where the model will run.
    """
    recompute_blocks(model, config.recompute)
    compile_model(model, config.compile, device)


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the blocks of encoder, fusion and decoders in a model."""
    return [part for part in model.modules() if isinstance(part, (Block, FusionBlock))]


def recompute_blocks(model: nn.Module, how: Recompute) -> None:
    """Lets the backward pass recompute what is inside the transformer blocks, to keep less memory.

    Args:
        model: Not compiled yet; its parameters keep their names.
        how: `blocks`, or `none` for nothing.
    """
    if how == "blocks":
        for block in transformer_blocks(model):
            block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*given: Any, **named: Any) -> Tensor:
        return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, **named)

    return run


def choose_compile(how: Compile, device: torch.device) -> Compile:
    """Returns what `auto` means on a device: `regional` on a GPU with Triton, otherwise `off`.

    On a CPU the C++ kernels are faster than what torch.compile makes of the blocks
    (docs/performance-log.md).
    """
    if how != "auto":
        return how
    return "regional" if device.type == "cuda" and has_triton() else "off"


def compile_model(model: nn.Module, how: Compile, device: torch.device) -> None:
    """Compiles a model in place with torch.compile, for the shapes that it meets.

    Args:
        model: The model.
        how: `regional` compiles the transformer blocks: alike ones share a program, so it takes
            seconds. `full` compiles the whole model as one program, which takes minutes. `auto`:
            see `choose_compile`.
        device: Where it will run.
    """
    how = choose_compile(how, device)
    if how == "off":
        return  # before torch._dynamo is imported, which takes a second
    # blocks share one cache: three stages need a dozen programs, or two dozen
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    for part in [model] if how == "full" else transformer_blocks(model):
        # static shapes: a run resumed in its second stage must execute the same programs
        part.compile(fullgraph=True, dynamic=False)
