"""What turns the tokens of groups into logits.

Sizes: B items, T seasons, M modalities, N patches in h rows and w columns, D width, K classes.
"""

from __future__ import annotations

from typing import Final, get_args

from seamo_fast.errors import ConfigError
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads.attention import AttentionHead
from seamo_fast.tasks.finetuning.heads.base import Features, Head, HeadName, Merge
from seamo_fast.tasks.finetuning.heads.fpn import FpnHead
from seamo_fast.tasks.finetuning.heads.linear import LinearHead

__all__ = [
    "TASKS",
    "AttentionHead",
    "Features",
    "FpnHead",
    "Head",
    "HeadName",
    "LinearHead",
    "Merge",
    "make_head",
]

TASKS: Final[dict[HeadName, tuple[Task, ...]]] = {
    "linear": get_args(Task),
    "attention": ("classes", "multilabel"),
    "fpn": ("mask", "change"),
}


def make_head(
    name: HeadName, task: Task, groups: int, width: int, classes: int, depth: int
) -> Head:
    """Returns a new head.

    Args:
        name: `linear`, `attention` or `fpn`.
        task: What is to be predicted.
        groups: T * M; of a change M, as each date is one season.
        width: D.
        classes: K.
        depth: Blocks of the encoder.

    Raises:
        ConfigError: The head cannot answer such a task.
    """
    if task not in TASKS[name]:
        fitting = " or ".join(each for each in TASKS if task in TASKS[each])
        raise ConfigError(f"head {name} gives no {task}; expected {fitting}")
    if name == "fpn":
        return FpnHead(groups, width, classes, depth)
    if name == "attention":
        return AttentionHead(groups, width, classes)
    return LinearHead(groups, width, classes, dense=task in TASKS["fpn"])
