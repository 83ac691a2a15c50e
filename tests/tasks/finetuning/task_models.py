"""Small models of tasks and what they take: two modalities, one of more channels than are taken."""

from __future__ import annotations

import torch
from torch import Tensor

from seamo_fast.modalities import MISSING_DATE
from seamo_fast.model import ModelConfig
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.finetuning.heads import TASKS, HeadName, make_head
from seamo_fast.tasks.finetuning.model import TaskModel

CONFIG = ModelConfig(width=16, depth=2, heads=2, image_size=16, patch_size=8, fusion_depth=1)
CHANNELS = {"radar": ("s1grd", (1, 0)), "optic": ("s2l2a", tuple(range(1, 13)))}
CLASSES = ("water", "wood", "rock")
HEADS: list[tuple[HeadName, Task]] = [(head, task) for head in TASKS for task in TASKS[head]]
Place = tuple[dict[str, Tensor], Tensor, Tensor]  # images, dates and valid groups


def task_model(
    head: HeadName = "linear",
    task: Task = "classes",
    seasons: int = 2,
    config: ModelConfig = CONFIG,
    spread: float = 0.1,
) -> TaskModel:
    """A model whose parameters all differ from where they start, by noise of so much spread."""
    torch.manual_seed(0)
    backbone = SeaMoBackbone(config, ["s2l2a", "s1grd"])
    groups = 2 * (1 if task == "change" else seasons)
    classes = CLASSES[:2] if task == "change" else CLASSES
    made = make_head(head, task, groups, config.width, len(classes), config.depth)
    model = TaskModel(backbone, made, task, classes, CHANNELS, seasons)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return model


def place(
    batch: int = 3, seasons: int = 2, size: tuple[int, int] = (16, 24), seed: int = 0
) -> Place:
    """A modality that no model takes stands between the two."""
    generator = torch.Generator().manual_seed(seed)

    def noise(channels: int) -> Tensor:
        return torch.randn(batch, seasons, channels, *size, generator=generator)

    images = {
        "optic": 1500 + 500 * noise(13),
        "elevation": 100 * noise(1),
        "radar": 4 * noise(2) - 12,
    }
    dates = torch.randint(15000, 20000, (batch, seasons, 3), generator=generator).int()
    dates[0, 0] = MISSING_DATE
    return images, dates, torch.ones(batch, seasons, 3, dtype=torch.bool)
