"""ViT-B/16 at 224 px: our backbone on one image of three bands, and timm's."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.kernels import common
from bench.ops.work import Work
from seamo_fast.modalities import get_modality
from seamo_fast.model import PRESETS, ModelConfig
from seamo_fast.model.backbone import SeaMoBackbone

CONFIG = replace(
    PRESETS["base"], image_size=224, patch_size=16, fusion="none", date_embedding=False
)
# pixels come normalised, as timm's transforms leave them
RGB = get_modality("rgb").with_statistics((0.0,) * 3, (1.0,) * 3, "normalised")


class Inputs(NamedTuple):
    """Images, and the models that take them."""

    images: Tensor  # [B, 3, 224, 224]
    ours: SeaMoBackbone
    timm: nn.Module | None  # where it is installed


def our_backbone(config: ModelConfig = CONFIG) -> SeaMoBackbone:
    """One feature vector an image: the mean of the tokens."""
    return SeaMoBackbone(config, [RGB], output="pooled").eval()


def timm_backbone(config: ModelConfig = CONFIG, **options: Any) -> nn.Module:
    """The model of timm in the sizes of ours, without its classifier, with random weights."""
    import timm

    model: nn.Module = timm.create_model(
        "vit_base_patch16_224",
        num_classes=0,
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        **options,
    )
    return model.eval()


def inputs_of(case: common.Case) -> Inputs:
    """Both models, on the device."""
    (images,) = common.randoms((case.batch, 3, CONFIG.image_size, CONFIG.image_size))
    device, there = common.device(), obstacle(case) is None
    return Inputs(images, our_backbone().to(device), timm_backbone().to(device) if there else None)


def ours(x: Inputs) -> Tensor:
    """The model under test."""
    return x.ours({RGB.name: x.images})


def timm_features(x: Inputs) -> Tensor:
    """As its users call it."""
    assert x.timm is not None
    features: Tensor = x.timm(x.images)
    return features


def channels_last(x: Inputs) -> Tensor:
    """With images in the layout that convolutions prefer."""
    return timm_features(x._replace(images=x.images.to(memory_format=torch.channels_last)))


def frozen(function: common.Function) -> common.Function:
    """Compiled with its weights as constants, which Inductor then lays out for the products."""
    compiled = common.whole(function)

    def call(x: Inputs) -> Any:
        with torch._inductor.config.patch(freezing=True):
            return compiled(x)

    return call


def obstacle(case: common.Case) -> str | None:
    """Why timm cannot run."""
    return None if importlib.util.find_spec("timm") else "timm is not installed"


def work(images: Tensor, *, both: bool = False) -> Work:
    """The products of the encoder; weights and images are read, features written."""
    width, tokens = CONFIG.width, CONFIG.num_patches
    values = len(RGB.bands) * CONFIG.patch_size**2
    hidden = int(CONFIG.mlp_ratio * width)
    weights = CONFIG.depth * (4 * width**2 + 2 * width * hidden) + values * width
    pairs = CONFIG.depth * 2 * tokens**2 * width
    return Work(
        operations=2 * len(images) * (tokens * weights + pairs),
        bytes=4 * (weights + len(images) * (tokens * values + width)),
    )
