"""A step of Hugging Face's ViTMAE, and of ours in the same geometry: one image, three bands."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.training.contestant import Machine
from bench.training.huggingface import ViTMAEConfig, ViTMAEForPreTraining
from bench.training.process import Answer, serve
from seamo_fast import views
from seamo_fast.modalities import MISSING_DATE, get_modality
from seamo_fast.model import PRESETS, ModelConfig, SeaMo
from seamo_fast.profile.variant import as_reference
from seamo_fast.tiles import TileBatch
from seamo_fast.training import allocator, optimizer, precision
from seamo_fast.training.config import OptimConfig

CONFIG = replace(
    PRESETS["small"], image_size=224, patch_size=16, fusion="none", date_embedding=False
)
# the whole image, a quarter of its patches
VIEWS = views.ViewConfig(mode="same", crop_rate=(1.0, 1.0), flip=False)
# pixels come normalised, as a Hugging Face image processor leaves them
RGB = get_modality("rgb").with_statistics((0.0,) * 3, (1.0,) * 3, "normalised")


def make_batch(config: ModelConfig, size: int) -> tuple[TileBatch, views.Views]:
    """Random images, and which of their patches are visible."""
    shape = (size, 1, 3, config.image_size, config.image_size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(size)
    batch = TileBatch(
        modalities=(RGB.name,),
        bands={RGB.name: [pixels]},
        valid=torch.ones(size, 1, 1, dtype=torch.bool),
        dates=torch.full((size, 1, 1), MISSING_DATE, dtype=torch.int32),
        ids=numbers,
        epochs=torch.zeros_like(numbers),
        complete=True,
    )
    drawn = views.sample(
        batch.ids,
        batch.epochs,
        seed=0,
        stage=0,
        seasons=1,
        modalities=1,
        num_patches=config.num_patches,
        config=VIEWS,
    )
    return batch, drawn


def noise_of(drawn: views.Views) -> Tensor:
    """What ViTMAE sorts, [B, N], so that it sees the same patches."""
    order = torch.cat([drawn.visible, drawn.hidden], dim=-1)[:, 0, 0].long()
    return order.argsort(-1).float()


def huggingface(config: ModelConfig) -> ViTMAEForPreTraining:
    """Their model in the sizes of ours, with random weights and fused attention."""
    settings = ViTMAEConfig(
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=int(config.width * config.mlp_ratio),
        decoder_hidden_size=config.decoder_width,
        decoder_num_hidden_layers=config.decoder_depth,
        decoder_num_attention_heads=config.decoder_heads,
        decoder_intermediate_size=int(config.decoder_width * config.mlp_ratio),
        image_size=config.image_size,
        patch_size=config.patch_size,
        mask_ratio=VIEWS.mask_ratio,
        norm_pix_loss=config.norm_pix,
        layer_norm_eps=1e-6,
        attn_implementation="sdpa",
    )
    return ViTMAEForPreTraining(settings)


class Contestant:
    """A model, fused AdamW and a batch; memory that was freed is kept in all processes."""

    def __init__(self, name: str, compiled: bool, size: int) -> None:
        allocator.keep_freed_memory()
        self.device = precision.choose_device("auto")
        batch, drawn = make_batch(CONFIG, size)
        self.facts: dict[str, float] = {}
        self.inputs: tuple[object, ...] = (batch.to(self.device), drawn.to(self.device))
        torch.manual_seed(0)
        if name == "huggingface":
            self.model: nn.Module = huggingface(CONFIG)
            pixels, noise = batch.bands[RGB.name][0][:, 0], noise_of(drawn)
            self.inputs = (pixels.to(self.device), noise.to(self.device))
        else:
            ours = SeaMo(CONFIG, [RGB])
            self.model = as_reference(ours) if name == "reference" else ours
        if compiled:
            self.model = torch.compile(self.model)
        self.model.to(self.device)
        self.adamw = optimizer.build(self.model, OptimConfig())

    def step(self) -> Answer:
        """Makes a training step."""
        total = self.model(*self.inputs)[0]
        total.backward()
        optimizer.apply(self.adamw, self.model, 1e-4, None)
        return {"loss": float(total.detach())}


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "huggingface", "machine"))
    parser.add_argument("batch", type=int)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()

    def make() -> Contestant | Machine:
        if given.name != "machine":
            return Contestant(given.name, given.compile, given.batch)
        reference = Contestant("reference", False, given.batch)
        return Machine(reference.step, reference.device)

    serve(make)


if __name__ == "__main__":
    main()
