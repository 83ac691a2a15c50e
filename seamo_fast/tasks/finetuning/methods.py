"""What trains in a finetuning, how fast, and what drops: linear, frozen, lora and full."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from seamo_fast.errors import ConfigError
from seamo_fast.huggingface import kernels_hidden
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.layers import drop_path_scales
from seamo_fast.training.optimizer import decays

Method = Literal["linear", "frozen", "lora", "full"]
_ADAPTED: Final = r"(encoder|fusion)\.blocks\.\d+\.(attn\.(qkv|q|kv|proj)|mlp\.(fc1|fc2))"


def choose_parameters(
    backbone: SeaMoBackbone, method: Method, rank: int = 8, alpha: int = 16
) -> None:
    """Sets `requires_grad` of a backbone's parameters as a method says; a head always trains.

    Args:
        backbone: `lora` puts adapters into it, whose first matrices are drawn from torch's
            generator (Hu et al., 2022).
        method: `linear` and `frozen` train none, `lora` the adapters, `full` all.
        rank: r of an adapter.
        alpha: What an adapter adds is multiplied by alpha / r.

    Raises:
        ConfigError: The method is `lora` and peft is not installed.
    """
    backbone.requires_grad_(method == "full")
    if method == "lora":
        _add_adapters(backbone, rank, alpha)


def _add_adapters(backbone: SeaMoBackbone, rank: int, alpha: int) -> None:
    try:
        with kernels_hidden():
            from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"method lora needs peft ({error}): pip install 'seamo_fast[finetune]'"
        ) from error
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=_ADAPTED)
    inject_adapter_in_model(config, backbone)


def plain_state(backbone: SeaMoBackbone) -> dict[str, Tensor]:
    """Returns parameters by their plain names, adapters merged into what they adapt."""
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in backbone.named_modules():
        if hasattr(layer, "get_delta_weight"):
            state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight("default")
    return state


def parameter_groups(
    backbone: SeaMoBackbone, head: nn.Module, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Returns an optimiser's groups of what trains: each layer's, with and without weight decay.

    The learning rate of a group is to be multiplied by its "factor": 1 for the head and the final
    norm, `layer_decay` times that of the next for each block before them, and the least for the
    embeddings (Clark et al., ELECTRA, 2020). An adapter has that of its block.

    Args:
        backbone: After `choose_parameters`.
        head: Its head.
        layer_decay: Above 0, 1 for the same rate everywhere.
        weight_decay: Of what decays, see `training.optimizer.decays`.
    """
    config = backbone.config
    blocks = config.depth + (config.fusion_depth if backbone.fusion is not None else 0)
    named = [*backbone.named_parameters(), *head.named_parameters(prefix="head")]
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            key = (_layer(name, config.depth, blocks), decays(name, parameter))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": layer_decay ** (blocks + 1 - layer),
            "weight_decay": weight_decay if decaying else 0.0,
        }
        for (layer, decaying), parameters in groups.items()
    ]


def _layer(name: str, depth: int, blocks: int) -> int:
    """Returns 0 for embeddings, 1 to `blocks` for blocks of encoder and fusion, then one more."""
    part, *rest = name.split(".")
    if part in ("encoder", "fusion") and rest[0] == "blocks":
        return 1 + int(rest[1]) + (depth if part == "fusion" else 0)
    if part == "encoder":
        return depth + 1  # the norm before fusion
    return blocks + 1 if part in ("fusion", "head") else 0


def drop_path(
    backbone: SeaMoBackbone, rate: float, generators: Iterable[np.random.Generator]
) -> Tensor | None:
    """Returns the `scales` of a batch for `TaskModel.forward`: which items skip which blocks.

    Args:
        backbone: Of the model.
        rate: That of the last block, see `drop_path_scales`; of 0 there is nothing to drop.
        generators: One for each item, so that what an item skips depends on nothing else.

    Returns:
        float32 [B, blocks, 2], None at rate 0.
    """
    if rate == 0:
        return None
    config = backbone.config
    blocks = config.depth + (config.fusion_depth if backbone.fusion is not None else 0)
    draws = np.stack([each.random((blocks, 2)) for each in generators])
    return drop_path_scales(blocks, rate, torch.from_numpy(draws))
