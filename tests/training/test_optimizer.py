from __future__ import annotations

import pytest
import torch
from torch import nn

from seamo_fast.errors import CheckpointError
from seamo_fast.modalities import get_modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.seamo import SeaMo
from seamo_fast.training import optimizer
from seamo_fast.training.config import OptimConfig

TINY = ModelConfig(32, 1, 2, image_size=16, patch_size=4, decoder_width=16, decoder_depth=1,
                   decoder_heads=2, fusion="cascade")  # fmt: skip


def named_groups(model: nn.Module) -> dict[float, set[str]]:
    built = optimizer.build(model, OptimConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in built.param_groups}


def test_only_weights_of_layers_decay() -> None:
    model = SeaMo(TINY, [get_modality("s2l2a"), get_modality("s1grd")])
    groups = named_groups(model)
    assert groups[0.3] | groups[0.0] == {name for name, _ in model.named_parameters()}
    assert groups[0.3] == {
        name
        for name, _ in model.named_parameters()
        if name.endswith(".weight") and "norm" not in name and not name.startswith("date_embed")
    } | {
        name
        for name, _ in model.named_parameters()
        if name.startswith("patch_embed") and "weight" in name
    }
    assert {"modality_embed.s1grd", "decoders.s2l2a.mask_token", "date_embed.weight"} <= groups[0.0]


def small() -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, optimizer.build(model, OptimConfig())


def descend(model: nn.Linear, built: torch.optim.AdamW, scale: float = 1.0) -> torch.Tensor:
    (model(torch.ones(1, 3)).sum() * scale).backward()
    return optimizer.apply(built, model, lr=0.1, clip=1.0)


def test_gradients_are_clipped_to_the_norm() -> None:
    model, built = small()
    seen: list[float] = []

    def look(*_: object) -> None:
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        seen.append(torch.cat(grads).norm().item())

    built.register_step_pre_hook(look)
    norm = descend(model, built, scale=100.0)
    assert norm.item() == pytest.approx(100 * 8**0.5)
    assert seen == [pytest.approx(1.0, rel=1e-4)]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_without_finite_gradient_changes_nothing(bad: float) -> None:
    model, built = small()
    descend(model, built)
    before = {**optimizer.get_state(model, built), **model.state_dict()}
    before = {name: tensor.clone() for name, tensor in before.items()}
    assert not descend(model, built, scale=bad).isfinite()
    after = {**optimizer.get_state(model, built), **model.state_dict()}
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    descend(model, built)
    assert not torch.equal(model.weight, before["weight"])


def test_state_goes_through_flat_tensors() -> None:
    model, built = small()
    descend(model, built)
    twin, other = small()
    twin.load_state_dict(model.state_dict())
    state = {name: tensor.clone() for name, tensor in optimizer.get_state(model, built).items()}
    optimizer.set_state(twin, other, state)
    for _ in range(3):
        descend(model, built)
        descend(twin, other)
    assert torch.equal(model.weight, twin.weight)


def test_a_parameter_that_had_no_gradient_has_no_state() -> None:
    model, built = small()
    model.bias.requires_grad_(False)
    descend(model, built)
    state = optimizer.get_state(model, built)
    assert set(state) == {"weight.exp_avg", "weight.exp_avg_sq", "weight.step"}
    optimizer.set_state(model, built, state)
    assert model.bias not in built.state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("weight.step"), "state of weight does not fit"),
        (lambda state: state.update({"weight.exp_avg": torch.zeros(1)}), "weight does not fit"),
        (lambda state: state.update({"other.step": torch.zeros(1)}), "other.step.*model lacks"),
    ],
)
def test_a_state_of_another_model_is_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    model, built = small()
    descend(model, built)
    state = optimizer.get_state(model, built)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        optimizer.set_state(model, built, state)
