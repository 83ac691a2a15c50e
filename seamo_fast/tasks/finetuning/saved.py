"""What the file of a task model says of its task, and its head.

Metadata "task" is JSON: {"task": "mask", "classes": ["water", ...], "head": "fpn", "channels":
{"optic": ["s2l2a", [0, 1, ...]]}, "seasons": 2}. Parameters of the head are named "head.*".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import Any, Final, get_args

import torch

from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.files import brief, parse_json, shown
from seamo_fast.model.weights import Weights, read_weights
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads import TASKS, Head, make_head

_MOST_SEASONS: Final = 2**10
_CLASSIFIER: Final = {"head.weight": "head.linear.weight", "head.bias": "head.linear.bias"}


def read_task(path: str | PathLike[str]) -> tuple[Weights, dict[str, Any]]:
    """Returns the weights of a task model, and what its file says of the task.

    Classifiers that versions before 0.2 wrote come as what they would be today.

    Raises:
        CheckpointError: The file is damaged, or says nothing of a task, or what no model says.
    """
    weights = read_weights(path)
    try:
        if "task" in weights.metadata:
            return weights, _checked(parse_json(weights.metadata["task"]))
        if "classes" not in weights.metadata:
            raise CheckpointError(f"{path} holds no head of a task; finetuning writes one")
        channels = {m.name: [m.name, list(range(len(m.bands)))] for m in weights.modalities}
        task = {"task": "classes", "head": "linear", "channels": channels, "seasons": 1}
        found = _checked({**task, "classes": parse_json(weights.metadata["classes"])})
    except ValueError as error:
        raise CheckpointError(f"{path}: its task is damaged: {brief(error)}") from error
    state = {_CLASSIFIER.get(name, name): tensor for name, tensor in weights.state.items()}
    return replace(weights, state=state), found


def read_head(weights: Weights, found: dict[str, Any]) -> Head:
    """Returns the head of a task model; arguments are what `read_task` returned.

    Raises:
        CheckpointError: Parameters of the file are missing, unknown or of another shape.
    """
    groups = len(found["channels"]) * (1 if found["task"] == "change" else found["seasons"])
    sizes = (groups, weights.config.width, len(found["classes"]), weights.config.depth)
    try:
        with torch.device("meta"):  # nothing is allocated before the shapes are compared
            head = make_head(found["head"], found["task"], *sizes)
    except ConfigError as error:
        raise CheckpointError(f"{weights.path}: {error}") from error
    names = {name: f"head.{name}" for name in head.state_dict()}
    weights.check_fit({names[n]: tuple(each.shape) for n, each in head.state_dict().items()})
    head.to_empty(device="cpu")
    head.load_state_dict({name: weights.state[full] for name, full in names.items()})
    return head


def _checked(found: Any) -> dict[str, Any]:
    """Returns what JSON says of a task; ValueError if no model says it."""
    kinds: dict[str, Callable[[Any], bool]] = {
        "task": lambda it: it in get_args(Task),
        "classes": lambda it: isinstance(it, list) and len(it) > 0 and _all(str, it),
        "head": lambda it: it in tuple(TASKS),
        "channels": _are_channels,
        "seasons": lambda it: type(it) is int and 0 < it <= _MOST_SEASONS,
    }
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        raise ValueError(f"expected {', '.join(kinds)}, but got {shown(found)}")
    for key, holds in kinds.items():
        if not holds(found[key]):
            raise ValueError(f"{key} cannot be {shown(found[key])}")
    return found


def _are_channels(found: Any) -> bool:
    """Returns whether JSON holds channels: {"name": ["known name", [0, 1, ...]], ...}."""
    return isinstance(found, dict) and all(
        isinstance(each, list)
        and [type(part) for part in each] == [str, list]
        and _all(int, each[1])
        and min(each[1], default=-1) >= 0
        for each in found.values()
    )


def _all(kind: type, values: list[Any]) -> bool:
    return all(type(value) is kind for value in values)
