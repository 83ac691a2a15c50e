"""The pictures of a finetuning: confusion matrix, a bar for each class, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seamo_fast.files import writing
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.evaluation.intervals import Estimate
from seamo_fast.tasks.finetuning.pictures.charts import plot_classes, plot_confusion
from seamo_fast.tasks.finetuning.pictures.examples import Example, draw_examples
from seamo_fast.tasks.finetuning.scores import CHOSEN, OF_CLASS, Figures

CONFUSION: Final = "confusion.png"
CLASSES: Final = "classes.png"
EXAMPLES: Final = "predictions.png"


def draw(
    folder: Path,
    figures: Figures,
    by_class: Sequence[Estimate],
    examples: Sequence[Example],
    opened: Opened,
    modalities: Sequence[Modality],
) -> None:
    """Writes the pictures of what a model does on the test part.

    Args:
        folder: The run's.
        figures: Of the test part.
        by_class: The figure of each class, with its interval.
        examples: Some of its items.
        opened: The dataset.
        modalities: Its modalities, with statistics.

    Raises:
        DataError: The disk is full or not writable.
    """
    task, classes = opened.dataset.task, opened.dataset.classes
    first = CHOSEN[task]
    title = f"{opened.name}, test part: {first} {figures.values[first]:.3f}"
    confusion = figures.confusion
    counts = figures.predictions["target"].sum(0) if confusion is None else confusion.sum(1)
    with writing(folder):
        if confusion is not None:
            plot_confusion(confusion, classes, title, folder / CONFUSION)
        titles = (title, OF_CLASS[task])
        plot_classes(by_class, classes, counts.tolist(), titles, folder / CLASSES)
        if examples:
            draw_examples(examples, modalities, task, classes, title, folder / EXAMPLES)
