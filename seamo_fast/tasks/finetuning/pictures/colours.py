"""Colours of classes and of what is right and wrong.

They stay apart for the colour-blind: those of up to nine classes are the "muted" ones of Tol
(2021), those of errors are of Okabe and Ito (2008).
"""

from __future__ import annotations

import colorsys
from typing import Final

import torch
from torch import Tensor

from seamo_fast.tasks.datasets.reading.base import IGNORE, Task

Colour = tuple[float, float, float]
_MUTED: Final[tuple[Colour, ...]] = (
    (0.80, 0.40, 0.47),  # rose
    (0.20, 0.13, 0.53),  # indigo
    (0.87, 0.80, 0.47),  # sand
    (0.07, 0.47, 0.20),  # green
    (0.53, 0.80, 0.93),  # cyan
    (0.53, 0.13, 0.33),  # wine
    (0.27, 0.67, 0.60),  # teal
    (0.60, 0.60, 0.20),  # olive
    (0.67, 0.27, 0.60),  # purple
)
FOUND: Final[Colour] = (0.0, 0.62, 0.45)
MISSED: Final[Colour] = (0.0, 0.45, 0.70)
WRONG: Final[Colour] = (0.84, 0.37, 0.0)
CHANGED: Final[Colour] = (0.25, 0.25, 0.25)
REST: Final[Colour] = (0.87, 0.87, 0.87)
NO_LABEL: Final[Colour] = (1.0, 1.0, 1.0)


def class_colours(task: Task, classes: int) -> list[Colour]:
    """Returns the colour of each class of a mask, which depends on its number alone."""
    if task == "change":
        return [REST, CHANGED]
    if classes <= len(_MUTED):
        return list(_MUTED[:classes])
    # steps of the golden ratio leave no two hues close to one another
    return [
        colorsys.hsv_to_rgb(n * 0.618 % 1, (0.9, 0.5)[n % 2], (0.95, 0.75, 0.5)[n % 3])
        for n in range(classes)
    ]


def light(colour: Colour) -> Colour:
    """Returns a colour that black text can be read on."""
    red, green, blue = ((1 + value) / 2 for value in colour)
    return red, green, blue


def coloured(mask: Tensor, colours: list[Colour]) -> Tensor:
    """Returns a mask as float32 [H, W, 3]; `IGNORE` is `NO_LABEL`.

    Args:
        mask: int64 [H, W].
        colours: One for each class.
    """
    table = torch.tensor([*colours, NO_LABEL])
    return table[torch.where(mask == IGNORE, len(colours), mask)]


def errors(task: Task, truth: Tensor, predicted: Tensor) -> Tensor:
    """Returns where a prediction is wrong as float32 [H, W, 3].

    Right pixels are `REST`, wrong ones `WRONG`. Of change, `FOUND` is what was found, `WRONG` what
    did not change, and `MISSED` what did.

    Args:
        task: "mask" or "change".
        truth: int64 [H, W], with `IGNORE`.
        predicted: int64 [H, W].
    """
    wrong = (truth != predicted).long()
    if task == "mask":
        return coloured(torch.where(truth == IGNORE, IGNORE, wrong), [REST, WRONG])
    outcome = torch.where(truth == IGNORE, IGNORE, 2 * truth + predicted)
    return coloured(outcome, [REST, WRONG, MISSED, FOUND])
