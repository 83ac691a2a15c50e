"""The fixed split: stratified, disjoint, stable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamo_fast.errors import DataError
from seamo_fast.tasks.splits import stratified_split

CLASSES = ("Forest", "River", "SeaLake")


@given(st.lists(st.sampled_from(CLASSES)), st.integers(3, 20))
def test_every_image_is_in_one_part_and_every_class_in_all(extra: list[str], least: int) -> None:
    labels = [*CLASSES] * least + extra
    split = stratified_split(labels)
    assert sorted(split.train + split.val + split.test) == list(range(len(labels)))
    for part, share in zip(split, (0.6, 0.2, 0.2), strict=True):
        assert part == sorted(part)
        for name in CLASSES:
            count = sum(labels[number] == name for number in part)
            assert count >= 1
            assert abs(count - share * labels.count(name)) <= 1


def test_the_split_never_changes() -> None:
    split = stratified_split(["Forest"] * 10 + ["River"] * 5)
    assert split == ([0, 1, 2, 3, 6, 9, 11, 12, 13], [4, 8, 10], [5, 7, 14])
    # a class does not depend on the others
    alone = stratified_split(["River"] * 5)
    assert alone.test == [number - 10 for number in split.test if number >= 10]


@given(st.dictionaries(st.integers(15, 29), st.integers(0, 14)))
def test_images_that_are_the_same_follow_the_first(same: dict[int, int]) -> None:
    labels = ["Forest"] * 10 + ["River"] * 20
    plain, split = stratified_split(labels), stratified_split(labels, same)
    before = {number: n for n, part in enumerate(plain) for number in part}
    after = {number: n for n, part in enumerate(split) for number in part}
    assert after == before | {number: before[first] for number, first in same.items()}
    assert all(part == sorted(part) for part in split)


def test_classes_that_are_too_small_are_named() -> None:
    with pytest.raises(DataError, match="class 'River' has 2 images"):
        stratified_split(["Forest"] * 10 + ["River"] * 2)
