"""Methods: what trains and what does not, learning-rate groups, LoRA against its formula."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast.errors import ConfigError
from seamo_fast.huggingface import kernels_hidden
from seamo_fast.tasks.finetuning import methods
from seamo_fast.tasks.finetuning.heads import HeadName
from seamo_fast.tasks.finetuning.methods import Method
from seamo_fast.tasks.finetuning.model import TaskModel
from tests.tasks.finetuning.task_models import CONFIG, place, task_model

METHODS: tuple[Method, ...] = ("linear", "frozen", "lora", "full")
ADAPTED = {
    *(f"encoder.blocks.{n}.attn.{part}" for n in (0, 1) for part in ("qkv", "proj")),
    *(f"{block}.mlp.{part}" for block in ("encoder.blocks.0", "encoder.blocks.1", "fusion.blocks.0")
      for part in ("fc1", "fc2")),
    *(f"fusion.blocks.0.attn.{part}" for part in ("q", "kv", "proj")),
}  # fmt: skip


def trained(method: Method, head: HeadName = "linear") -> TaskModel:
    model = task_model(head, "mask" if head == "fpn" else "classes")
    methods.choose_parameters(model.backbone, method, rank=2, alpha=3)
    return model.train()


def loss(model: TaskModel) -> Tensor:
    logits = model(*place())
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    return (logits * weights).sum()


def expected_to_train(model: TaskModel, method: Method) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    if method == "full":
        return set(names)
    head = {name for name in names if name.startswith("head.")}
    return head | {name for name in names if ".lora_" in name}


@pytest.mark.parametrize("head", ["linear", "attention", "fpn"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_the_parameters_that_it_should(method: Method, head: HeadName) -> None:
    model = trained(method, head)
    expected = expected_to_train(model, method)
    groups = methods.parameter_groups(model.backbone, model.head, 0.5, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):  # an adapter's first matrix has no gradient before the second has moved
        optimizer.zero_grad(set_to_none=True)
        loss(model).backward()
        optimizer.step()
    now = dict(model.named_parameters())
    assert {name for name, each in now.items() if each.grad is not None} == expected
    assert {name for name in expected if not now[name].grad.any()} == set()  # type: ignore[union-attr]
    assert {name for name in now if not torch.equal(now[name], before[name])} == expected
    if method == "lora":
        assert {name.partition(".lora_")[0] for name in expected if ".lora_" in name} == {
            f"backbone.{name}" for name in ADAPTED
        }


@pytest.mark.parametrize("method", METHODS)
def test_groups_hold_what_trains_once_with_its_factor_and_decay(method: Method) -> None:
    """Two encoder blocks, one of fusion, then the head: four steps of 1/2."""
    model = trained(method, "fpn")
    groups = methods.parameter_groups(model.backbone, model.head, 0.5, 0.1)
    found = {
        id(parameter): (group["factor"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found)
    factors = {
        "patch_embed.": 1 / 16, "modality_embed.": 1 / 16, "date_embed.": 1 / 16,
        "encoder.blocks.0.": 1 / 8, "encoder.blocks.1.": 1 / 4, "encoder.norm.": 1 / 2,
        "fusion.blocks.0.": 1 / 2, "fusion.norm.": 1, "head.": 1,
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in found
            continue
        name = name.removeprefix("backbone.")
        factor = next(value for start, value in factors.items() if name.startswith(start))
        embeddings = name.startswith(("modality_embed.", "date_embed."))
        decay = 0.1 if parameter.ndim > 1 and not embeddings else 0.0
        assert found[id(parameter)] == (factor, decay), name


def test_without_fusion_the_encoder_norm_is_the_last() -> None:
    model = task_model(config=replace(CONFIG, fusion="none"))
    groups = methods.parameter_groups(model.backbone, model.head, 0.5, 0.1)
    factors = {id(p): group["factor"] for group in groups for p in group["params"]}
    encoder = model.backbone.encoder
    assert factors[id(encoder.norm.weight)] == 1
    assert factors[id(encoder.blocks[1].norm1.weight)] == 1 / 2
    assert factors[id(model.backbone.modality_embed["s1grd"])] == 1 / 8


def with_adapters(spread: float) -> tuple[TaskModel, TaskModel]:
    """A model with adapters, and a plain one whose weights are W + alpha / r B A."""
    model, plain = trained("lora"), trained("full")
    weights = dict(plain.backbone.named_parameters())
    with torch.no_grad():
        for name, layer in model.backbone.named_modules():
            if name in ADAPTED:
                a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                assert (a.shape[0], b.shape[1]) == (2, 2)
                torch.nn.init.normal_(b, std=spread)
                weights[f"{name}.weight"] += 3 / 2 * (b @ a)
    return model, plain


def test_adapters_start_at_nothing() -> None:
    model, plain = trained("lora"), task_model()
    torch.testing.assert_close(model(*place()), plain(*place()), rtol=1e-4, atol=1e-5)


def test_fused_kernels_do_not_bypass_adapters() -> None:
    """Logits and gradients are those of the merged weights, by the chain rule."""
    model, plain = with_adapters(0.3)
    torch.testing.assert_close(model(*place()), plain(*place()), rtol=1e-4, atol=1e-5)
    assert (model(*place()) - task_model()(*place())).abs().max() > 1e-2
    loss(model).backward()
    loss(plain).backward()
    weights = dict(plain.backbone.named_parameters())
    for name, layer in model.backbone.named_modules():
        if name in ADAPTED:
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            whole = weights[f"{name}.weight"].grad
            assert whole is not None
            torch.testing.assert_close(a.grad, 3 / 2 * b.T @ whole, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(b.grad, 3 / 2 * whole @ a.T, rtol=1e-3, atol=1e-3)


def test_adapters_merge_into_plain_weights() -> None:
    model, plain = with_adapters(0.3)
    merged = methods.plain_state(model.backbone)
    expected = plain.backbone.state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    state = task_model().backbone.state_dict()
    torch.testing.assert_close(methods.plain_state(task_model().backbone), state)


def test_adapters_follow_from_torch_s_seed() -> None:
    first, second = trained("lora"), trained("lora")
    state, again = first.state_dict(), second.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_without_peft_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"peft .*: pip install 'seamo_fast\[finetune\]'$"):
        methods.choose_parameters(task_model().backbone, "lora")


def test_our_folder_of_kernels_is_hidden_while_others_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    with kernels_hidden(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("kernels")
    assert "kernels" not in sys.modules


def test_a_package_that_is_not_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("theirs = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    with kernels_hidden():
        theirs = importlib.import_module("kernels")
    assert theirs.theirs
    assert sys.modules.pop("kernels") is theirs


def test_a_package_that_is_imported_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("kernels")
    monkeypatch.setitem(sys.modules, "kernels", theirs)
    with kernels_hidden():
        assert sys.modules["kernels"] is theirs
    assert sys.modules["kernels"] is theirs


def test_what_an_item_skips_is_a_function_of_its_generator() -> None:
    backbone = task_model().backbone

    def draw(*seeds: int) -> Tensor:
        found = methods.drop_path(backbone, 0.5, map(np.random.default_rng, seeds))
        assert found is not None
        return found

    found = draw(1, 2, 3)
    assert found.shape == (3, 3, 2)  # two blocks of the encoder, one of the fusion
    assert torch.equal(draw(3, 1), found[[2, 0]])
    many = draw(*range(200))
    torch.testing.assert_close(many.unique(), torch.tensor([0, 1, 4 / 3, 2]))
    assert (many[:, 0] == 1).all()
    assert methods.drop_path(backbone, 0.0, []) is None
