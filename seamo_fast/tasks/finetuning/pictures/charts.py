"""The confusion matrix, and a bar with its interval for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from seamo_fast.tasks.evaluation.intervals import Estimate
from seamo_fast.training.reporting.figures import new_figure, save_figure

BAR: Final = "#0072B2"
_LONGEST: Final = 34  # letters of a name
_NUMBERED: Final = 20  # classes whose cells have room for numbers
_LISTED: Final = 20  # confusions beside a matrix without numbers
_COUNTED: Final = 10_000  # from here on cells show shares


def label(name: str) -> str:
    """Returns a name as it is drawn: cut if it is long, and never a formula."""
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1].rstrip(" ,") + "…"
    return short.replace("$", r"\$")


def plot_confusion(confusion: Tensor, classes: Sequence[str], title: str, path: Path) -> None:
    """Writes the confusion matrix as a PNG, with the largest confusions if there are many classes.

    Colours are shares of the true class.

    Args:
        confusion: int64 [K, K], items or pixels by true (row) and predicted class.
        classes: K names.
        title: Of the picture.
        path: The PNG.
    """
    names = [label(name) for name in classes]
    share = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    margin = 1.2 + 0.07 * max(map(len, names))
    if len(names) <= _NUMBERED:
        side = margin + max(0.55 * len(names), 1.5)
        figure = new_figure((side + 0.8, side))
        axes = figure.subplots()
        _write_cells(axes, confusion, share)
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        size = 9.0
    else:
        side = margin + 0.19 * len(names)
        figure = new_figure((side + 6.5, side))
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 5))
        _list_confusions(beside, confusion, share, names)
        turned = {"rotation": 90}
        size = 6.5
    shown = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, size=size, **turned)
    axes.set_yticks(range(len(names)), names, size=size)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(shown, ax=axes, label="share of the true class", shrink=0.6)
    save_figure(figure, path)


def _write_cells(axes: Any, confusion: Tensor, share: Tensor) -> None:
    counted = confusion.max() < _COUNTED
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if not count:
                continue
            part = share[row, column].item()
            text = str(count) if counted else f"{part:.2f}".replace("0.", ".")
            colour = "white" if part > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, size=8)


def _list_confusions(axes: Any, confusion: Tensor, share: Tensor, names: Sequence[str]) -> None:
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    largest = wrong.argsort(descending=True, stable=True)[:_LISTED]
    pairs = [divmod(pair, len(names)) for pair in largest.tolist() if wrong[pair]]
    values = [share[pair].item() for pair in pairs]
    axes.barh(range(len(pairs)), values, color=BAR, height=0.7)
    for place, (pair, value) in enumerate(zip(pairs, values, strict=True)):
        axes.text(value, place, f" {confusion[pair]:,}", va="center", size=7)
    ticks = [f"{names[true]}\n→ {names[predicted]}" for true, predicted in pairs]
    axes.set_yticks(range(len(pairs)), ticks, size=7)
    axes.set(title="most frequent confusions", xlabel="share of the true class")
    axes.set(xlim=(0, 1.25 * max(values, default=1)), ylim=(max(len(pairs), 1) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)


def plot_classes(
    estimates: Sequence[Estimate],
    classes: Sequence[str],
    counts: Sequence[int],
    titles: tuple[str, str],
    path: Path,
) -> None:
    """Writes a bar with its 95 % interval for each class as a PNG.

    Args:
        estimates: K figures in [0, 1]; NaN for a class without one.
        classes: K names.
        counts: K numbers of true items or pixels.
        titles: Of the picture, and of the figure, such as "IoU".
        path: The PNG.
    """
    title, figure_name = titles
    figure = new_figure((7.5, 1.3 + 0.27 * len(classes)))
    axes = figure.subplots()
    known = [(n, each) for n, each in enumerate(estimates) if not math.isnan(each.value)]
    places, values = [n for n, _ in known], [each.value for _, each in known]
    axes.barh(places, values, color=BAR, height=0.7)
    spread = [
        [max(0.0, each.value - each.low) for _, each in known],
        [max(0.0, each.high - each.value) for _, each in known],
    ]
    axes.errorbar(values, places, xerr=spread, fmt="none", ecolor="black", capsize=2, linewidth=0.8)
    for place, each in enumerate(estimates):
        text = "none" if math.isnan(each.value) else f"{each.value:.3f}"
        axes.text(1.02, place, text, va="center", size=8)
    if values:
        mean = sum(values) / len(values)
        axes.axvline(mean, color="#D55E00", linestyle="--", linewidth=1, label=f"mean {mean:.3f}")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, borderaxespad=0.1)
    ticks = [f"{label(name)} ({count:,})" for name, count in zip(classes, counts, strict=True)]
    axes.set_yticks(range(len(classes)), ticks, size=8)
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5), xlabel=figure_name)
    axes.set_title(title, loc="left", size=10)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
