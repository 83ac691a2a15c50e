"""Windows of items in batches: what is in them, and what they do not depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast.errors import DataError, UnitError
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import IGNORE, Task
from seamo_fast.tasks.features.items import Items
from seamo_fast.tasks.finetuning.augment import Mixing
from seamo_fast.tasks.finetuning.batches import Batch, EvaluationBatches, by_windows, stack
from seamo_fast.tasks.finetuning.windows import TrainingBatches
from tests.tasks.finetuning.data import OPTICAL, RADAR, item, of_items, toy

SIZES = ((16, 16), (20, 13), (9, 30), (16, 16), (33, 8), (7, 7))
MODALITIES = (OPTICAL, RADAR)


def training(
    opened: Opened,
    window: tuple[int, int] = (8, 8),
    mixup: float = 0,
    memory: int = 2**30,
    **options: Any,
) -> TrainingBatches:
    dataset = opened.dataset
    sizes = {
        n: dataset.dataset[n]["optical"].shape[-2:]
        for n in opened.split.train
        if "optical" in dataset.dataset[n]
    }
    sizes |= {n: (8, 8) for n in opened.split.train if n not in sizes}  # lost since the survey
    return TrainingBatches(
        Items(dataset, 2, options.pop("on_bad", "skip"), memory),
        dict(sorted(sizes.items())),
        window,
        Mixing(dataset.task, MODALITIES, mixup, mixup),
        **{"batch_size": 4, "seed": 5, **options},
    )


def assert_same(one: Batch, other: Batch) -> None:
    for name, image in one.images.items():
        assert image.dtype == other.images[name].dtype
        assert torch.equal(image.nan_to_num(-1), other.images[name].nan_to_num(-1))
    for field in fields(Batch)[1:]:
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def first(batches: TrainingBatches, count: int, start: int = 0) -> list[Batch]:
    return list(islice(batches.batches(start), count))


@pytest.mark.parametrize("augment", ["none", "flips", "turns"])
@pytest.mark.parametrize("window", [(8, 8), (16, 8)])
def test_masks_move_with_images(augment: Any, window: tuple[int, int]) -> None:
    batches = training(toy(sizes=SIZES), window, augment=augment)
    ignored = 0
    for batch in first(batches, 2 * batches.steps):
        assert batch.size == tuple(batch.target.shape[1:]) == window
        known = batch.target != IGNORE
        ignored += int((~known).sum())
        for t in range(2):
            for image in (
                batch.images["optical"][:, t, 0] - 100,
                batch.images["radar"][:, t, 0] + 10,
            ):
                assert torch.equal(image[known].long(), batch.target[known])
    assert ignored  # items smaller than their window


def test_an_epoch_has_as_many_windows_as_cover_each_item_and_they_reach_every_pixel() -> None:
    batches = training(toy(sizes=SIZES), augment="none")
    expected = {n: -(-H // 8) * -(-W // 8) for n, (H, W) in enumerate(SIZES)}
    seen: dict[int, set[int]] = {n: set() for n in expected}
    for epoch in range(150):
        counts: Counter[int] = Counter()
        for batch in first(batches, batches.steps, epoch * batches.steps):
            counts.update(batch.numbers.tolist())
            for number, pixels in zip(
                batch.numbers.tolist(), batch.images["optical"][:, 0, 1], strict=True
            ):
                seen[number] |= set(pixels.flatten().tolist())
                rows, columns = np.divmod(pixels.numpy() - 1, SIZES[number][1])
                assert (np.diff(rows, axis=1) == 0).all()
                assert (np.diff(columns, axis=0) == 0).all()
                assert set(np.diff(columns, axis=1).flatten().tolist()) <= {0, 1}
        assert counts == expected
    assert {n: len(pixels) for n, pixels in seen.items()} == {
        n: H * W for n, (H, W) in enumerate(SIZES)
    }


@pytest.mark.parametrize("task", ["classes", "multilabel", "mask"])
def test_nothing_depends_on_threads_memory_or_where_a_run_resumed(task: Task) -> None:
    opened = toy(task, SIZES)
    mixup = 0 if task == "mask" else 1.0
    reference = first(training(opened, mixup=mixup, threads=0), 9)
    assert len({tuple(batch.numbers.tolist()) for batch in reference}) > 1
    for memory, threads, start in ((0, 3, 0), (10_000, 2, 4), (2**30, 1, 7)):
        found = first(
            training(opened, mixup=mixup, threads=threads, memory=memory), 9 - start, start
        )
        for one, other in zip(reference[start:], found, strict=True):
            assert_same(one, other)
    other = first(training(opened, mixup=mixup, threads=0, seed=6), 9)
    assert any(not torch.equal(a.numbers, b.numbers) for a, b in zip(reference, other, strict=True))


@pytest.mark.parametrize("mixup", [0, 1.0])
@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_ranks_together_have_the_batches_of_one_process(
    batch_size: int, world: int, mixup: float
) -> None:
    opened = toy("classes", ((16, 16),) * 7, bad=[2])
    options = {"mixup": mixup, "batch_size": batch_size, "threads": 0}
    alone = training(opened, **options)
    parts = [training(opened, **options, rank=rank, world=world) for rank in range(world)]
    whole = first(alone, 2 * alone.steps)
    shares = [first(part, 2 * alone.steps) for part in parts]
    assert {part.steps for part in parts} == {alone.steps}
    for one, *others in zip(whole, *shares, strict=True):
        assert all(batch.size == (8, 8) for batch in others)
        assert_same(one, stack([batch for batch in others if len(batch)] or others))


def test_neighbours_in_a_batch_are_mixed() -> None:
    mixed = 0
    batches = training(toy("classes", ((8, 8),) * 7), mixup=1.0, augment="none", batch_size=7)
    for batch in first(batches, 20):
        numbers = batch.numbers.tolist()
        for row, target in enumerate(batch.target):
            other = row ^ 1 if row < 6 else row  # the last one has no neighbour
            own, theirs = numbers[row] % 3, numbers[other] % 3
            assert set(target.nonzero()[:, 0].tolist()) <= {own, theirs}
            assert target.sum().item() == pytest.approx(1)
            mixed += own != theirs and 0 < target[theirs] < 1
            if row == 6:
                assert target[own] == 1
    assert mixed > 60


def test_what_cannot_be_read_is_left_out_of_its_batch() -> None:
    opened = toy("classes", ((8, 8),) * 5, bad=[1, 3])
    batches = training(opened, threads=0)
    epoch = first(batches, 2)
    assert sum(map(len, epoch)) == 3
    assert batches.items.skipped.keys() == {1, 3}
    assert "'optical'" in batches.items.skipped[1]
    with pytest.raises(DataError, match=r"list_[13] has no"):
        first(training(opened, on_bad="stop", threads=0), 2)


@pytest.mark.parametrize(
    ("task", "mixup", "target"),
    [
        ("classes", 0, (torch.int64, ())),
        ("classes", 1, (torch.float32, (3,))),
        ("multilabel", 0, (torch.float32, (3,))),
        ("mask", 0, (torch.int64, (8, 8))),
    ],
)
def test_a_batch_of_bad_items_alone_is_empty(task: Task, mixup: float, target: Any) -> None:
    (batch,) = first(training(toy(task, ((8, 8),) * 2, bad=[0, 1]), mixup=mixup, threads=0), 1)
    assert len(batch) == 0
    assert (batch.target.dtype, tuple(batch.target.shape[1:])) == target
    shapes = {name: tuple(image.shape) for name, image in batch.images.items()}
    assert shapes == {"optical": (0, 2, 2, 8, 8), "radar": (0, 2, 1, 8, 8)}
    assert batch.valid.shape == batch.dates.shape == (0, 2, 2)


class Counting:
    """Counts how often each item of a list is read."""

    def __init__(self, items: Sequence[dict[str, Any]]) -> None:
        self.items = items
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> dict[str, Any]:
        self.reads[number] += 1
        return self.items[number]


def counted(bound: int) -> tuple[Items, Counting]:
    opened = toy(sizes=((16, 16),) * 6)
    source = Counting(opened.dataset.dataset)
    opened.dataset.dataset = source
    return Items(opened.dataset, 2, memory=bound), source


def test_memory_of_decoded_items_is_bounded() -> None:
    one = 2 * 3 * 16 * 16 * 4 + 16 * 16 * 2  # int32 and float32, mask int16
    for kept in (0, 1, 3, 6):
        items, source = counted(kept * one + one // 2)
        for number in (0, 1, 2, 3, 4, 5, 5, 4, 0):
            found = items.read(number)
            assert found is not None
            assert found.bytes == one
            assert items.kept_bytes <= kept * one
        again = {0: (1, 1, 1), 1: (0, 1, 1), 3: (0, 0, 1), 6: (0, 0, 0)}[kept]
        assert source.reads == Counter(range(6)) + Counter(dict(zip((5, 4, 0), again, strict=True)))


def test_what_was_wanted_last_is_kept() -> None:
    one = 2 * 3 * 16 * 16 * 4 + 16 * 16 * 2
    items, source = counted(2 * one)
    for number in (0, 1, 0, 2, 0, 1):
        items.read(number)
    assert source.reads == {0: 1, 1: 2, 2: 1}


def test_threads_that_want_one_item_read_it_once() -> None:
    items, source = counted(2**20)
    barrier, found = Barrier(4), []

    def work() -> None:
        barrier.wait()
        found.append([items.read(number) for number in range(6)])

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.reads == Counter(range(6))
    assert all(one is other for each in found for one, other in zip(each, found[0], strict=True))


def evaluation(opened: Opened, **options: Any) -> EvaluationBatches:
    numbers = opened.split.train
    return EvaluationBatches(
        Items(opened.dataset, 2), numbers, MODALITIES, 8, **{"batch_size": 4, **options}
    )


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 8])
def test_every_item_is_evaluated_once_and_whole(world: int, threads: int) -> None:
    opened = toy(sizes=SIZES)
    numbers: list[int] = []
    for rank in range(world):
        for batch in evaluation(opened, rank=rank, world=world, threads=threads):
            numbers += batch.numbers.tolist()
            assert all(side % 8 == 0 for side in batch.size)
            for row, number in enumerate(batch.numbers.tolist()):
                H, W = SIZES[number]
                stored = opened.dataset.dataset[number]
                mask = np.full(batch.size, IGNORE)
                mask[:H, :W] = stored["mask"]
                np.testing.assert_array_equal(batch.target[row], mask)
                padding = [
                    (0, side - length) for side, length in zip(batch.size, (H, W), strict=True)
                ]
                image = np.pad(stored["optical"], [(0, 0), (0, 0), *padding], mode="edge")
                np.testing.assert_array_equal(batch.images["optical"][row], image)
    assert sorted(numbers) == list(range(6))
    if world == 1:
        assert numbers == [0, 3, 1, 2, 4, 5]  # in order, items of one shape and chunk together


def test_the_middle_is_evaluated_where_classes_train_on_windows() -> None:
    opened = toy("classes", ((16, 18), (7, 30)))
    for batch in evaluation(opened, crop=(8, 8)):
        for row, number in enumerate(batch.numbers.tolist()):
            image = opened.dataset.dataset[number]["optical"]
            if number == 0:
                expected = image[..., 4:12, 5:13]
            else:
                expected = np.pad(image[..., 11:19], [(0, 0), (0, 0), (0, 1), (0, 0)], mode="edge")
            np.testing.assert_array_equal(batch.images["optical"][row], expected)


def test_units_are_compared() -> None:
    opened = toy("classes", ((16, 16),) * 4)
    for each in opened.dataset.dataset:
        each["radar"] = abs(each["radar"]) / 1000  # linear, not decibels
    with pytest.raises(UnitError, match="radar"):
        list(evaluation(opened, strict=True))


@pytest.mark.parametrize("most", [1, 4, 100])
@pytest.mark.parametrize("window", [(8, 8), (16, 8), (64, 64)])
def test_windows_put_together_are_the_image(window: tuple[int, int], most: int) -> None:
    image = torch.arange(3 * 2 * 40 * 24).view(3, 1, 2, 40, 24)
    target = torch.zeros(3, 40, 24, dtype=torch.int64)
    valid = torch.ones(3, 1, 1, dtype=torch.bool)
    batch = Batch({"x": image}, valid, valid.int(), target, torch.arange(3))
    sizes = []

    def predict(part: Batch) -> Tensor:
        assert tuple(part.target.shape) == (len(part), *part.size)
        sizes.append((len(part), *part.size))
        return part.images["x"][:, 0].float()

    assert torch.equal(by_windows(predict, batch, window, most), image[:, 0].float())
    assert all(size[1:] == (min(window[0], 40), min(window[1], 24)) for size in sizes)
    assert all(size[0] <= max(most, 3) for size in sizes)


def test_images_of_several_dtypes_keep_their_values() -> None:
    items = [item(n, "classes", (8, 8), 2, 3) for n in range(2)]
    items[1]["optical"] = items[1]["optical"].astype(np.uint8)
    (batch,) = first(training(of_items(items, "classes"), augment="none", threads=0), 1)
    assert batch.images["optical"].dtype == torch.float32
    for row, number in enumerate(batch.numbers.tolist()):
        np.testing.assert_array_equal(batch.images["optical"][row], items[number]["optical"])


def test_an_item_of_other_seasons_is_left_out_by_name() -> None:
    items = [item(0, "classes", (8, 8), 2, 3), item(1, "classes", (8, 8), 3, 3)]
    found = Items(of_items(items, "classes").dataset, 2)
    assert found.read(1) is None
    assert found.skipped == {1: "list_1 has 3 seasons, but the training items have 2"}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (
            "classes",
            {"label": np.array(3)},
            r"list_0 has the label 3; expected 0 to 2, the numbers",
        ),
        ("classes", {"label": np.array(-1)}, r"list_0 has the label -1; expected 0 to 2"),
        (
            "multilabel",
            {"label": np.array([0, 2, 1])},
            r"list_0 has the label \[0, 2, 1\]; expected a flag",
        ),
        (
            "multilabel",
            {"label": np.array([0, 1])},
            r"list_0 has the label \[0, 1\]; expected a flag",
        ),
        (
            "mask",
            {"mask": np.full((8, 8), 7)},
            r"list_0 has the label 7; expected 0 to 2, .*, or -1",
        ),
        (
            "mask",
            {"mask": np.zeros((8, 9), int)},
            r"list_0: its mask is 8 x 9, but its image 8 x 8",
        ),
        ("mask", {"label": np.array(1)}, r"list_0 has no mask"),
        ("classes", {"mask": np.zeros((8, 8), int)}, r"list_0 has no label"),
    ],
)
def test_wrong_labels_end_a_run_even_where_bad_items_are_skipped(
    task: Task, change: dict[str, Any], message: str
) -> None:
    made = item(0, task, (8, 8), 2, 3)
    made = {key: value for key, value in made.items() if key not in ("label", "mask")} | change
    with pytest.raises(DataError, match=message):
        Items(of_items([made], task).dataset, 2).read(0)


def test_parts_of_a_batch() -> None:
    (batch,) = first(training(toy(sizes=((8, 8),) * 5), batch_size=5, threads=0), 1)
    for parts in (1, 2, 3, 7):
        found = [batch.split(part, parts) for part in range(parts)]
        assert max(map(len, found)) - min(map(len, found)) <= 1
        assert_same(batch, stack([each for each in found if len(each)]))
    moved = replace(batch).to(torch.device("cpu"), non_blocking=True)
    assert_same(batch, moved)
