"""TaskModel: logits against the backbone's own outputs; channels, groups, dates and modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads import HeadName, LinearHead, make_head
from seamo_fast.tasks.finetuning.model import TaskModel
from tests.tasks.finetuning.task_models import (
    CHANNELS,
    CLASSES,
    HEADS,
    Place,
    place,
    task_model,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def taken(given: Place) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What the backbone gets, written out: radar with its channels swapped, optic without one."""
    images, dates, valid = given
    x = {"s1grd": images["radar"].flip(2), "s2l2a": images["optic"][:, :, 1:]}
    return x, dates[..., [2, 0]], valid[..., [2, 0]]


def with_gaps(given: Place) -> Place:
    images, dates, _ = given
    valid = torch.tensor([[[1, 1, 0], [1, 0, 1]], [[0, 1, 0], [1, 1, 1]], [[1, 0, 1]] * 2]).bool()
    return images, dates, valid


@pytest.mark.parametrize(("head", "task"), HEADS)
def test_logits_have_the_shape_of_the_task(head: HeadName, task: Task) -> None:
    model = task_model(head, task)
    logits = model(*place(size=(40, 24)))
    dense = task in ("mask", "change")
    assert model.dense == dense
    assert logits.shape == (3, len(model.classes), *((40, 24) if dense else ()))
    assert logits.dtype == torch.float32


def test_a_linear_classifier_is_a_layer_on_pooled_features() -> None:
    model = task_model("linear", "classes")
    assert isinstance(model.head, LinearHead)
    assert model.head.merge.groups is not None
    torch.nn.init.zeros_(model.head.merge.groups.weight)  # where it starts
    given = with_gaps(place())
    model.backbone.output = "pooled"
    expected = model.head.linear(model.backbone(*taken(given)))
    torch.testing.assert_close(model(*given), expected, **CLOSE)


def test_a_linear_mask_is_a_layer_on_the_map_and_bilinear() -> None:
    model = task_model("linear", "mask")
    assert isinstance(model.head, LinearHead)
    assert model.head.merge.groups is not None
    torch.nn.init.zeros_(model.head.merge.groups.weight)
    given = with_gaps(place(size=(24, 40)))
    model.backbone.output = "map"
    weight = model.head.linear.weight[..., None, None]
    coarse = F.conv2d(model.backbone(*taken(given)), weight, model.head.linear.bias)
    expected = F.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(*given), expected, **CLOSE)


@pytest.mark.parametrize("head", ["linear", "fpn"])
def test_a_change_is_the_difference_of_two_passes(head: HeadName) -> None:
    """The backbone sees each date alone."""
    model = task_model(head, "change")
    given = with_gaps(place())
    features = model.features(*given)
    x, dates, valid = taken(given)
    both = (valid[:, 0] & valid[:, 1])[:, None]
    first, second = (
        model.backbone.forward_groups(
            {name: image[:, t : t + 1] for name, image in x.items()},
            model.head.indices,
            dates[:, t : t + 1],
            valid[:, t : t + 1],
        )[0]
        for t in (0, 1)
    )
    assert features.valid is not None
    assert torch.equal(features.valid, both)
    for found, a, b in zip(features.levels, first, second, strict=True):
        torch.testing.assert_close(found[both], (a - b).abs()[both], **CLOSE)


@pytest.mark.parametrize("head", ["linear", "fpn"])
def test_a_change_is_symmetric_in_its_dates(head: HeadName) -> None:
    model = task_model(head, "change")
    images, dates, valid = with_gaps(place())
    forward = model(images, dates, valid)
    back = model({n: x.flip(1) for n, x in images.items()}, dates.flip(1), valid.flip(1))
    torch.testing.assert_close(back, forward, **CLOSE)
    assert forward.std() > 1e-3


def test_without_change_there_is_nothing_to_see() -> None:
    model = task_model("linear", "change")
    images, dates, valid = place()
    same = {name: image[:, :1].repeat(1, 2, 1, 1, 1) for name, image in images.items()}
    logits = model(same, dates[:, :1].repeat(1, 2, 1), valid)
    assert isinstance(model.head, LinearHead)
    expected = model.head.linear.bias[:, None, None].expand_as(logits)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("value", [0.0, 1e30, math.nan])
@pytest.mark.parametrize(("head", "task"), HEADS)
def test_what_is_missing_changes_nothing(head: HeadName, task: Task, value: float) -> None:
    model = task_model(head, task)
    images, dates, valid = with_gaps(place())
    expected = model(images, dates, valid)
    for m, (name, image) in enumerate(images.items()):
        images[name] = torch.where(valid[:, :, m, None, None, None], image, value)
    found = model(images, torch.where(valid, dates, 7), valid)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("task", ["classes", "mask"])
def test_a_season_that_is_missing_leaves_what_a_model_without_it_gives(task: Task) -> None:
    """A new head: the mean over groups."""
    longer, shorter = task_model("linear", task, 3, spread=0), task_model("linear", task, 2)
    assert isinstance(longer.head, LinearHead)
    assert isinstance(shorter.head, LinearHead)
    longer.backbone.load_state_dict(shorter.backbone.state_dict())
    longer.head.linear.load_state_dict(shorter.head.linear.state_dict())
    assert shorter.head.merge.groups is not None
    torch.nn.init.zeros_(shorter.head.merge.groups.weight)
    images, dates, valid = with_gaps(place())
    more = {name: torch.cat([x[:, :1] * 2, x], 1) for name, x in images.items()}
    found = longer(
        more, torch.cat([dates[:, :1], dates], 1), F.pad(valid, (0, 0, 1, 0), value=False)
    )
    torch.testing.assert_close(found, shorter(images, dates, valid), **CLOSE)


def test_none_stands_for_all_groups() -> None:
    model = task_model("fpn", "mask")
    images, dates, valid = place()
    torch.testing.assert_close(
        model(images, dates, None), model(images, dates, valid), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("task", ["classes", "change"])
def test_what_an_item_skips_depends_on_its_own_scales(task: Task) -> None:
    model = task_model("linear", task).train()
    given = place()
    scales = torch.ones(3, 3, 2)
    scales[1] = 0
    found, plain = model(*given, scales), model(*given)
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]], **CLOSE)
    assert (found[1] - plain[1]).abs().max() > 1e-3
    torch.testing.assert_close(model.eval()(*given, scales), model(*given))


def test_both_dates_of_a_change_skip_the_same() -> None:
    model = task_model("linear", "change").train()
    images, dates, valid = place()
    same = {name: image[:, :1].repeat(1, 2, 1, 1, 1) for name, image in images.items()}
    logits = model(same, dates[:, :1].repeat(1, 2, 1), valid, 2 * torch.rand(3, 3, 2))
    assert (logits - logits[:, :, :1, :1]).abs().max() < 1e-5


def test_a_frozen_backbone_stays_in_evaluation_mode_and_keeps_no_graph() -> None:
    model = task_model("fpn", "mask")
    model.backbone.requires_grad_(False)
    model.train()
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        features = model.features(*place())
    assert kept == []
    assert not any(level.requires_grad for level in features.levels)
    model.backbone.encoder.norm.requires_grad_(True)
    assert model.train().backbone.training
    assert not model.eval().backbone.training


@pytest.mark.parametrize(("head", "task"), HEADS)
def test_half_precision_gives_logits_in_full(head: HeadName, task: Task) -> None:
    """Near those of single precision, with blocks that drop."""
    model = task_model(head, task).train()
    scales = torch.ones(3, 3, 2)
    scales[0, 1], scales[1, 2, 0] = 0, 2
    with torch.autocast("cpu", torch.bfloat16):
        found = model(*place(), scales)
    expected = model(*place(), scales)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1 * expected.std()
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("seasons", "task"), [(1, "classes"), (3, "classes"), (1, "change")])
def test_items_of_other_seasons_are_refused(seasons: int, task: Task) -> None:
    message = f"the model takes items of 2 seasons, but got {seasons}"
    with pytest.raises(DataError, match=message):
        task_model("linear", task)(*place(seasons=seasons))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda: {"channels": {}}, r"channels give \[\], but the backbone takes"),
        (lambda: {"channels": {"radar": ("s1", (0, 1))}}, r"\('s1', 2\).*'s1grd': 2"),
        (lambda: {"channels": {"radar": ("s1grd", (0,))}}, r"\('s1grd', 1\).*'s1grd': 2"),
        (
            lambda: {"channels": dict.fromkeys("ab", ("s1grd", (0, 1)))},
            r"\('s1grd', 2\), \('s1grd', 2\)",
        ),
        (
            lambda: {"task": "change", "seasons": 3},
            "a change needs images of two dates, but there are 3",
        ),
    ],
    ids=["none", "unknown", "too few", "twice", "dates"],
)
def test_contradictions_are_refused(changes: Callable[[], dict[str, Any]], message: str) -> None:
    backbone = task_model().backbone
    head = make_head("linear", "classes", 4, 16, 3, 2)
    given = {"task": "classes", "classes": CLASSES, "channels": CHANNELS, "seasons": 2}
    with pytest.raises(ValueError, match=message):
        TaskModel(backbone, head, **{**given, **changes()})
