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
from seamo_fast.training.step import TrainingStep

CONFIG = replace(
    PRESETS["small"], image_size=224, patch_size=16, fusion="none", date_embedding=False
)
_LR = 1e-4
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


class Ours:
    """Our model, or its plain reference, and the step that a run makes."""

    def __init__(self, name: str, size: int) -> None:
        allocator.keep_freed_memory()
        self.device = precision.choose_device("auto")
        self.facts: dict[str, float] = {}
        batch, drawn = make_batch(CONFIG, size)
        self.batch, self.views = batch.to(self.device), drawn.to(self.device)
        torch.manual_seed(0)
        ours = SeaMo(CONFIG, [RGB])
        model = as_reference(ours) if name == "reference" else ours
        self.model: nn.Module = model.to(self.device)
        self.train = TrainingStep(self.model, ours.count, OptimConfig(), self.device, torch.float32)

    def step(self) -> Answer:
        """Makes a training step."""
        losses, _ = self.train(self.model, self.batch, self.views, fusion=False, lr=_LR)
        return {"loss": float(losses.sum())}


class HuggingFace:
    """Their model, with the optimiser, the clipping and the allocator of ours."""

    def __init__(self, compiled: bool, size: int) -> None:
        allocator.keep_freed_memory()
        self.device = precision.choose_device("auto")
        self.facts: dict[str, float] = {}
        batch, drawn = make_batch(CONFIG, size)
        self.pixels = batch.bands[RGB.name][0][:, 0].to(self.device)
        self.noise = noise_of(drawn).to(self.device)
        torch.manual_seed(0)
        self.model = huggingface(CONFIG).to(self.device)
        self.adamw = optimizer.build(self.model, OptimConfig())
        self.call = torch.compile(self.model) if compiled else self.model

    def step(self) -> Answer:
        """Makes a training step."""
        loss = self.call(self.pixels, noise=self.noise).loss
        loss.backward()
        optimizer.apply(self.adamw, self.model, _LR, OptimConfig().clip)
        return {"loss": float(loss.detach())}


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "huggingface", "machine"))
    parser.add_argument("batch", type=int)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()

    def make() -> Ours | HuggingFace | Machine:
        if given.name == "huggingface":
            return HuggingFace(given.compile, given.batch)
        if given.name == "ours":
            return Ours("ours", given.batch)
        reference = Ours("reference", given.batch)
        return Machine(reference.step, reference.device)

    serve(make)


if __name__ == "__main__":
    main()
