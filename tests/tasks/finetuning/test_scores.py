"""Figures equal scikit-learn's on what is stored, and evaluate's, whatever the order and ranks."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.tasks.datasets.reading.base import IGNORE, Task
from seamo_fast.tasks.evaluation.intervals import wilson_interval
from seamo_fast.tasks.evaluation.scores import METRICS
from seamo_fast.tasks.finetuning.scores import CHOSEN, Figures, Scores, intervals
from seamo_fast.training.distributed import ranks
from tests.forkserver import FORK
from tests.tasks.finetuning.sklearn_figures import by_sklearn, pixels

metrics = pytest.importorskip("sklearn.metrics")
CPU = torch.device("cpu")
TASKS: tuple[Task, ...] = ("classes", "multilabel", "mask", "change")
N = 24


class Part(NamedTuple):
    """Logits, targets and numbers of all items of a part; masks may be windows."""

    logits: Tensor
    target: Tensor
    numbers: Tensor

    def take(self, at: Tensor | slice) -> Part:
        return Part(self.logits[at], self.target[at], self.numbers[at])


def part(task: Task, seed: int = 0) -> Part:
    """Class 3 is predicted but never true, class 4 is neither; the first mask has no label."""
    rng = torch.Generator().manual_seed(seed)
    classes = 2 if task == "change" else 5
    shape = (6, 5) if task in ("mask", "change") else ()
    logits = torch.randn(N, classes, *shape, generator=rng).mul(4).round().div(2)
    if classes == 5:
        logits[:, 4] = -50
    if task == "multilabel":
        target = (logits + 3 * torch.randn(logits.shape, generator=rng) > 1).float()
        target[:, 3:] = 0
        return Part(logits * 20, target, torch.arange(N))  # beyond what sigmoid can tell apart
    drawn = torch.randint(min(classes, 3), (N, *shape), generator=rng)
    sure = torch.rand(N, *shape, generator=rng) < 0.4
    target = torch.where(sure, logits[:, :3].argmax(dim=1), drawn)
    if shape:
        target[torch.rand(target.shape, generator=rng) < 0.1] = IGNORE
        target[0] = IGNORE
    return Part(logits, target, torch.arange(N))


def scored(task: Task, *parts: Part) -> Figures:
    scores = Scores(task, parts[0].logits.shape[1], CPU)
    for each in parts:
        scores.update(*each)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return scores.compute()


def stored(found: Figures, path: Path) -> dict[str, np.ndarray]:
    save_file(found.predictions, path / "predictions.safetensors")
    return {
        name: each.numpy() for name, each in load_file(path / "predictions.safetensors").items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_figures_are_sklearn_s_on_what_is_stored(task: Task, tmp_path: Path) -> None:
    given = part(task)
    found = scored(task, given.take(slice(0, 5)), given.take(slice(5, N)))
    kept = stored(found, tmp_path)
    assert kept["numbers"].tolist() == list(range(N))
    expected = by_sklearn(task, kept)
    assert next(iter(found.values)) == CHOSEN[task]
    assert found.values == pytest.approx(expected, abs=1e-6)
    if task in ("mask", "change"):
        known = given.target != IGNORE
        assert found.confusion is not None
        expected_confusion = metrics.confusion_matrix(
            given.target[known],
            given.logits.argmax(dim=1)[known],
            labels=range(given.logits.shape[1]),
        )
        assert found.confusion.tolist() == expected_confusion.tolist()
        assert not kept["confusion"][0].any()


def test_classes_that_do_not_count_have_no_figure(tmp_path: Path) -> None:
    of_images, of_flags, of_masks = (
        scored(task, part(task)) for task in ("classes", "multilabel", "mask")
    )
    for found, absent in ((of_images, [3, 4]), (of_flags, [3, 4]), (of_masks, [4])):
        assert found.by_class.isnan().nonzero()[:, 0].tolist() == absent
    assert of_masks.by_class[3] == 0

    kept = stored(of_images, tmp_path)
    y, p = kept["target"], kept["logits"].argmax(axis=1)
    expected = metrics.recall_score(y, p, average=None, labels=range(3))
    assert of_images.by_class[:3].tolist() == pytest.approx(expected)
    assert of_images.confusion is not None
    expected = metrics.confusion_matrix(y, p, labels=range(5))
    assert of_images.confusion.tolist() == expected.tolist()

    kept = stored(of_flags, tmp_path)
    expected = metrics.average_precision_score(
        kept["target"][:, :3], kept["logits"][:, :3], average=None
    )
    assert of_flags.by_class[:3].tolist() == pytest.approx(expected)
    assert of_flags.confusion is None

    y, p = pixels(stored(of_masks, tmp_path)["confusion"].sum(axis=0))
    expected = metrics.jaccard_score(y, p, average=None)
    assert of_masks.by_class[:4].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_finds_the_same(task: Task) -> None:
    """The weighted figures of its bootstrap, items counting once."""
    found = scored(task, part(task))
    figures, by_class = intervals(task, found.predictions, 100, 0)
    assert list(figures) == list(METRICS[task])
    for name, each in figures.items():
        assert each.value == pytest.approx(found.values[name], abs=1e-6)
        assert each.low <= each.value <= each.high
        assert each.low < each.high
    values = [each.value for each in by_class]
    assert values == pytest.approx(found.by_class.tolist(), abs=1e-6, nan_ok=True)
    for each in by_class:
        assert math.isnan(each.value) or each.low <= each.value <= each.high


def test_the_interval_of_accuracy_is_wilson_s() -> None:
    """A class of two images that are both right is not known for sure."""
    target = torch.tensor([0, 0, 1, 1, 1])
    logits = torch.eye(2)[[0, 0, 1, 0, 1]]
    found = scored("classes", Part(logits, target, torch.arange(5)))
    whole, (first, second) = intervals("classes", found.predictions, 100, 0)
    assert first == (1, *wilson_interval(2, 2))
    assert second == (pytest.approx(2 / 3), *wilson_interval(2, 3))
    assert whole["accuracy"] == (pytest.approx(4 / 5), *wilson_interval(4, 5))


@pytest.mark.parametrize("task", ["multilabel", "mask", "change"])
def test_one_item_has_no_interval(task: Task) -> None:
    given = part(task)
    labelled = (given.target.flatten(1) > 0).any(dim=1).nonzero().flatten()
    found = scored(task, given.take(labelled[:1]))
    figures, _ = intervals(task, found.predictions, 100, 0)
    for each in figures.values():
        assert math.isnan(each.low)
        assert math.isnan(each.high)


@pytest.mark.parametrize("task", TASKS)
def test_order_and_batches_do_not_matter(task: Task) -> None:
    given = part(task)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    first, *rest = order.split([1, 10, 13])
    whole = scored(task, given)
    found = scored(task, given.take(first), *(given.take(each) for each in rest))
    same(found, whole)


def same(found: Figures, expected: Figures) -> None:
    assert found.values == expected.values
    torch.testing.assert_close(found.by_class, expected.by_class, rtol=0, atol=0, equal_nan=True)
    assert list(found.predictions) == list(expected.predictions)
    for name, each in expected.predictions.items():
        assert torch.equal(found.predictions[name], each)


def test_windows_of_an_item_are_one_item() -> None:
    given = part("mask")
    upper = Part(given.logits[..., :2, :], given.target[:, :2], given.numbers)
    lower = Part(given.logits[..., 2:, :], given.target[:, 2:], given.numbers)
    same(scored("mask", lower, upper), scored("mask", given))


def test_an_image_that_is_judged_twice_is_noticed() -> None:
    given = part("classes")
    with pytest.raises(ValueError, match="an item is judged twice"):
        scored("classes", given, given.take(slice(3, 4)))


@pytest.mark.parametrize("task", TASKS)
def test_nothing_has_no_figures(task: Task) -> None:
    with pytest.raises(DataError, match=f"^0 items without any label have no {CHOSEN[task]}$"):
        Scores(task, 2, CPU).compute()


@pytest.mark.parametrize("task", ["multilabel", "mask", "change"])
def test_no_label_has_no_figures(task: Task) -> None:
    given = part(task)
    nothing = torch.zeros_like(given.target) if task == "multilabel" else IGNORE
    given.target[:] = nothing
    with pytest.raises(DataError, match=f"^{N} items without any label have no {CHOSEN[task]}$"):
        scored(task, given)


def test_half_precision_and_gradients_are_no_trouble() -> None:
    given = part("classes")
    logits = given.logits.bfloat16().requires_grad_()
    found = scored("classes", given._replace(logits=logits))
    assert found.predictions["logits"].dtype == torch.float32
    assert not found.predictions["logits"].requires_grad


def test_torchmetrics_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ConfigError, match=r"pip install 'seamo_fast\[finetune\]'$"):
        Scores("classes", 3, CPU)


def shares(task: Task, rank: int) -> Iterator[Part]:
    """What each of two ranks has: of classes all are the second's, of masks half of each image."""
    given = part(task)
    if task == "classes":
        if rank:
            yield given
    elif task == "multilabel":
        yield given.take(torch.arange(rank, N, 2))
    else:
        half = slice(3) if rank else slice(3, None)
        yield Part(given.logits[..., half, :], given.target[:, half], given.numbers)


def _score_share(rank: int, store: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    connection.send("torchmetrics" in sys.modules)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for task in TASKS:
        scores = Scores(task, part(task).logits.shape[1], CPU)
        for each in shares(task, rank):
            scores.update(*each)
        found = scores.compute()
        arrays = {name: each.numpy() for name, each in found.predictions.items()}
        connection.send((found.values, found.by_class.numpy(), arrays))
    dist.destroy_process_group()


@pytest.mark.parametrize("task", TASKS)
def test_what_ranks_exchange_makes_the_whole(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next test in one process, which imports torchmetrics once."""
    first, second = (Scores(task, part(task).logits.shape[1], CPU) for _ in range(2))
    for rank, scores in enumerate((first, second)):
        for each in shares(task, rank):
            scores.update(*each)
    monkeypatch.setattr(ranks, "every", lambda value: [first._kept, value])
    found = second.compute()
    monkeypatch.undo()
    same(found, scored(task, part(task)))


@pytest.mark.slow
def test_two_ranks_find_what_one_does(tmp_path: Path) -> None:
    """Both of them; neither imports torchmetrics, which takes seconds, before it is needed."""
    pipes = [FORK.Pipe() for _ in range(2)]
    for rank, (_, theirs) in enumerate(pipes):
        FORK.Process(
            target=_score_share, args=(rank, str(tmp_path / "store"), theirs), daemon=True
        ).start()
    for ours, _ in pipes:
        assert ours.poll(100)
        assert ours.recv() is False
    for task in TASKS:
        expected = scored(task, part(task))
        for ours, _ in pipes:
            assert ours.poll(100)
            values, by_class, arrays = ours.recv()
            predictions = {name: torch.from_numpy(each) for name, each in arrays.items()}
            found = Figures(values, torch.from_numpy(by_class), None, predictions)
            same(found, expected)
