"""One variant of a parity run, in a process of its own: the backend is chosen once a process.

python -m seamo_fast.profile.variant fast losses.csv --config config.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torch import nn

from seamo_fast.model.seamo import SeaMo
from seamo_fast.profile.config import PARITY, ParityConfig
from seamo_fast.profile.steps import ProfiledSteps
from seamo_fast.reference import ReferenceSeaMo

REFERENCE: Final = "reference"


def as_reference(model: SeaMo) -> nn.Module:
    """Returns the plain model with the same weights; both share them."""
    reference = ReferenceSeaMo(model.config, model.modalities)
    reference.load_state_dict(model.state_dict(), assign=True)
    return reference


def train(config: ParityConfig, name: str, target: Path) -> None:
    """Trains and writes the losses as they come, a line "step,loss" each.

    Args:
        config: The settings of this variant.
        name: `reference` trains the plain model, any other name ours.
        target: A CSV file.
    """
    total = config.parity.steps
    if name == REFERENCE:
        steps = ProfiledSteps(config, total, replace=as_reference)
    else:
        steps = ProfiledSteps(config, total)
    with target.open("w", encoding="utf-8", buffering=1) as file:
        file.write("step,loss\n")
        for number in range(1, total + 1):
            file.write(f"{number},{steps.step().item()!r}\n")


def main(arguments: Sequence[str]) -> None:
    """Takes the name of the variant, the file of its losses, and settings."""
    name, target, *settings = arguments
    train(PARITY.parse(settings)[0], name, Path(target))


if __name__ == "__main__":
    main(sys.argv[1:])
