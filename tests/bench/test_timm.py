"""timm's ViT without its class token and our backbone are the same model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("timm", reason="timm is not installed")

from bench.inference import models
from bench.training.contestant import Machine

SMALL = replace(models.CONFIG, width=32, depth=2, heads=2, image_size=32, patch_size=8)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our encoder's parameters by timm's names."""
    found = {}
    for name, values in state.items():
        name = name.removeprefix("encoder.").replace("patch_embed.rgb.", "patch_embed.proj.")
        found[name] = values
    return {name: values for name, values in found.items() if name != "modality_embed.rgb"}


def test_features_agree() -> None:
    torch.manual_seed(0)
    ours = models.our_backbone(SMALL)
    nn.init.zeros_(ours.modality_embed["rgb"])  # timm has one kind of image
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    theirs = models.timm_backbone(SMALL, **options)
    theirs.load_state_dict(renamed(ours.state_dict()) | {"pos_embed": ours.table[None]})
    images = torch.randn(3, 3, SMALL.image_size, SMALL.image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours({"rgb": images}), theirs(images), rtol=1e-4, atol=1e-5)


def test_the_race_is_between_models_of_one_size() -> None:
    """Their class token makes half a per cent, which is part of timm's model as it is used."""
    ours, theirs = models.our_backbone(), models.timm_backbone()
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    # positions and a class token there, an embedding of the modality here
    assert sizes[1] - sizes[0] == models.CONFIG.width * (models.CONFIG.num_patches + 1)
    images = torch.randn(1, 3, models.CONFIG.image_size, models.CONFIG.image_size)
    # the fused attention of the CPU hides its products from the counter
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(images)
    assert models.work(images).operations == pytest.approx(counter.get_total_flops(), rel=0.01)
    with torch.no_grad():
        products = Machine(lambda: theirs(images), images.device).facts["flops"]
    assert products == pytest.approx(counter.get_total_flops(), rel=0.001)
