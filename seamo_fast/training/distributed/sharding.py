"""How ranks share the model and its training state: replicas (DDP) or shards (FSDP2).

Whatever the strategy, parameters keep their plain names and checkpoints their one format: state is
gathered whole on rank 0, and read there and spread again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from seamo_fast.model.seamo import SeaMo
from seamo_fast.training import model_setup
from seamo_fast.training.config import DistributedConfig
from seamo_fast.training.distributed import ranks
from seamo_fast.training.schedule import Stage


def shard(
    model: SeaMo, config: DistributedConfig, device: torch.device, dtype: torch.dtype
) -> None:
    """Splits the parameters of a model over ranks, in place, where the strategy is `fsdp`.

    Parameters, gradients and optimiser state stay in float32. Where matrix products run in
    bfloat16, the transformer blocks are gathered in it, which halves the traffic. Autocast rounds
    their matrices in the same way; here their norms and biases are rounded too. Gradients are
    summed in float32.

    Args:
        model: On its device.
        config: The strategy.
        device: Where the model is.
        dtype: Of matrix products.
    """
    if ranks.world() == 1 or config.strategy != "fsdp":
        return
    mesh = init_device_mesh(device.type, (ranks.world(),))
    reshard = config.reshard_after_forward
    policy = MixedPrecisionPolicy()
    if dtype != torch.float32:
        # the residual stream keeps the dtype that autocast gives it
        policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for block in model_setup.transformer_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)


def replicate(model: nn.Module, leaves_out: bool) -> nn.Module:
    """Returns what is called instead of a model, so that ranks average gradients.

    It is the model itself where there is one rank, or where the model is sharded.

    Args:
        model: On its device.
        leaves_out: Whether some parameters may get no gradient, see `leaves_out`.
    """
    if ranks.world() == 1 or isinstance(model, FSDPModule):
        return model
    with warnings.catch_warnings():
        # broadcast_buffers has a new name in torch 2.14, which torch 2.10 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            model,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=leaves_out,
        )


def leaves_out(model: SeaMo, stage: Stage) -> bool:
    """Returns whether some parameters get no gradient in a stage."""
    if len(stage.modalities) < len(model.modalities):
        return True
    carries = model.config.fusion == "cascade"
    return model.fusion is not None and (not stage.fusion or (carries and stage.seasons == 1))


@contextmanager
def gradient_sync(module: nn.Module, on: bool) -> Iterator[None]:
    """Says whether a forward and backward pass ends with the exchange of gradients.

    Args:
        module: From `replicate`.
        on: False lets gradients pile up on each rank.
    """
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(on)
    if isinstance(module, DistributedDataParallel) and not on:
        with module.no_sync():
            yield
    else:
        yield


@contextmanager
def whole(model: SeaMo) -> Iterator[None]:
    """Gathers a sharded model, so that other methods than `forward` work; all ranks take part."""
    if isinstance(model, FSDPModule):
        model.unshard()
    yield
    if isinstance(model, FSDPModule):
        model.reshard()


def gather(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of whole tensors in host memory on rank 0, and nothing on other ranks."""
    copies = {}
    for name, tensor in state.items():
        found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if ranks.is_main():
            copies[name] = found.detach().to("cpu", copy=True).contiguous()
    return copies


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns rank 0's tensor on all ranks, on the device and in the shards of another one.

    Args:
        tensor: Whole; other ranks than 0 give its shape and dtype only (device "meta").
        like: Of the same shape, or any tensor without shards.
    """
    if ranks.world() > 1:
        main = ranks.is_main()
        tensor = tensor.to(like.device) if main else torch.empty_like(tensor, device=like.device)
        dist.broadcast(tensor, src=0)
    if isinstance(like, DTensor) and tensor.ndim:
        # all ranks hold all of it, so that each keeps its shard without asking another
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor.to(like.device)
