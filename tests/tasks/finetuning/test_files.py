"""Files of task models: what is saved comes back, as a model and as a backbone; bad ones do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seamo_fast.checkpoint_files import read_tensors
from seamo_fast.errors import CheckpointError
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning import methods
from seamo_fast.tasks.finetuning.heads import HeadName, LinearHead
from seamo_fast.tasks.finetuning.methods import Method
from seamo_fast.tasks.finetuning.model import TaskModel
from tests.tasks.finetuning.task_models import HEADS, place, task_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("head", "task"), HEADS)
def test_a_saved_model_comes_back(head: HeadName, task: Task, path: Path) -> None:
    model = task_model(head, task)
    model.save(path)
    again = TaskModel.load(path)
    for name in ("task", "classes", "seasons"):
        assert getattr(again, name) == getattr(model, name)
    assert {n: (k, list(c)) for n, (k, c) in again.channels.items()} == model.channels
    assert list(again.channels) == ["radar", "optic"]  # the order of the groups
    assert again.head.name == head
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(again(*place()), model(*place()))


@pytest.mark.parametrize("method", ["linear", "frozen", "lora", "full"])
def test_every_method_saves_plain_weights(method: Method, path: Path) -> None:
    model = task_model("fpn", "mask")
    methods.choose_parameters(model.backbone, method)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    logits = model(*place())
    model.save(path)
    torch.testing.assert_close(model(*place()), logits, rtol=0, atol=0)  # saving changes nothing
    torch.testing.assert_close(TaskModel.load(path)(*place()), logits, rtol=1e-5, atol=1e-5)
    backbone = SeaMoBackbone.from_checkpoint(path, ["s2l2a"])
    assert not any("lora" in name or "head" in name for name in backbone.state_dict())
    x = {"s2l2a": place()[0]["optic"][:, :, 1:]}
    torch.testing.assert_close(backbone(x), model.backbone(x), rtol=1e-4, atol=1e-5)


def as_before(model: TaskModel, path: Path) -> None:
    """Writes a model as the classifiers of version 0.1 wrote theirs."""
    assert isinstance(model.head, LinearHead)
    head = {f"head.{name}": tensor for name, tensor in model.head.linear.state_dict().items()}
    metadata = model_metadata(model.backbone.config, model.backbone.modalities)
    classes = {"classes": json.dumps(model.classes)}
    save_file({**model.backbone.state_dict(), **head}, path, {**metadata, **classes})


def classifier() -> TaskModel:
    """Of one modality at one season, the only ones there were."""
    model = task_model(seasons=1)
    backbone = SeaMoBackbone(model.backbone.config, ["s2l2a"])
    head = LinearHead(1, 16, 3, dense=False)
    torch.nn.init.normal_(head.linear.weight)
    return TaskModel(
        backbone, head, "classes", model.classes, {"s2l2a": ("s2l2a", tuple(range(12)))}, 1
    )


def test_classifiers_of_earlier_versions_load(path: Path) -> None:
    model = classifier()
    as_before(model, path)
    again = TaskModel.load(path)
    images, dates, valid = place(seasons=1)
    given = {"s2l2a": images["optic"][:, :, 1:]}, dates[..., :1], valid[..., :1]
    assert again.classes == model.classes
    assert torch.equal(again(*given), model(*given))


def damaged(path: Path, metadata: dict[str, str], state: dict[str, Any]) -> None:
    """Writes the file again with other entries; None takes one away."""
    tensors, known = read_tensors(path)
    found = {**tensors, **state}
    save_file(
        {name: value for name, value in found.items() if value is not None},
        path,
        {**known, **metadata},
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "regression"}, "task cannot be 'regression'"),
        ({"task": ["classes"]}, r"task cannot be \['classes'\]"),
        ({"task": {}}, "task cannot be {}"),
        ({"classes": []}, r"classes cannot be \[\]"),
        ({"classes": "ab"}, "classes cannot be 'ab'"),
        ({"classes": [1, 2, 3]}, r"classes cannot be \[1, 2, 3\]"),
        ({"classes": ["a", "b"]}, r"head.linear.weight must be \[2, 16\], but is \[3, 16\]"),
        ({"classes": ["a"] * 10**6}, r"must be \[1000000, 16\], but is \[3, 16\]"),
        ({"head": "deep"}, "head cannot be 'deep'"),
        ({"head": {}}, "head cannot be {}"),
        ({"head": "fpn"}, "head fpn gives no classes; expected linear or attention"),
        ({"head": "attention"}, r"missing \(head.kv.bias, .*0 unknown"),
        ({"task": "mask", "head": "fpn"}, r"missing \(head.lateral.*3 unknown"),
        ({"seasons": 0}, "seasons cannot be 0"),
        ({"seasons": True}, "seasons cannot be True"),
        ({"seasons": 2.0}, "seasons cannot be 2.0"),
        ({"seasons": 10**30}, "seasons cannot be 10"),
        ({"seasons": 1024}, r"head.merge.groups.weight must be \[16, 32768\], but is \[16, 64\]"),
        ({"seasons": 1}, r"head.merge.groups.weight must be \[16, 32\], but is \[16, 64\]"),
        ({"channels": []}, r"channels cannot be \[\]"),
        ({"channels": {"radar": "s1grd"}}, "channels cannot be"),
        ({"channels": {"radar": [1, [0, 1]]}}, "channels cannot be"),
        ({"channels": {"radar": ["s1grd", []]}}, "channels cannot be"),
        ({"channels": {"radar": ["s1grd", [0, -1]]}}, "channels cannot be"),
        ({"channels": {"radar": ["s1grd", [0, "1"]]}}, "channels cannot be"),
        ({"channels": {"a": ["s1grd", [0, 1]], "b": ["s1grd", [0, 1]]}}, "channels give"),
        ({"channels": {"a": ["s1grd", [0, 1]], "b": ["s3", [0, 1]]}}, "channels give"),
        ({"channels": {"a": ["s1grd", [0]], "b": ["s2l2a", [0]]}}, "channels give"),
        ({"strange": 1}, "expected task, classes, head, channels, seasons"),
    ],
    ids=lambda it: str(it)[:40],
)
def test_tasks_of_strangers_are_refused(change: dict[str, Any], message: str, path: Path) -> None:
    task_model().save(path)
    said = json.loads(read_tensors(path)[1]["task"])
    damaged(path, {"task": json.dumps({**said, **change})}, {})
    with pytest.raises(CheckpointError, match=message) as caught:
        TaskModel.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "NaN", "{}", "[" * 10**5, '"task"'])
def test_a_damaged_description_is_refused(text: str, path: Path) -> None:
    task_model().save(path)
    damaged(path, {"task": text}, {})
    with pytest.raises(CheckpointError, match="its task is damaged: "):
        TaskModel.load(path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"head.linear.bias": None}, r"1 missing \(head.linear.bias\); 0 unknown"),
        ({"head.more": torch.zeros(1)}, r"0 missing; 1 unknown \(head.more\)"),
        ({"head.linear.bias": torch.zeros(2)}, r"head.linear.bias must be \[3\], but is \[2\]"),
        ({"encoder.norm.bias": None}, r"1 missing \(encoder.norm.bias\)"),
        ({"head.linear.bias": torch.full((3,), torch.nan)}, "head.linear.bias holds NaN"),
        ({"head.linear.bias": torch.zeros(3).long()}, "head.linear.bias has dtype I64"),
    ],
    ids=lambda it: str(it)[:40],
)
def test_heads_of_strangers_are_refused(state: dict[str, Any], message: str, path: Path) -> None:
    task_model().save(path)
    damaged(path, {}, state)
    with pytest.raises(CheckpointError, match=message):
        TaskModel.load(path)


@pytest.mark.parametrize("classes", ["[", "{}", "[1]", '["a"]', "[]", '[], "seasons": 1', "NaN"])
def test_damaged_classifiers_of_earlier_versions_are_refused(classes: str, path: Path) -> None:
    as_before(classifier(), path)
    damaged(path, {"classes": classes}, {})
    with pytest.raises(CheckpointError, match=str(path)):
        TaskModel.load(path)


def test_a_classifier_of_earlier_versions_has_one_modality(path: Path) -> None:
    as_before(task_model(seasons=1), path)
    with pytest.raises(CheckpointError, match=r"missing \(head.merge.groups.weight\)"):
        TaskModel.load(path)


def test_pretrained_weights_hold_no_head(path: Path) -> None:
    backbone = task_model().backbone
    save_file(backbone.state_dict(), path, model_metadata(backbone.config, backbone.modalities))
    with pytest.raises(CheckpointError, match="holds no head of a task; finetuning writes one"):
        TaskModel.load(path)


def test_half_precision_loads_as_full(path: Path) -> None:
    task_model().save(path)
    tensors, _ = read_tensors(path)
    damaged(path, {}, {name: tensor.half() for name, tensor in tensors.items()})
    assert {each.dtype for each in TaskModel.load(path).parameters()} == {torch.float32}


def test_a_failed_write_leaves_nothing_behind(path: Path) -> None:
    path.mkdir()
    with pytest.raises(CheckpointError, match="could not be written"):
        task_model().save(path)
    assert list(path.parent.iterdir()) == [path]
