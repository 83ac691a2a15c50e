"""Pictures show what they should, by their pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seamo_fast import pictures
from seamo_fast.modalities import MISSING_DATE, get_modality
from seamo_fast.tasks.datasets.reading.base import IGNORE
from seamo_fast.tasks.evaluation.intervals import Estimate
from seamo_fast.tasks.finetuning.pictures import colours as paint
from seamo_fast.tasks.finetuning.pictures.charts import BAR, label, plot_classes, plot_confusion
from seamo_fast.tasks.finetuning.pictures.choice import choose_examples
from seamo_fast.tasks.finetuning.pictures.examples import Example, bars, draw_examples

image = pytest.importorskip("matplotlib.image")
colours = pytest.importorskip("matplotlib.colors")


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def read(path: Path) -> np.ndarray:
    """Pixels [H, W, 3] in 0..1."""
    return image.imread(path)[..., :3]


def places(pixels: np.ndarray, colour: paint.Colour | str, within: int = 2) -> np.ndarray:
    """Rows and columns [n, 2] of the pixels of a colour."""
    wanted = np.array(colours.to_rgb(colour))
    return np.argwhere(np.abs(pixels - wanted).max(axis=-1) < within / 255)


def before(one: np.ndarray, other: np.ndarray, axis: int) -> bool:
    """Whether places are above (axis 0) or left of (1) others, but for a frame or letter."""
    return bool(np.quantile(one[:, axis], 0.95) < np.quantile(other[:, axis], 0.05))


def runs(pixels: np.ndarray, colour: paint.Colour | str) -> list[int]:
    """Lengths of the horizontal bars of a colour, from above: the longest row of each."""
    rows = places(pixels, colour)[:, 0]
    counts = np.bincount(rows, minlength=len(pixels))
    parts = np.split(counts, np.flatnonzero(np.diff((counts > 0).astype(int))) + 1)
    return [int(part.max()) for part in parts if part.any()]


# Colours


def test_masks_have_the_colours_of_their_classes() -> None:
    table = paint.class_colours("mask", 3)
    mask = torch.tensor([[0, 2], [IGNORE, 1]])
    found = paint.coloured(mask, table)
    expected = [[table[0], table[2]], [paint.NO_LABEL, table[1]]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_errors_of_masks() -> None:
    truth = torch.tensor([[0, 1, IGNORE, IGNORE]])
    predicted = torch.tensor([[0, 2, 0, 1]])
    expected = [[paint.REST, paint.WRONG, paint.NO_LABEL, paint.NO_LABEL]]
    torch.testing.assert_close(paint.errors("mask", truth, predicted), torch.tensor(expected))


def test_errors_of_change() -> None:
    truth = torch.tensor([[0, 0, 1, 1, IGNORE]])
    predicted = torch.tensor([[0, 1, 0, 1, 1]])
    expected = [[paint.REST, paint.WRONG, paint.MISSED, paint.FOUND, paint.NO_LABEL]]
    torch.testing.assert_close(paint.errors("change", truth, predicted), torch.tensor(expected))


def seen_by_deuteranopes(colour: paint.Colour) -> np.ndarray:
    """Machado et al. (2009), severity 1, of linear values."""
    linear = np.array(colour) ** 2.2
    matrix = [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


OF_ERRORS = [paint.REST, paint.WRONG, paint.MISSED, paint.FOUND, paint.NO_LABEL]


@pytest.mark.parametrize(
    "table", [paint.class_colours("mask", 9), OF_ERRORS], ids=["nine", "errors"]
)
def test_few_colours_stay_apart(table: list[paint.Colour]) -> None:
    for one, other in combinations(table, 2):
        assert np.linalg.norm(np.subtract(one, other)) > 0.15
        assert np.linalg.norm(seen_by_deuteranopes(one) - seen_by_deuteranopes(other)) > 0.1


@pytest.mark.parametrize("classes", [2, 9, 10, 43])
def test_classes_have_colours_of_their_own(classes: int) -> None:
    table = [*paint.class_colours("mask", classes), paint.REST, paint.WRONG, paint.NO_LABEL]
    steps = {tuple(round(255 * value) for value in colour) for colour in table}
    assert len(steps) == classes + 3
    assert table[:2] == paint.class_colours("mask", classes)[:2]


# Charts


def test_the_confusion_matrix_has_true_rows_and_predicted_columns(tmp_path: Path) -> None:
    """All of the second class are taken for the third."""
    path = tmp_path / "confusion.png"
    plot_confusion(torch.tensor([[0, 0, 0], [0, 0, 9], [0, 0, 0]]), ["a", "b", "c"], "title", path)
    pixels = read(path)
    full, empty = ((0x08 / 255, 0x30 / 255, 0x6B / 255), (0xF7 / 255, 0xFB / 255, 1.0))  # Blues
    bar = pixels.shape[1] * 3 // 4  # right of it is the legend
    dark, light = (places(pixels[:, :bar], colour) for colour in (full, empty))
    top, left = light.min(axis=0)
    height, width = light.max(axis=0) + 1 - (top, left)
    row, column = (dark.mean(axis=0) - (top, left)) / (height, width) * 3
    assert (row, column) == pytest.approx((1.5, 2.5), abs=0.05)
    assert len(dark) / (len(light) + len(dark)) == pytest.approx(1 / 9, abs=0.01)


def test_many_classes_have_their_largest_confusions_listed(tmp_path: Path) -> None:
    confusion = torch.eye(43, dtype=torch.int64) * 100
    confusion[3, 7] = 300  # three quarters of its class
    confusion[5, 2] = 100  # half
    path = tmp_path / "confusion.png"
    names = [f"class ${number} of {'so ' * 20}many" for number in range(43)]
    plot_confusion(confusion, names, "title", path)
    first, second = runs(read(path)[:, 1000:], BAR)
    assert first / second == pytest.approx(0.75 / 0.5, abs=0.02)


def test_no_confusion_is_drawn_too(tmp_path: Path) -> None:
    plot_confusion(torch.eye(43, dtype=torch.int64), ["a"] * 43, "title", tmp_path / "c.png")
    assert not runs(read(tmp_path / "c.png")[:, 1000:], BAR)


def test_bars_are_as_long_as_their_figures(tmp_path: Path) -> None:
    path = tmp_path / "classes.png"
    values = [0.9, 0.3, math.nan, 0.6]
    estimates = [Estimate(value, value, value) for value in values]
    plot_classes(estimates, ["a", "$b", "c", "d"], [5, 4, 0, 1], ("title", "IoU"), path)
    pixels = read(path)
    # the line of the mean, and that of the interval, cut bars
    first, second, third = runs(pixels, BAR)
    assert second / first == pytest.approx(0.3 / 0.9, abs=0.02)
    assert third / first == pytest.approx(0.6 / 0.9, abs=0.02)
    mean = np.median(places(pixels, "#D55E00", within=60)[:, 1])
    left = places(pixels, BAR)[:, 1].min()
    assert (mean - left) / first == pytest.approx(0.6 / 0.9, abs=0.02)


def test_intervals_reach_from_low_to_high(tmp_path: Path) -> None:
    path = tmp_path / "classes.png"
    plot_classes([Estimate(0.5, 0.25, 0.75)], ["a"], [5], ("title", "IoU"), path)
    pixels = read(path)
    bar = places(pixels, BAR)
    top, left = bar.min(axis=0)
    bottom, right = bar.max(axis=0)
    middle = pixels[(top + bottom) // 2 - 1 : (top + bottom) // 2 + 2, left : 2 * right - left]
    black = np.flatnonzero((middle.max(axis=-1) < 0.2).any(axis=0))
    assert (black.min() / (right - left), black.max() / (right - left)) == pytest.approx(
        (0.5, 1.5), abs=0.03
    )


def test_names_are_cut_and_are_no_formulas() -> None:
    assert label("Forest") == "Forest"
    assert label("$1_2$") == r"\$1_2\$"
    long = label("Land principally occupied by agriculture, with significant areas")
    assert long == "Land principally occupied by agri…"


# Examples


RGB = get_modality("rgb")


def example(target: Tensor, logits: Tensor, picture: Tensor, *, seasons: int = 1) -> Example:
    """The same picture [3, H, W] at all seasons."""
    return Example(
        "item $1",
        {"rgb": picture.expand(seasons, -1, -1, -1).contiguous()},
        torch.ones(seasons, 1, dtype=torch.bool),
        torch.full((seasons, 1), MISSING_DATE, dtype=torch.int32),
        target,
        logits,
    )


def halves() -> Tensor:
    """Red above, blue below."""
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    picture[0, :4] = picture[2, 4:] = 200
    return picture


def panels(path: Path, count: int) -> list[np.ndarray]:
    """The parts of a picture of one row, beside one another, without title and legend."""
    pixels = read(path)
    bounds = np.linspace(0, pixels.shape[1], count + 1).astype(int)
    return [pixels[: int(len(pixels) * 0.83), a:b] for a, b in pairwise(bounds)]


def share(pixels: np.ndarray, colour: paint.Colour, *others: paint.Colour) -> float:
    counts = [len(places(pixels, each)) for each in (colour, *others)]
    return counts[0] / sum(counts)


def test_a_mask_is_shown_with_its_errors(tmp_path: Path) -> None:
    """Class 0 above, 1 below; the left quarter is taken for class 2, a corner has no label."""
    target = torch.zeros(8, 8, dtype=torch.int64)
    target[4:] = 1
    target[:4, 6:] = IGNORE
    predicted = target.clamp(min=0)
    predicted[:, :2] = 2
    logits = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 0).float()
    path = tmp_path / "predictions.png"
    draw_examples([example(target, logits, halves())], [RGB], "mask", "abc", "title", path)
    shown, truth, prediction, wrong = panels(path, 4)
    first, second, third = paint.class_colours("mask", 3)
    assert share(shown, (1, 0, 0), (0, 0, 1)) == pytest.approx(0.5, abs=0.01)
    assert before(places(shown, (1, 0, 0)), places(shown, (0, 0, 1)), 0)
    assert share(truth, first, second) == pytest.approx(24 / 56, abs=0.01)
    assert not len(places(truth, third))
    assert share(prediction, third, first, second) == pytest.approx(16 / 64, abs=0.01)
    assert share(wrong, paint.WRONG, paint.REST) == pytest.approx(16 / 56, abs=0.01)
    assert before(places(wrong, paint.WRONG), places(wrong, paint.REST), 1)
    for elsewhere in (shown, truth, prediction):
        assert not len(places(elsewhere, paint.WRONG))


def test_change_is_shown_with_both_dates(tmp_path: Path) -> None:
    """A quarter each: unchanged, wrong, missed, found."""
    target = torch.arange(2).repeat_interleave(4).repeat_interleave(8).view(8, 8)
    predicted = torch.arange(2).repeat_interleave(4).repeat(8).view(8, 8)
    logits = torch.stack([1.0 - predicted, predicted])
    each = example(target, logits, halves(), seasons=2)
    each.images["rgb"][1] = each.images["rgb"][1].flip(1)
    path = tmp_path / "predictions.png"
    draw_examples([each], [RGB], "change", ("no change", "change"), "title", path)
    first, second, truth, prediction, wrong = panels(path, 5)
    red, blue = (1, 0, 0), (0, 0, 1)
    assert before(places(first, red), places(first, blue), 0)
    assert before(places(second, blue), places(second, red), 0)
    assert share(truth, paint.CHANGED, paint.REST) == pytest.approx(0.5, abs=0.01)
    assert share(prediction, paint.CHANGED, paint.REST) == pytest.approx(0.5, abs=0.01)
    kinds = [paint.REST, paint.WRONG, paint.MISSED, paint.FOUND]
    for kind in kinds:
        assert share(wrong, kind, *(other for other in kinds if other != kind)) == pytest.approx(
            0.25, abs=0.01
        )
    assert before(places(wrong, paint.WRONG), places(wrong, paint.MISSED), 0)
    assert before(places(wrong, paint.MISSED), places(wrong, paint.WRONG), 1)


def test_a_missing_season_and_nodata_are_seen(tmp_path: Path) -> None:
    """The second season is missing; the fifth and sixth columns have no value."""
    modality = get_modality("s2l2a").on_one_grid(10)
    picture = torch.full((len(modality.bands), 8, 8), 1000, dtype=torch.int32)
    picture[:, 4:] = 3000
    picture[:, :, 4:6] = int(modality.nodata or 0)
    values = picture.expand(2, -1, -1, -1).clone()
    each = Example(
        "item",
        {"s2l2a": values},
        torch.tensor([[True], [False]]),
        torch.tensor([[18000], [MISSING_DATE]], dtype=torch.int32),
        torch.tensor(1),
        torch.zeros(3),
    )
    path = tmp_path / "predictions.png"
    draw_examples([each], [modality], "classes", "abc", "title", path)
    there, missing, _ = panels(path, 3)
    lost = pictures.NODATA
    assert share(there, lost, (0, 0, 0), (1, 1, 1)) > 0.1
    assert not len(places(missing, lost))
    dark = (missing.max(axis=-1) < 0.5).mean()
    assert 0 < dark < 0.05  # a frame and a word


def test_true_colour_is_shown_where_there_is_some(tmp_path: Path) -> None:
    """Radar comes first."""
    each = example(torch.tensor(0), torch.zeros(2), halves())
    radar = get_modality("s1grd").on_one_grid(10)
    images = {"s1grd": torch.randn(1, 2, 8, 8), **each.images}
    both = Example(
        "item", images, torch.ones(1, 2).bool(), each.dates.expand(1, 2), each.target, each.logits
    )
    path = tmp_path / "predictions.png"
    draw_examples([both], [radar, RGB], "classes", "ab", "title", path)
    shown, _ = panels(path, 2)
    assert share(shown, (1, 0, 0), (0, 0, 1)) == pytest.approx(0.5, abs=0.01)
    assert len(places(shown, (1, 0, 0))) > 1000


def test_images_have_one_stretch(tmp_path: Path) -> None:
    """What is dark stays dark beside what is bright."""
    dark = torch.arange(64).reshape(8, 8).expand(3, 8, 8)
    some = [example(torch.tensor(0), torch.zeros(2), each) for each in (dark, dark + 180)]
    path = tmp_path / "predictions.png"
    draw_examples(some, [RGB], "classes", "ab", "title", path)
    first, _, second, _ = panels(path, 4)
    shares = [(each.max(axis=-1) < 0.4).mean() for each in (first, second)]
    assert shares[0] > 0.2
    assert shares[1] < 0.05


def test_the_bars_of_an_image_say_what_became_of_its_classes(tmp_path: Path) -> None:
    logits = torch.tensor([0.1, 0.5, 0.04, 0.2, 0.05, 0.06, 0.01, 0.04]).log()
    wrong = example(torch.tensor(6), logits, halves())
    found = bars(wrong, "classes")
    assert [bar.number for bar in found] == [1, 3, 0, 5, 6]
    assert [bar.probability for bar in found] == pytest.approx([0.5, 0.2, 0.1, 0.06, 0.01])
    plain = [paint.REST] * 3
    assert [bar.colour for bar in found] == [paint.WRONG, *plain, paint.MISSED]
    right = bars(example(torch.tensor(1), logits, halves()), "classes")
    assert [bar.colour for bar in right] == [paint.FOUND, *[paint.REST] * 4]

    path = tmp_path / "predictions.png"
    draw_examples([wrong], [RGB], "classes", "abcdefgh", "title", path)
    _, pixels = panels(path, 2)
    first, second = (max(runs(pixels, paint.light(each))) for each in (paint.WRONG, paint.REST))
    assert second / first == pytest.approx(0.2 / 0.5, abs=0.03)


def test_the_bars_of_flags() -> None:
    target = torch.tensor([1, 0, 1, 0, 0, 0, 0, 0])
    logits = torch.tensor([3.0, 2.0, -1.0, -0.5, -4.0, -5.0, -6.0, -7.0])
    found = bars(example(target, logits, halves()), "multilabel")
    assert [bar.number for bar in found] == [0, 1, 3, 2, 4]
    kinds = [paint.FOUND, paint.WRONG, paint.REST, paint.MISSED, paint.REST]
    assert [bar.colour for bar in found] == kinds
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(-3)))
    everything = bars(example(torch.ones(8), logits, halves()), "multilabel")
    assert [bar.number for bar in everything] == [0, 1, 3, 2, 4, 5, 6]


def test_several_rows_and_a_few_columns(tmp_path: Path) -> None:
    """Seven narrow examples take three rows of three."""
    path = tmp_path / "predictions.png"
    each = example(torch.tensor(0), torch.tensor([1.0, 0.0]), halves())
    draw_examples([each] * 7, [RGB], "classes", "ab", "title", path)
    red = np.zeros(read(path).shape[:2], bool)
    red[tuple(places(read(path), (1, 0, 0)).T)] = True
    columns = np.diff(red.any(axis=0).astype(int)).clip(min=0).sum()
    rows = np.diff(red.any(axis=1).astype(int)).clip(min=0).sum()
    assert (rows, columns) == (3, 3)


# Choice


def test_the_surest_errors_are_shown_and_some_that_are_right() -> None:
    target = torch.zeros(10, dtype=torch.int64)
    logits = torch.tensor([5.0, 1, -1, -4, -3, 2, 3, -2, 4, 6])
    predictions = {
        "numbers": torch.arange(100, 110),
        "logits": torch.stack([logits, -logits], dim=1),
        "target": target,
    }
    assert choose_examples("classes", predictions, 4) == [100, 109, 104, 103]
    assert choose_examples("classes", predictions, 20) == [
        *(100, 101, 105, 106, 108, 109),
        *(102, 107, 104, 103),
    ]
    predictions["target"] = (logits < 0).long()
    assert choose_examples("classes", predictions, 3) == [100, 104, 109]
    predictions["target"] = (logits > 0).long()
    assert choose_examples("classes", predictions, 4)[2:] == [100, 109]


def test_flags_that_are_surely_wrong() -> None:
    predictions = {
        "numbers": torch.tensor([3, 5, 8]),
        "logits": torch.tensor([[9.0, -2.0], [1.0, 4.0], [1.0, -1.0]]),
        "target": torch.tensor([[1, 1], [1, 0], [1, 0]]),
    }
    assert choose_examples("multilabel", predictions, 2) == [8, 5]


def test_masks_from_good_to_bad_and_the_worst() -> None:
    """One without labels is not shown."""
    right = torch.tensor([9, 5, 0, 7, 1, 3])
    confusion = torch.zeros(6, 2, 2, dtype=torch.int64)
    confusion[:, 0, 0], confusion[:, 0, 1] = right, 10 - right
    confusion[2] = 0
    predictions = {"numbers": torch.arange(6), "confusion": confusion}
    assert choose_examples("mask", predictions, 4) == [0, 1, 5, 4]
    assert choose_examples("mask", predictions, 8) == [0, 3, 1, 5, 4]
