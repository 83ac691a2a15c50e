"""SeaMo for pretraining: from raw tiles and views to the reconstruction loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seamo_fast import kernels
from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.decoder import Decoder
from seamo_fast.model.embedding import DateEmbedding, PatchEmbed, sincos_positions
from seamo_fast.model.encoder import Encoder
from seamo_fast.model.fusion import Fusion
from seamo_fast.model.layers import init_weights
from seamo_fast.tiles import TileBatch
from seamo_fast.views import Views


class Losses(NamedTuple):
    """Reconstruction losses (1 is what patch means would get).

    Attributes:
        total: Their sum over modalities, a scalar.
        by_modality: Each modality's, a scalar; 0 if it has no target.
    """

    total: Tensor
    by_modality: dict[str, Tensor]


class CountedLosses(NamedTuple):
    """`Losses`, and over how many patches that of each modality is a mean, int64 [M]."""

    total: Tensor
    by_modality: dict[str, Tensor]
    counts: Tensor


class Reconstruction(NamedTuple):
    """Hidden patches of one modality: prediction, target [B, T, Kh, P], valid [B, T, Kh]."""

    prediction: Tensor
    target: Tensor
    valid: Tensor


class Embedder(nn.Module):
    """Everything before the encoder: patches, positions, modality and date embeddings.

    A base of `SeaMo` and of the backbone, so that both have the same parameters by the same names.
    """

    table: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[Modality]) -> None:
        super().__init__()
        names = [modality.name for modality in modalities]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"modalities must be named once each and not empty, but got {names}")
        words = {"", *dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
        for name in names:
            if "." in name or name in words:
                raise ConfigError(
                    f"no modality can be named {name!r}, as a part of PyTorch is; give it another"
                )
        self.config = config
        self.modalities = tuple(modalities)
        self.patch_embed = nn.ModuleDict(
            {m.name: PatchEmbed(m, config.patch_size, config.width) for m in modalities}
        )
        self.modality_embed = nn.ParameterDict(
            {m.name: torch.empty(config.width).normal_(std=0.02) for m in modalities}
        )
        self.date_embed = DateEmbedding(config.width) if config.date_embedding else None
        table = sincos_positions(config.width, config.grid, config.grid)
        self.register_buffer("table", table, persistent=False)

    def patches_of(self, name: str) -> PatchEmbed:
        """Returns the patch embedding of a modality.

        Raises:
            ValueError: The model has no such modality.
        """
        if name not in self.patch_embed:
            known = ", ".join(modality.name for modality in self.modalities)
            raise ValueError(f"the model has no modality {name!r}; it was built for {known}")
        embed = self.patch_embed[name]
        assert isinstance(embed, PatchEmbed)
        return embed

    def group_offset(self, name: str, dates: Tensor | None) -> Tensor:
        """Returns what is added to all tokens of a group, [B, T, D] for dates [B, T], or [D]."""
        offset = self.modality_embed[name]
        if self.date_embed is None or dates is None:
            return offset
        return offset + self.date_embed(dates)


class SeaMo(Embedder):
    """Season-aware multimodal masked autoencoder (arXiv 2412.19237).

    Args:
        config: Sizes and switches.
        modalities: What the model can take; a batch may hold any subset of them.
    """

    def __init__(self, config: ModelConfig, modalities: Sequence[Modality]) -> None:
        super().__init__(config, modalities)
        self.encoder = Encoder(config)
        self.fusion = None if config.fusion == "none" else Fusion(config)
        self.decoders = nn.ModuleDict({m.name: Decoder(config, len(m.bands)) for m in modalities})
        for part in (self.encoder, self.fusion, self.decoders):
            if part is not None:
                init_weights(part)

    def forward(
        self, batch: TileBatch, views: Views, fusion: bool = True, counted: bool = False
    ) -> Losses | CountedLosses:
        """Returns the losses of predicting the hidden patches.

        Each modality's loss is the mean over its valid groups' measured hidden patches; the total
        is their sum over modalities.

        Args:
            batch: Raw tiles, on the model's device.
            views: Regions and visible and hidden patches of the batch.
            fusion: Run the TM fusion (the first pretraining stage goes without).
            counted: Return `CountedLosses`, which costs a sum.
        """
        results = self.reconstruct(batch, views, fusion)
        by_modality = {
            name: self._loss(found, len(self.patches_of(name).modality.bands))
            for name, found in results.items()
        }
        total = torch.stack(list(by_modality.values())).sum()
        if not counted:
            return Losses(total, by_modality)
        counts = torch.stack([found.valid.sum() for found in results.values()])
        return CountedLosses(total, by_modality, counts)

    def _loss(self, found: Reconstruction, bands: int) -> Tensor:
        """Returns a modality's loss."""
        prediction, target, valid = found
        if self.config.norm_pix == "bands":
            # a band of a patch is a patch of its own: their mean is the same mean
            prediction, target = (x.unflatten(-1, (bands, -1)) for x in (prediction, target))
            valid = valid[..., None].expand(*valid.shape, bands)
        normalize = bool(self.config.norm_pix)
        return kernels.norm_pix_loss(prediction, target, valid, normalize=normalize)

    def reconstruct(
        self, batch: TileBatch, views: Views, fusion: bool = True
    ) -> dict[str, Reconstruction]:
        """Returns each modality's predicted and true hidden patches; arguments as in `forward`.

        Predictions are in units of the patch's own mean and standard deviation (of each band, see
        `config.norm_pix`), targets always in normalised units.
        """
        groups = self.encode(batch, views, fusion).unbind(2)
        results = {}
        for m, name in enumerate(batch.modalities):
            visible, hidden = views.visible[:, :, m], views.hidden[:, :, m]
            prediction = self.decoders[name](groups[m], visible, hidden)
            results[name] = Reconstruction(prediction, *self._targets(batch, views, m))
        return results

    def count(self, batch: TileBatch, views: Views) -> Tensor:
        """Returns over how many patches each modality's loss is a mean, int64 [M].

        Arguments as in `forward`. No parameter is read.
        """
        counts = [self._targets(batch, views, m)[1].sum() for m in range(len(batch.modalities))]
        return torch.stack(counts)

    def encode(self, batch: TileBatch, views: Views, fusion: bool = True) -> Tensor:
        """Returns encoded (and fused) visible tokens [B, T, M, K, D]; arguments as in `forward`."""
        tokens = [self._embed(batch, views, m) for m in range(len(batch.modalities))]
        valid = None if batch.complete else batch.valid
        z = self.encoder(torch.stack(tokens, dim=2), valid)
        if fusion and self.fusion is not None:
            z = self.fusion(z, batch.valid)
        return z

    def _targets(self, batch: TileBatch, views: Views, m: int) -> tuple[Tensor, Tensor]:
        """Returns the true hidden patches [B, T, Kh, P], and which are valid, bool [B, T, Kh]."""
        name = batch.modalities[m]
        embed = self.patches_of(name)
        # not in autocast's dtype: normalising a patch magnifies its rounding
        dtype = embed.weight.dtype
        target, measured = embed.gather(
            batch.bands[name], views.boxes, views.hidden[:, :, m], self.config.image_size, dtype
        )
        return target, measured & batch.valid[:, :, m, None]

    def _embed(self, batch: TileBatch, views: Views, m: int) -> Tensor:
        name, index = batch.modalities[m], views.visible[:, :, m]
        embed = self.patches_of(name)
        patches, _ = embed.gather(batch.bands[name], views.boxes, index, self.config.image_size)
        offset = self.group_offset(name, batch.dates[:, :, m])
        return embed(patches, self.table, index, offset.expand(*index.shape[:2], -1))
