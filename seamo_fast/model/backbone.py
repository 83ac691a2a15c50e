"""SeaMoBackbone: the pretrained encoder as a drop-in feature extractor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Final, Literal, TypedDict, get_args

import torch
from torch import Tensor

from seamo_fast.modalities import Modality, get_modality
from seamo_fast.model.config import PRESETS, ModelConfig
from seamo_fast.model.embedding import sincos_positions
from seamo_fast.model.encoder import Encoder, seasons_as_sequences
from seamo_fast.model.fusion import Fusion
from seamo_fast.model.inputs import (
    UnknownBands,
    block_numbers,
    check_groups,
    check_images,
    mean_over_groups,
    select_bands,
)
from seamo_fast.model.layers import init_weights
from seamo_fast.model.seamo import Embedder
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.model.weights import Weights, read_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

Output = Literal["tokens", "map", "pooled"]
DEFAULT_MODALITIES: Final = ("s2l2a", "s1grd")


class SeaMoBackbone(Embedder):
    """SeaMo's encoder and TM fusion over all patches of any subset of its modalities.

    Takes stored values as they are on disk, all bands of a modality on one grid, and normalises
    them by the modality's statistics. Gradients flow to the parameters, not to the pixels. What a
    place gives depends on its valid groups alone, not on padding or on the rest of the batch: TM
    fusion runs as in pretraining, and a group with no other to attend to attends to nothing.

    The first two batches of each modality are compared with its unit and statistics. Where they
    look like another unit, `UnitWarning` says which; nothing else changes. What is compiled or
    exported is not compared: call the backbone once before.

    Attributes:
        modalities: What it takes; `adapt` replaces one by another sensor's description.
        output: What `forward` returns, see there.
        embed_dim: D, width of the tokens.
        num_features: D again, by the name that timm uses.
        patch_size: p; height and width of the images must be multiples of it.
        unit_check: What compares units; its `strict` may be set.

    Args:
        config: Sizes and switches; the decoder's are not used.
        modalities: Registered names or descriptions.
        output: `tokens`, `map` or `pooled`.
        strict: Raise `UnitError` instead of warning; the first batches wait for the GPU then.
    """

    def __init__(
        self,
        config: ModelConfig,
        modalities: Sequence[str | Modality] = DEFAULT_MODALITIES,
        output: Output = "tokens",
        strict: bool = False,
    ) -> None:
        if output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}, not {output!r}")
        described = (get_modality(m) if isinstance(m, str) else m for m in modalities)
        super().__init__(config, [_on_finest_grid(modality) for modality in described])
        self.output = output
        self.embed_dim = self.num_features = config.width
        self.patch_size = config.patch_size
        self.unit_check = UnitCheck(strict)
        self.encoder = Encoder(config)
        self.fusion = None if config.fusion == "none" else Fusion(config)
        for part in (self.encoder, self.fusion):
            if part is not None:
                init_weights(part)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | PathLike[str] | Weights,
        modalities: Iterable[str] | None = None,
        output: Output = "tokens",
        strict: bool = False,
    ) -> SeaMoBackbone:
        """Builds the backbone that pretrained or finetuned weights belong to, of whatever size.

        Args:
            checkpoint: A model.safetensors, a checkpoint folder, a run folder (its newest good
                checkpoint), or what `read_weights` returned.
            modalities: Those to keep, None for all.
            output: As in the constructor.
            strict: As in the constructor.

        Raises:
            ValueError: The weights know no such modality.
            CheckpointError: There are no weights, they are damaged, or parameters are missing,
                unknown or of another shape.
        """
        weights = checkpoint if isinstance(checkpoint, Weights) else read_weights(checkpoint)
        weights.check_fit()
        backbone = cls(weights.config, weights.choose(modalities), output, strict)
        weights.load_into(backbone)
        return backbone

    def adapt(
        self, name: str, modality: Modality, unknown: UnknownBands = "leave_out"
    ) -> SeaMoBackbone:
        """Makes a modality take another dataset's bands: others, reordered, in other units.

        The columns of the patch embedding are chosen by band name and wavelength; `band_starts` in
        `model/inputs.py` says which. The dataset's own statistics normalise it. Inputs keep the
        key `name`.

        Args:
            name: A modality of this backbone.
            modality: The dataset's bands, with statistics.
            unknown: Where bands start that the backbone does not know, or knows with another
                wavelength: from the `nearest` wavelength or from `zero`; with `leave_out` there
                may be none.

        Returns:
            This backbone.

        Raises:
            ValueError: There are unknown bands to leave out (`Modality.subset` does it), no band
                starts from a pretrained one, or the statistics are missing.
        """
        new = select_bands(self.patches_of(name), _on_finest_grid(modality), unknown)
        self.patch_embed[name] = new
        self.unit_check.forget(name)
        self.modalities = tuple(new.modality if m.name == name else m for m in self.modalities)
        return self

    def forward(
        self, x: Mapping[str, Tensor], dates: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Returns the features of a batch.

        Args:
            x: Stored values of each modality, [B, T, C, H, W] or [B, C, H, W] (T = 1). B, T, H
                and W must agree; H and W must be multiples of the patch size.
            dates: int32 or int64 [B, T] or [B, T, M], days since 1970-01-01, `MISSING_DATE` where
                unknown.
            valid: bool [B, T, M], groups that exist, in the order of `x`; None if all do.

        Returns:
            `tokens` [B, T, M, N, D] in the order of `x`, 0 where a group is not valid; `map`
            [B, D, H / p, W / p], the mean over valid groups; `pooled` [B, D], the mean over their
            patches. Without any valid group, `map` and `pooled` are 0.

        Raises:
            ValueError: The model has no such modality, a shape or dtype is wrong, or a date is
                before 1900 or after 2200.
            UnitError: Values look like another unit, and `strict` is set. A ValueError too.
        """
        tokens, grid = self._embed(x, dates, valid)
        z = self.encoder(tokens, valid)
        if self.fusion is not None:
            z = self.fusion(
                z, z.new_ones(z.shape[:3], dtype=torch.bool) if valid is None else valid
            )
        if self.output == "tokens":
            return z if valid is None else torch.where(valid[..., None, None], z, 0)
        features = mean_over_groups(z, valid)
        if self.output == "pooled":
            return features.mean(dim=1)
        return features.transpose(1, 2).unflatten(2, grid)

    def forward_intermediates(
        self,
        x: Mapping[str, Tensor],
        indices: Sequence[int] | None = None,
        dates: Tensor | None = None,
        valid: Tensor | None = None,
        norm: bool = False,
    ) -> list[Tensor]:
        """Returns feature maps after encoder blocks, before fusion.

        Args:
            x: As in `forward`.
            indices: Numbers of blocks, negative ones from the end; None for all.
            dates: As in `forward`.
            valid: As in `forward`.
            norm: Apply the encoder's final norm to each.

        Returns:
            A map [B, D, H / p, W / p] for each index, in the order of the blocks.

        Raises:
            ValueError: As in `forward`, or there is no such block.
        """
        wanted = block_numbers(indices, self.config.depth)
        tokens, grid = self._embed(x, dates, valid)
        sequence, keep = seasons_as_sequences(tokens, valid)
        maps = []
        for number, block in enumerate(self.encoder.blocks[: max(wanted, default=-1) + 1]):
            sequence = block(sequence, keep)
            if number in wanted:
                z = self.encoder.norm(sequence) if norm else sequence
                features = mean_over_groups(z.view_as(tokens), valid)
                maps.append(features.transpose(1, 2).unflatten(2, grid))
        return maps

    def _embed(
        self, x: Mapping[str, Tensor], dates: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Returns the tokens [B, T, M, N, D] of all patches, and the patch grid."""
        images = {name: image[:, None] if image.ndim == 4 else image for name, image in x.items()}
        known = {name: self.patches_of(name).modality for name in images}
        B, T, H, W = check_images(images, known, self.patch_size)
        check_groups(dates, valid, (B, T, len(images)))
        if not torch.compiler.is_compiling():
            for m, (name, image) in enumerate(images.items()):
                self.unit_check(known[name], image, None if valid is None else valid[:, :, m])
        grid = (H // self.patch_size, W // self.patch_size)
        table = self._positions(grid)
        corner = torch.zeros(B, T, 2, device=table.device)
        whole = torch.cat([corner, corner + 1], dim=-1)
        index = torch.arange(len(table), dtype=torch.int32, device=table.device).expand(B, T, -1)
        tokens = []
        for m, (name, image) in enumerate(images.items()):
            embed = self.patches_of(name)
            patches, _ = embed.gather([image], whole, index, (H, W))
            acquired = dates[:, :, m] if dates is not None and dates.ndim == 3 else dates
            offset = self.group_offset(name, acquired)
            tokens.append(embed(patches, table, index, offset.expand(B, T, -1)))
        return torch.stack(tokens, dim=2), grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        trained = (self.config.grid, self.config.grid)
        if grid == trained:
            return self.table
        return sincos_positions(self.embed_dim, *grid, trained).to(self.table)


def _on_finest_grid(modality: Modality) -> Modality:
    return modality.on_one_grid(modality.grids[0].gsd)


class Options(TypedDict, total=False):
    """What `seamo_vit_tiny` and the other sizes take by name."""

    image_size: int | None
    patch_size: int | None
    output: Output
    strict: bool


def seamo_vit_tiny(
    checkpoint: str | PathLike[str] | None = None,
    modalities: Sequence[str | Modality] | None = None,
    **options: Unpack[Options],
) -> SeaMoBackbone:
    """Builds a backbone of 12 blocks, 192 wide, with 3 heads.

    Args:
        checkpoint: Pretrained weights: a model.safetensors, a checkpoint folder, or a run folder
            (its newest good checkpoint). None initialises randomly.
        modalities: What it takes. Random weights: names or descriptions, by default Sentinel-2 L2A
            and Sentinel-1 GRD of SSL4EO-S12. A checkpoint: those to keep, by default all; a
            description adapts the pretrained one of that name.
        options: `image_size`: side in pixels onto whose patch grid positions are stretched, by
            default that of pretraining (128 without a checkpoint). `patch_size`: side of a patch in
            pixels, 8; with a checkpoint it must be that of pretraining. `output`: `tokens` (the
            default), `map` or `pooled`, see `SeaMoBackbone.forward`. `strict`: whether values that
            look like another unit are an error, see `SeaMoBackbone`.

    Raises:
        CheckpointError: The checkpoint is missing or damaged, or belongs to another size of model.
        ValueError: A modality is unknown.
    """
    return _build("tiny", checkpoint, modalities, **options)


def seamo_vit_small(
    checkpoint: str | PathLike[str] | None = None,
    modalities: Sequence[str | Modality] | None = None,
    **options: Unpack[Options],
) -> SeaMoBackbone:
    """Builds a backbone of 12 blocks, 384 wide, with 6 heads; arguments as `seamo_vit_tiny`."""
    return _build("small", checkpoint, modalities, **options)


def seamo_vit_base(
    checkpoint: str | PathLike[str] | None = None,
    modalities: Sequence[str | Modality] | None = None,
    **options: Unpack[Options],
) -> SeaMoBackbone:
    """Builds a backbone of 12 blocks, 768 wide, with 12 heads; arguments as `seamo_vit_tiny`."""
    return _build("base", checkpoint, modalities, **options)


def seamo_vit_large(
    checkpoint: str | PathLike[str] | None = None,
    modalities: Sequence[str | Modality] | None = None,
    **options: Unpack[Options],
) -> SeaMoBackbone:
    """Builds a backbone of 24 blocks, 1024 wide, with 16 heads; arguments as `seamo_vit_tiny`."""
    return _build("large", checkpoint, modalities, **options)


def _build(
    preset: str,
    checkpoint: str | PathLike[str] | None,
    modalities: Sequence[str | Modality] | None,
    image_size: int | None = None,
    patch_size: int | None = None,
    output: Output = "tokens",
    strict: bool = False,
) -> SeaMoBackbone:
    if checkpoint is None:
        config = PRESETS[preset]
        sides = (image_size or config.image_size, patch_size or config.patch_size)
        config = replace(config, image_size=sides[0], patch_size=sides[1])
        return SeaMoBackbone(config, modalities or DEFAULT_MODALITIES, output, strict)
    weights = read_weights(checkpoint)
    weights.check_size(preset, patch_size)
    if image_size:
        weights = replace(weights, config=replace(weights.config, image_size=image_size))
    names = [m if isinstance(m, str) else m.name for m in modalities] if modalities else None
    backbone = SeaMoBackbone.from_checkpoint(weights, names, output, strict)
    for modality in modalities or ():
        if isinstance(modality, Modality):
            backbone.adapt(modality.name, modality)
    return backbone
