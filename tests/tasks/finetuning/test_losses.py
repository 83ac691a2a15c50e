"""Losses equal PyTorch's, their definitions, and themselves on any parts of a batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.errors import ConfigError
from seamo_fast.tasks.datasets.reading.base import IGNORE, Task
from seamo_fast.tasks.finetuning.losses import (
    LOSSES,
    Loss,
    balanced_weights,
    loss_function,
    mean_loss,
)

K = 4
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.25])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).mul(2).requires_grad_()


def masks(batch: int = 3, height: int = 5, width: int = 7) -> Tensor:
    """Class 3 is in no image, class 0 not in the first."""
    found = torch.randint(IGNORE, K - 1, (batch, height, width))
    found[:1][found[:1] == 0] = 1
    return found


def same(ours: Tensor, theirs: Tensor, given: Tensor) -> None:
    """Equal values and gradients."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    found, expected = (torch.autograd.grad(each, given)[0] for each in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("pixels", [False, True])
def test_cross_entropy_is_pytorch_s(pixels: bool, weights: Tensor | None, smoothing: float) -> None:
    given = logits(3, K, 5, 7) if pixels else logits(9, K)
    target = masks() if pixels else torch.randint(K, (9,))
    ours = loss_function("cross_entropy", "mask" if pixels else "classes", weights, smoothing)
    theirs = F.cross_entropy(
        given,
        target,
        None if weights is None else weights.double(),
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    same(mean_loss(*ours(given, target)), theirs, given)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_targets(smoothing: float) -> None:
    given, target = logits(9, K), torch.rand(9, K).softmax(dim=1)
    ours = loss_function("cross_entropy", "classes", None, smoothing)
    theirs = F.cross_entropy(given, target.double(), label_smoothing=smoothing)
    same(mean_loss(*ours(given, target)), theirs, given)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_number_and_its_one_hot_target_are_the_same(name: str) -> None:
    given, target = logits(9, K), torch.randint(K, (9,))
    loss = loss_function(name, "classes", WEIGHTS, 0.1)
    one, other = loss(given, target), loss(given, F.one_hot(target, K).float())
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weights", [None, torch.rand(2, K)])
def test_flags_have_binary_cross_entropy(weights: Tensor | None) -> None:
    given, target = logits(9, K), torch.randint(2, (9, K)).float()
    each = None if weights is None else torch.where(target > 0, weights[1], weights[0])
    theirs = F.binary_cross_entropy_with_logits(given, target.double(), each, reduction="sum")
    theirs = theirs / (target.numel() if each is None else each.sum())
    ours = loss_function("cross_entropy", "multilabel", weights)
    same(mean_loss(*ours(given, target)), theirs, given)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_its_formula(gamma: float) -> None:
    given, target = logits(9, K), torch.randint(K, (9,))
    p = given.softmax(dim=1)[torch.arange(9), target]
    theirs = (-((1 - p) ** gamma) * p.log() * WEIGHTS[target]).sum() / WEIGHTS[target].sum()
    same(
        mean_loss(*loss_function("focal", "classes", WEIGHTS, 0, gamma)(given, target)),
        theirs,
        given,
    )

    flags = torch.randint(2, (9, K)).float()
    p = torch.where(flags > 0, given.sigmoid(), 1 - given.sigmoid())
    theirs = (-((1 - p) ** gamma) * p.log()).mean()
    same(mean_loss(*loss_function("focal", "multilabel", gamma=gamma)(given, flags)), theirs, given)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_what_is_sure_has_a_gradient(gamma: float) -> None:
    """Probabilities that round to 1, right and wrong."""
    given = torch.tensor([[200.0, 0, 0, 0], [0, 200.0, 0, 0]], requires_grad=True)
    mean_loss(
        *loss_function("focal", "classes", gamma=gamma)(given, torch.zeros(2).long())
    ).backward()
    assert given.grad is not None
    assert given.grad[0].abs().max() < 1e-6
    torch.testing.assert_close(given.grad[1], torch.tensor([-0.5, 0.5, 0, 0]))


One = Callable[[np.ndarray, np.ndarray], float]


def each_image(one: One, given: Tensor, target: Tensor) -> float:
    """The mean over images with labels of a loss of numpy's probabilities, truth and classes."""
    losses = []
    for image, mask in zip(given.detach().softmax(dim=1).numpy(), target.numpy(), strict=True):
        known = mask != IGNORE
        present = sorted(set(mask[known].tolist()))
        if present:
            losses.append(np.mean([one(image[c][known], mask[known] == c) for c in present]))
    return float(np.mean(losses))


def plain_dice(p: np.ndarray, truth: np.ndarray) -> float:
    return 1 - 2 * (p * truth).sum() / (p.sum() + truth.sum())


def lovasz_extension(p: np.ndarray, truth: np.ndarray) -> float:
    """Sum over thresholds: the Jaccard loss of all pixels with larger errors, times the step."""
    errors = np.abs(truth - p)

    def jaccard_loss(wrong: np.ndarray) -> float:
        predicted = truth ^ wrong
        return 1 - (truth & predicted).sum() / (truth | predicted).sum() if wrong.any() else 0.0

    levels = np.unique(np.concatenate([[0.0], errors]))
    return sum((high - low) * jaccard_loss(errors >= high) for low, high in pairwise(levels))


@pytest.mark.parametrize(("name", "one"), [("dice", plain_dice), ("lovasz", lovasz_extension)])
def test_losses_of_regions_are_their_definition(name: str, one: One) -> None:
    given, target = logits(4, K, 5, 7), masks(4)
    target[2] = IGNORE
    total, weight = loss_function(name, "mask")(given, target)
    assert weight.tolist() == [3]
    assert mean_loss(total, weight).item() == pytest.approx(
        each_image(one, given, target), rel=1e-9
    )


def test_lovasz_of_hard_predictions_is_the_jaccard_loss() -> None:
    """Where the extension touches what it extends."""
    metrics = pytest.importorskip("sklearn.metrics")
    target, predicted = torch.randint(K, (1, 6, 6)), torch.randint(K, (1, 6, 6))
    given = F.one_hot(predicted, K).movedim(-1, 1).double() * 200
    found = mean_loss(*loss_function("lovasz", "mask")(given, target)).item()
    scores = metrics.jaccard_score(target.ravel(), predicted.ravel(), average="macro")
    assert found == pytest.approx(1 - scores)


PARTS: list[tuple[str, Task, bool]] = [
    *((name, "mask", False) for name in LOSSES),
    ("cross_entropy+lovasz", "mask", True),
    ("focal+dice", "change", True),
    ("cross_entropy", "classes", True),
    ("focal", "classes", False),
    ("cross_entropy", "multilabel", False),
    ("focal", "multilabel", True),
]


def example(task: Task, batch: int) -> tuple[Tensor, Tensor]:
    if task == "classes":
        return logits(batch, K), torch.randint(K, (batch,))
    if task == "multilabel":
        return logits(batch, K), torch.randint(2, (batch, K)).float()
    classes = 2 if task == "change" else K
    return logits(batch, classes, 5, 7), torch.randint(IGNORE, classes, (batch, 5, 7))


def made(name: str, task: Task, weighted: bool) -> Loss:
    shapes = {"multilabel": (2, K), "change": (2,)}
    weights = torch.rand(shapes.get(task, (K,))) + 0.5 if weighted else None
    return loss_function(name, task, weights, 0.1 if weighted else 0.0)


@pytest.mark.parametrize(("name", "task", "weighted"), PARTS)
def test_parts_add_up(name: str, task: Task, weighted: bool) -> None:
    given, target = example(task, 5)
    loss = made(name, task, weighted)
    total, weight = loss(given, target)
    assert len(total) == len(weight) == name.count("+") + 1
    parts = [loss(given[at], target[at]) for at in (slice(0, 1), slice(1, 1), slice(1, 5))]
    for whole, split in zip((total, weight), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(split), whole)
    torch.testing.assert_close(loss.weight(target), weight)
    whole = torch.autograd.grad(mean_loss(total, weight), given, retain_graph=True)[0]
    summed = sum(torch.autograd.grad(mean_loss(each, weight), given)[0] for each, _ in parts)
    torch.testing.assert_close(summed, whole)


@pytest.mark.parametrize(("name", "task", "weighted"), PARTS)
def test_gradients(name: str, task: Task, weighted: bool) -> None:
    given, target = example(task, 2)
    loss = made(name, task, weighted)
    assert torch.autograd.gradcheck(lambda each: mean_loss(*loss(each, target)), given)


@pytest.mark.parametrize(
    ("batch", "name", "task", "weighted"),
    [
        (batch, *part)
        for part in PARTS
        for batch in ((0, 2) if part[1] in ("mask", "change") else (0,))
    ],
)
def test_nothing_that_counts_is_zero(batch: int, name: str, task: Task, weighted: bool) -> None:
    """No item, or no pixel with a label."""
    given, target = example(task, batch)
    if task in ("mask", "change"):
        target[:] = IGNORE
    total, weight = made(name, task, weighted)(given, target)
    mean_loss(total, weight).backward()
    assert total.tolist() == weight.tolist() == [0] * len(total)
    assert given.grad is not None
    assert given.grad.shape == given.shape
    assert not given.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_get_no_gradient(name: str) -> None:
    given, target = logits(2, K, 5, 7), masks(2)
    mean_loss(*loss_function(name, "mask")(given, target)).backward()
    assert given.grad is not None
    ignored = (target == IGNORE)[:, None].expand_as(given)
    assert ignored.any()
    assert not given.grad[ignored].any()
    # a pixel's gradient may be 0 elsewhere by the rules of the loss, but not everywhere
    assert given.grad[~ignored].ne(0).float().mean() > 0.9


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_widened(name: str) -> None:
    given, target = logits(2, K, 5, 7).detach().bfloat16(), masks(2)
    loss = loss_function(name, "mask")
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(given, target)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(given.double(), target)[0].float())


def test_balanced_weights_are_sklearn_s() -> None:
    weight = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.repeat([0, 1, 3], [20, 5, 1])
    expected = weight.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    found = balanced_weights(torch.tensor([20, 5, 0, 1]))
    assert found[[0, 1, 3]].tolist() == pytest.approx(expected)
    assert found[2] == 0
    assert found[labels].mean().item() == pytest.approx(1)


def test_balanced_weights_of_flags() -> None:
    """Each flag is a choice of two; one that all items have still counts."""
    weight = pytest.importorskip("sklearn.utils.class_weight")
    flags = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    present = torch.from_numpy(flags.sum(axis=0))
    found = balanced_weights(torch.stack([len(flags) - present, present]))
    for column in range(3):
        occurring = np.unique(flags[:, column])
        expected = weight.compute_class_weight("balanced", classes=occurring, y=flags[:, column])
        assert found[occurring, column].tolist() == pytest.approx(expected)
    assert found[0, 1] == found[1, 2] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "hinge"},
            "loss must be one of cross_entropy, focal, dice, lovasz, or a sum such as "
            "cross_entropy+dice, but got 'hinge'",
        ),
        ({"name": "dice+dice"}, "loss must be a sum of different losses, but got 'dice+dice'"),
        ({"name": "dice+"}, "but got 'dice+'"),
        (
            {"name": "dice", "task": "classes"},
            "loss dice compares regions of masks, but the labels are of whole images; give --loss "
            "cross_entropy or focal",
        ),
        (
            {"name": "focal+lovasz", "task": "multilabel"},
            "loss lovasz compares regions of masks",
        ),
        (
            {"name": "lovasz", "weights": WEIGHTS},
            "loss lovasz takes no class_weights and no label_smoothing; leave them out, or give "
            "--loss cross_entropy+lovasz",
        ),
        ({"name": "dice+lovasz", "smoothing": 0.1}, "takes no class_weights"),
        ({"smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, but got 1.0"),
        ({"name": "focal", "gamma": -1.0}, "focal_gamma must be at least 0, but got -1.0"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        loss_function(**{"name": "cross_entropy", "task": "mask", **arguments})
