"""A step of full finetuning of ViT-S/16 on RGB images of 224 pixels: ours, and timm's model.

Both start from the same weights, turn and see the same images, and have the same loss, optimiser
and allocator, so that their losses must agree.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.process import Answer, serve
from seamo_fast.modalities import MISSING_DATE, get_modality
from seamo_fast.model import PRESETS
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.randomness import generator
from seamo_fast.tasks.finetuning.augment import orientation, oriented
from seamo_fast.tasks.finetuning.batches import Batch
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit.step import Step
from seamo_fast.tasks.finetuning.heads import make_head
from seamo_fast.tasks.finetuning.losses import loss_function
from seamo_fast.tasks.finetuning.methods import choose_parameters
from seamo_fast.tasks.finetuning.model import TaskModel
from seamo_fast.training import allocator, precision
from seamo_fast.training.optimizer import decays

CLASSES = tuple("abcdefghij")
LR = 1e-4
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet, in 8 bits
RGB = get_modality("rgb").with_statistics(MEAN, STD, "ImageNet")
CONFIG = replace(PRESETS["small"], image_size=224, patch_size=16, fusion="none")
SETTINGS = FinetuneConfig(method="full", layer_decay=1.0)
_SMOOTHING = 0.1


def make_model() -> TaskModel:
    """Returns our model with random weights, the same ones each time."""
    torch.manual_seed(0)
    backbone = SeaMoBackbone(CONFIG, [RGB])
    head = make_head("linear", "classes", 1, CONFIG.width, len(CLASSES), CONFIG.depth)
    choose_parameters(backbone, "full")
    return TaskModel(backbone, head, "classes", CLASSES, {"rgb": ("rgb", [0, 1, 2])}, 1)


def as_timm(ours: TaskModel) -> Any:
    """Returns timm's model with the weights of ours, pooled as ours."""
    import timm

    model = timm.create_model(
        "vit_small_patch16_224",
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        num_classes=len(CLASSES),
    )
    state = ours.backbone.state_dict()
    table, offset = ours.backbone.table, state["modality_embed.rgb"]
    renamed = {"pos_embed": (table + offset)[None]}
    for name, tensor in {**state, **ours.head.state_dict()}.items():
        for old, new in (
            ("encoder.", ""),
            ("patch_embed.rgb.", "patch_embed.proj."),
            ("linear.", "head."),
        ):
            if name.startswith(old):
                renamed[new + name.removeprefix(old)] = tensor
    model.load_state_dict(renamed)
    model.pos_embed.requires_grad_(False)  # as ours
    return model


class Images:
    """Batches of random images in memory, each flipped at random.

    Args:
        size: Images of a batch.
    """

    def __init__(self, size: int) -> None:
        random = torch.Generator().manual_seed(0)
        shape = (4 * size, 3, CONFIG.image_size, CONFIG.image_size)
        self._images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        self._labels = torch.randint(0, len(CLASSES), (len(self._images),), generator=random)
        self._size = size

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns images uint8 [B, 3, H, W] and labels int64 [B] of a step."""
        random = generator(0, "bench", step)
        chosen = random.permutation(len(self._images))[: self._size]
        turned = [oriented(self._images[n], orientation(random, "flips", True)) for n in chosen]
        return torch.stack(turned), self._labels[torch.from_numpy(chosen)]


class Ours:
    """Our model and the step that a run makes.

    Args:
        size: Images of a batch.
    """

    def __init__(self, size: int) -> None:
        allocator.keep_freed_memory()
        self.device = precision.choose_device("auto")
        self.facts: dict[str, float] = {}
        self._images, self._number = Images(size), 0
        loss = loss_function(SETTINGS.loss, "classes", None, _SMOOTHING, SETTINGS.focal_gamma)
        self._train = Step(make_model().to(self.device), loss, SETTINGS, torch.float32)

    def step(self) -> Answer:
        """Makes a training step."""
        images, labels = self._images(self._number)
        batch = Batch(
            {"rgb": images[:, None]},
            torch.ones(len(images), 1, 1, dtype=torch.bool),
            torch.full((len(images), 1, 1), MISSING_DATE, dtype=torch.int32),
            labels,
            torch.arange(len(images)),
        )
        found = self._train(batch, self._number, LR)
        self._number += 1
        return {"loss": float(found.total / found.weight)}


class Timm:
    """timm's model in a plain loop.

    Args:
        size: Images of a batch.
        compiled: Whether torch.compile compiles it.
    """

    def __init__(self, size: int, compiled: bool) -> None:
        allocator.keep_freed_memory()
        self.device = precision.choose_device("auto")
        self.facts: dict[str, float] = {}
        self._images, self._number = Images(size), 0
        self._model = as_timm(make_model()).to(self.device).train()
        self._call = torch.compile(self._model) if compiled else self._model
        named = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in named if decays(name, p) == yes], "weight_decay": rate}
            for yes, rate in ((True, SETTINGS.weight_decay), (False, 0.0))
        ]
        self._adamw = torch.optim.AdamW(groups, lr=LR, fused=True)
        self._mean, self._std = (
            torch.tensor(each, device=self.device).view(3, 1, 1) for each in (MEAN, STD)
        )

    def step(self) -> Answer:
        """Makes a training step."""
        images, labels = (each.to(self.device) for each in self._images(self._number))
        logits = self._call((images.float() - self._mean) / self._std)
        loss = F.cross_entropy(logits, labels, label_smoothing=_SMOOTHING)
        loss.backward()
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self._number += 1
        return {"loss": float(loss.detach())}


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "timm"))
    parser.add_argument("batch", type=int)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    serve(lambda: Ours(given.batch) if given.name == "ours" else Timm(given.batch, given.compile))


if __name__ == "__main__":
    main()
