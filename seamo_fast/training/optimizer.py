"""AdamW, which parameters decay, and its state as flat tensors that need no pickle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from seamo_fast.errors import CheckpointError
from seamo_fast.files import brief
from seamo_fast.training.config import OptimConfig
from seamo_fast.training.distributed import sharding

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def decays(name: str, parameter: Tensor) -> bool:
    """Returns whether a parameter has weight decay: a matrix or kernel of a layer.

    Biases, norms, mask tokens and the embeddings of modalities and dates have none.
    """
    return parameter.ndim > 1 and not name.startswith(("modality_embed.", "date_embed."))


def build(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Returns fused AdamW with one group that decays and one that does not."""
    named = list(model.named_parameters())
    groups = [
        {
            "params": [p for name, p in named if decays(name, p) == decaying],
            "weight_decay": config.weight_decay if decaying else 0.0,
        }
        for decaying in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=config.blr, betas=config.betas, fused=True)


def get_state(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Returns the optimiser's state as "<parameter>.<moment>" -> tensor.

    A parameter that has had no gradient yet has no state.
    """
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in _MOMENTS
    }


def set_state(model: nn.Module, optimizer: torch.optim.AdamW, state: dict[str, Tensor]) -> None:
    """Restores what `get_state` returned, whole tensors; see `sharding.spread` for ranks.

    Raises:
        CheckpointError: A tensor does not belong to the model, or has another shape.
    """
    optimizer.state.clear()
    left = dict(state)
    for name, parameter in model.named_parameters():
        moments = {m: left.pop(f"{name}.{m}") for m in _MOMENTS if f"{name}.{m}" in left}
        if not moments:
            continue
        shapes = {m: tensor.shape for m, tensor in moments.items()}
        if shapes != {**dict.fromkeys(_MOMENTS[:2], parameter.shape), "step": torch.Size()}:
            raise CheckpointError(f"the optimiser state of {name} does not fit the parameter")
        optimizer.state[parameter] = {
            moment: sharding.spread(tensor, parameter) for moment, tensor in moments.items()
        }
    if left:
        raise CheckpointError(
            f"the optimiser state names {brief(next(iter(left)))}, which the model lacks"
        )


def apply(optimizer: torch.optim.AdamW, model: nn.Module, lr: float, clip: float | None) -> Tensor:
    """Clips the gradients and steps, unless a gradient is NaN or infinite.

    The decision stays on the device (AdamW's `found_inf`): then neither parameters nor optimiser
    state change, and the host does not wait.

    Args:
        optimizer: Fused; the learning rate of a group with an entry "factor" is multiplied by it.
        model: Whose parameters hold gradients.
        lr: Learning rate of this step.
        clip: Largest norm of the gradient.

    Returns:
        The norm of the gradient before clipping, a scalar on the device; of the whole gradient
        where the model is sharded.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
