"""Heads: the merge of groups against loops, shapes of odd grids, gradients, where they start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import ConfigError
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads import (
    TASKS,
    AttentionHead,
    Features,
    FpnHead,
    Head,
    HeadName,
    LinearHead,
    Merge,
    make_head,
)
from tests.tasks.finetuning.task_models import HEADS

VALID = torch.tensor([[[1, 1], [0, 1], [1, 0]], [[0, 0], [0, 1], [0, 0]], [[0, 0]] * 3]).bool()
POISON = (math.nan, math.inf, 1e30)


def noisy(head: Head | Merge, spread: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=spread)


def features(head: Head, grid: tuple[int, int], valid: Tensor | None, width: int = 16) -> Features:
    seasons, modalities = (3, 2) if valid is None else valid.shape[1:]
    shape = (3, seasons, modalities, grid[0] * grid[1], width)
    levels = [torch.randn(shape, requires_grad=True) for _ in range(len(head.indices) + 1)]
    return Features(levels, valid, grid)


@pytest.mark.parametrize("inner", [(), (5,)])
def test_a_merge_starts_as_the_mean_of_valid_groups(inner: tuple[int, ...]) -> None:
    x = torch.randn(3, 3, 2, *inner, 8)
    masked = np.ma.array(x.numpy())
    masked[~VALID.numpy()] = np.ma.masked
    with torch.no_grad():
        found, every = Merge(6, 8)(x, VALID), Merge(6, 8)(x, None)
    expected = masked.mean(axis=(1, 2)).filled(0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(every, x.numpy().mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    assert not found[2].any()


def test_a_merge_has_a_matrix_for_each_group() -> None:
    """Against a loop in float64; groups in the order of seasons, then of modalities."""
    merge = Merge(6, 8, 4)
    noisy(merge)
    x = torch.randn(3, 3, 2, 5, 8)
    merge, x = merge.double(), x.double()
    assert merge.groups is not None
    found = merge(x, VALID)
    for b in range(3):
        expected = torch.zeros(5, 4, dtype=torch.float64)
        for t, m in VALID[b].nonzero().tolist():
            matrix = merge.groups.weight[:, 8 * (2 * t + m) :][:, :8]
            expected += x[b, t, m] @ (merge.mean.weight + matrix).T
        expected = expected / max(1, int(VALID[b].sum())) + merge.mean.bias
        torch.testing.assert_close(found[b], expected)


def test_a_merge_of_one_group_has_nothing_to_learn() -> None:
    merge = Merge(1, 8)
    x = torch.randn(2, 1, 1, 5, 8)
    assert list(merge.parameters()) == []
    assert torch.equal(merge(x, None), x[:, 0, 0])
    assert torch.equal(merge(x, torch.tensor([True, False]).view(2, 1, 1))[0], x[0, 0, 0])


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize(("name", "task"), HEADS)
def test_what_is_not_valid_changes_neither_logits_nor_gradients(
    name: HeadName, task: Task, value: float
) -> None:
    head = make_head(name, task, 6, 16, 3, 4)
    noisy(head)
    found = features(head, (2, 3), VALID)
    expected = head(found)
    levels = [
        torch.where(VALID[..., None, None], level, value).detach().requires_grad_()
        for level in found.levels
    ]
    poisoned = head(found._replace(levels=levels))
    assert torch.equal(poisoned, expected)
    poisoned.square().sum().backward()
    for level in levels:
        assert level.grad is not None
        assert not level.grad[~VALID].any()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (5, 7)])
@pytest.mark.parametrize(("name", "task"), HEADS)
def test_shapes_of_odd_grids_and_gradients_that_reach_all(
    name: HeadName, task: Task, grid: tuple[int, int]
) -> None:
    head = make_head(name, task, 6, 16, 3, 4)
    noisy(head)
    given = features(head, grid, None)
    logits = head(given)
    times = 4 if name == "fpn" else 1
    dense = task in ("mask", "change")
    assert logits.shape == (3, 3, *(times * side for side in grid)) if dense else (3, 3)
    (logits * torch.randn_like(logits)).sum().backward()
    alone = name == "attention" and grid == (1, 1)  # softmax over one patch: the query is not used
    for part, parameter in head.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any() or (alone and part in ("query", "kv.weight")), part
    for level in given.levels:
        assert level.grad is not None
        assert level.grad.any()


@pytest.mark.parametrize(("name", "task"), HEADS)
def test_an_image_alone_gives_what_it_gives_among_others(name: HeadName, task: Task) -> None:
    head = make_head(name, task, 6, 16, 3, 4).train()
    noisy(head)
    given = features(head, (3, 2), VALID)
    together = head(given)
    for b in range(3):
        alone = Features([level[b : b + 1] for level in given.levels], VALID[b : b + 1], (3, 2))
        torch.testing.assert_close(head(alone)[0], together[b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "task"), HEADS)
def test_a_new_head_prefers_no_class(name: HeadName, task: Task) -> None:
    head = make_head(name, task, 6, 16, 3, 4)
    logits = head(features(head, (3, 2), VALID))
    assert logits.any()
    assert logits.abs().max() < (1 if name == "fpn" else 1e-3)


def test_attention_against_the_formula() -> None:
    head = AttentionHead(1, 128, 3)
    noisy(head, 0.1)
    head = head.double()
    x = torch.randn(2, 1, 1, 7, 128).double()
    expected = []
    for tokens in x[:, 0, 0]:
        keys, values = F.linear(tokens, head.kv.weight, head.kv.bias).split(128, dim=-1)
        pooled = [
            torch.softmax(k @ q / 8, dim=0) @ v  # 8: the root of 64
            for q, k, v in zip(
                head.query.split(64), keys.split(64, 1), values.split(64, 1), strict=True
            )
        ]
        expected.append(head.linear(head.proj(torch.cat(pooled))))
    torch.testing.assert_close(head(Features([x], None, (1, 7))), torch.stack(expected))


@pytest.mark.parametrize(("width", "heads"), [(16, 1), (192, 3), (384, 6), (100, 1), (1000, 10)])
def test_heads_of_attention_divide_the_width(width: int, heads: int) -> None:
    assert AttentionHead(1, width, 2).heads == heads


def test_the_linear_head_is_one_layer_on_the_mean_of_patches() -> None:
    head = LinearHead(1, 16, 3, dense=False)
    noisy(head)
    x = torch.randn(2, 1, 1, 6, 16)
    expected = x.mean(dim=(1, 2, 3)) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(Features([x], None, (2, 3))), expected)


@pytest.mark.parametrize(
    ("depth", "indices"),
    [(1, (0, 0, 0)), (2, (0, 0, 1)), (4, (0, 1, 2)), (12, (2, 5, 8)), (24, (5, 11, 17))],
)
def test_a_pyramid_takes_a_quarter_a_half_and_three_quarters_of_the_depth(
    depth: int, indices: tuple[int, ...]
) -> None:
    assert FpnHead(1, 16, 2, depth).indices == indices


@pytest.mark.parametrize(("groups", "millions"), [(1, 1.0), (8, 2.6)])
def test_a_pyramid_is_light(groups: int, millions: float) -> None:
    """On a backbone of 384: one image, and four seasons of two modalities."""
    count = sum(parameter.numel() for parameter in FpnHead(groups, 384, 10, 12).parameters())
    assert count < millions * 1e6 < 3e6


@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_a_pyramid_against_the_formula(grid: tuple[int, int]) -> None:
    head = FpnHead(1, 16, 2, 4)
    noisy(head, 0.05)
    head = head.double()
    parts = dict(head.named_parameters())

    def two(x: Tensor, name: str) -> Tensor:
        weight, bias = (parts[f"scale.{name}.{each}"] for each in ("weight", "bias"))
        return F.conv_transpose2d(x, weight, bias, stride=2)

    def normed(x: Tensor, name: str) -> Tensor:
        return F.gelu(F.group_norm(x, 8, parts[f"{name}.weight"], parts[f"{name}.bias"]))

    def grown(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear")

    levels = [torch.randn(3, 1, 1, grid[0] * grid[1], 16).double() for _ in range(4)]
    fine, double, same, half = (
        F.linear(
            level[:, 0, 0], *(parts[f"lateral.{n}.mean.{each}"] for each in ("weight", "bias"))
        )
        .transpose(1, 2)
        .reshape(3, 128, *grid)
        for n, level in enumerate(levels)
    )
    fine = two(normed(two(fine, "0.0"), "scale.0.1"), "0.3")
    double, half = two(double, "1"), F.max_pool2d(half, 2, ceil_mode=True)
    same = same + grown(half, same)
    double = double + grown(same, double)
    fine = fine + grown(double, fine)
    smooth = [
        normed(F.conv2d(x, parts[f"smooth.{n}.0.weight"], padding=1), f"smooth.{n}.1")
        for n, x in enumerate((fine, double, same, half))
    ]
    total = sum((grown(x, fine) for x in smooth), torch.zeros(()).double())
    expected = F.conv2d(total, parts["output.weight"], parts["output.bias"])
    torch.testing.assert_close(head(Features(levels, None, grid)), expected)


def test_each_level_of_a_pyramid_counts() -> None:
    head = FpnHead(1, 16, 2, 4)
    given = features(head, (3, 3), torch.ones(3, 1, 1, dtype=torch.bool))
    before = head(given)
    for number in range(4):
        levels = [each * (number != n) for n, each in enumerate(given.levels)]
        assert (head(given._replace(levels=levels)) - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("attention", "mask", "head attention gives no mask; expected linear or fpn"),
        ("attention", "change", "head attention gives no change; expected linear or fpn"),
        ("fpn", "classes", "head fpn gives no classes; expected linear or attention"),
        ("fpn", "multilabel", "head fpn gives no multilabel; expected linear or attention"),
    ],
)
def test_heads_that_cannot_answer_are_refused(name: HeadName, task: Task, message: str) -> None:
    assert task not in TASKS[name]
    with pytest.raises(ConfigError, match=message):
        make_head(name, task, 1, 16, 2, 4)
