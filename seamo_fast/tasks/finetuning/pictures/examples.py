"""Predictions of single items as a picture: input, truth, prediction, and what is wrong.

Sizes: T seasons, M modalities, C bands, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seamo_fast import pictures
from seamo_fast.data.checks.contact_sheet import composite
from seamo_fast.modalities import MISSING_DATE, Modality
from seamo_fast.tasks.datasets.reading.base import DENSE, IGNORE, Task
from seamo_fast.tasks.finetuning.pictures import colours as paint
from seamo_fast.tasks.finetuning.pictures.charts import label
from seamo_fast.training.reporting.figures import new_figure, save_figure

_INCH: Final = 1.9  # of a panel
_COLUMNS: Final = 6  # of narrow examples several are beside one another
_BARS: Final = (5, 7)  # least and most classes of an image
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Example:
    """An item, and what a model made of it.

    Attributes:
        name: Of the item.
        images: Stored values [T, C, H, W] of each modality, all bands on one grid.
        valid: bool [T, M], groups that exist, in the order of `images`.
        dates: int32 [T, M], days since 1970-01-01, `MISSING_DATE` where unknown.
        target: int64 [], flags [K], or int64 [H, W] with `IGNORE`.
        logits: [K], or [K, H, W].
    """

    name: str
    images: Mapping[str, Tensor]
    valid: Tensor
    dates: Tensor
    target: Tensor
    logits: Tensor


def draw_examples(
    examples: Sequence[Example],
    modalities: Sequence[Modality],
    task: Task,
    classes: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Writes examples as a PNG.

    An image is in true colour if a modality has it. All images have one stretch.

    Args:
        examples: At least one; all with as many seasons.
        modalities: Those of the images.
        task: What is predicted.
        classes: K names.
        title: Of the picture.
        path: The PNG.
    """
    dense = task in DENSE
    width = examples[0].valid.shape[0] + (3 if dense else 1)
    beside = 1 if dense else min(max(1, _COLUMNS // width), len(examples))
    heights = [
        max(_aspect(each) for each in examples[at : at + beside])
        for at in range(0, len(examples), beside)
    ]
    size = (_INCH * width * beside + 0.3, _INCH * sum(heights) + 0.22 * len(heights) + 0.9)
    figure = new_figure(size)
    axes = figure.subplots(len(heights), width * beside, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    views = [_view(example, modalities) for example in examples]
    stretch = _stretch(views)
    for number, (example, view) in enumerate(zip(examples, views, strict=True)):
        line, place = divmod(number, beside)
        own = axes[line, place * width : (place + 1) * width]
        own[0].set_ylabel(label(example.name), size=6)
        panels = _seasons(view, stretch)
        if dense:
            panels += _masks(example, task, len(classes))
        else:
            _draw_classes(own[-1], example, task, classes)
        for axis, panel in zip(own, panels, strict=False):
            _draw_panel(axis, panel, _aspect(example))
    patches = _legend(task, classes)
    figure.legend(handles=patches, loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path)


def _aspect(example: Example) -> float:
    height, width = next(iter(example.images.values())).shape[-2:]
    return height / width


class _Panel(NamedTuple):
    title: str
    image: Any  # [H, W, 3] in 0..1, None for a season that is missing
    interpolation: str = "nearest"  # keeps the colours of masks


def _draw_panel(axis: Any, panel: _Panel, aspect: float) -> None:
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(panel.title, size=7, pad=2)
    if panel.image is None:
        axis.set_box_aspect(aspect)
        axis.text(0.5, 0.5, "missing", ha="center", va="center", size=7)
    else:
        axis.imshow(panel.image, interpolation=panel.interpolation)


class _View(NamedTuple):
    """The seasons of one modality: composites [H, W, 1 or 3], None for a season that is missing."""

    modality: Modality
    images: list[np.ndarray | None]
    days: list[int]


def _view(example: Example, modalities: Sequence[Modality]) -> _View:
    names = list(example.images)
    known = {each.name: each for each in modalities}
    name = max(names, key=lambda each: len(known[each].composite) == 3)  # the first such, if any
    m, whole = names.index(name), known[name].on_one_grid(gsd=1)
    images = [
        composite(whole, [image.numpy()]) if there else None
        for image, there in zip(example.images[name], example.valid[:, m].tolist(), strict=True)
    ]
    return _View(known[name], images, example.dates[:, m].tolist())


def _stretch(views: Sequence[_View]) -> Any:
    """Returns what is shown as black and as white in all images, so that they compare."""
    found = [
        pictures.limits(view.modality, [image])
        for view in views
        for image in view.images
        if image is not None
    ]
    return np.median(found, axis=0) if found else (0, 1)  # clouds in one must not darken the others


def _seasons(view: _View, stretch: Any) -> list[_Panel]:
    return [
        _Panel(
            _title(view.modality, day, t, len(view.images)),
            None if image is None else pictures.stretched(image, *stretch),
            "auto",
        )
        for t, (image, day) in enumerate(zip(view.images, view.days, strict=True))
    ]


def _title(modality: Modality, day: int, season: int, seasons: int) -> str:
    if day != MISSING_DATE:
        return f"{modality.name}, {_EPOCH + timedelta(day)}"
    return f"{modality.name}, season {season + 1}" if seasons > 1 else modality.name


def _masks(example: Example, task: Task, classes: int) -> list[_Panel]:
    truth, predicted = example.target, example.logits.argmax(dim=0)
    colours = paint.class_colours(task, classes)
    known = truth != IGNORE
    right = (truth == predicted)[known].double().mean().item() if known.any() else 0.0
    return [
        _Panel("truth", paint.coloured(truth, colours).numpy()),
        _Panel("prediction", paint.coloured(predicted, colours).numpy()),
        _Panel(f"errors: {100 * (1 - right):.1f} %", paint.errors(task, truth, predicted).numpy()),
    ]


class Bar(NamedTuple):
    """A class of an image: its number, its probability, and the colour of what became of it."""

    number: int
    probability: float
    colour: paint.Colour


def bars(example: Example, task: Task) -> list[Bar]:
    """Returns the classes to show of an image, most probable first: all true and predicted ones."""
    if task == "classes":
        probability = example.logits.double().softmax(dim=0)
        true = torch.arange(len(probability)) == example.target
        predicted = torch.arange(len(probability)) == probability.argmax()
    else:
        probability = example.logits.double().sigmoid()
        true, predicted = example.target > 0, probability > 0.5
    said = {(True, True): paint.FOUND, (True, False): paint.MISSED, (False, True): paint.WRONG}
    order = ((true | predicted) * 2 + probability).argsort(descending=True, stable=True)
    least, most = _BARS
    kept = order[: min(max(least, int((true | predicted).sum())), most)]
    found = [
        Bar(n, probability[n].item(), said.get((bool(true[n]), bool(predicted[n])), paint.REST))
        for n in kept.tolist()
    ]
    return sorted(found, key=lambda bar: -bar.probability)


def _draw_classes(axis: Any, example: Example, task: Task, classes: Sequence[str]) -> None:
    for place, bar in enumerate(bars(example, task)):
        axis.barh(place, bar.probability, color=paint.light(bar.colour), height=0.9)
        axis.text(0.02, place, label(classes[bar.number]), va="center", size=6)
        axis.text(1, place, f"{bar.probability:.2f}", va="center", ha="right", size=6)
    axis.set(xlim=(0, 1), ylim=(max(_BARS) - 0.5, -0.5))


def _legend(task: Task, classes: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    colours = paint.class_colours(task, len(classes))
    named = [(label(name), colour) for name, colour in zip(classes, colours, strict=True)]
    if task == "change":
        named += [("found", paint.FOUND), ("wrong", paint.WRONG), ("missed", paint.MISSED)]
    elif task == "mask":
        named += [("right", paint.REST), ("wrong", paint.WRONG)]
    else:
        named = [
            ("true and predicted", paint.light(paint.FOUND)),
            ("predicted, not true", paint.light(paint.WRONG)),
            ("true, not predicted", paint.light(paint.MISSED)),
            ("neither", paint.light(paint.REST)),
        ]
    if task in DENSE:
        named.append(("no label", paint.NO_LABEL))
    return [Patch(facecolor=colour, edgecolor="0.6", label=name) for name, colour in named]
