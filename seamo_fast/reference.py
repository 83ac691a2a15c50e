"""SeaMo as a reader of the paper would write it: one file of plain eager PyTorch.

This is the oracle that the fast model must equal and the baseline that it must beat. It follows
the usual recipe of masked autoencoders: build every normalised image, embed all of its patches,
keep the visible ones, encode, fuse, put mask tokens back in image order, decode the whole image,
and compare the hidden patches. It shares no code with the fast model, only the configuration, the
inputs and the names of the parameters, so that each loads the other's `state_dict`. It mirrors
`model/`: what changes the mathematics or a parameter's name there changes here too.

Sizes: B batch, T seasons, M modalities, G = T*M groups, N patches an image, K visible patches,
C bands, S image size, p patch size, P = C*p*p, H heads, D width, d = D/H, L any sequence length.

Sources: SeaMo (arXiv 2412.19237), masked autoencoders (arXiv 2111.06377).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamo_fast.modalities import MISSING_DATE, Modality
from seamo_fast.model.config import ModelConfig, NormPix
from seamo_fast.tiles import TileBatch
from seamo_fast.views import Views

NORM_EPS = 1e-6


def sin_cos_positions(width: int, side: int) -> Tensor:
    """Fixed 2-D positions of the patches of a square image, [side * side, width].

    The first half of the width encodes the row, the second half the column; each half is the sines
    and then the cosines of the position at width/4 frequencies that fall from 1 towards 1/10000.
    """
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = line[:, None, :].expand(side, side, -1)
    columns = line[None, :, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).float()


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cuts images [B, C, S, S] into patches [B, N, C*p*p], row by row."""
    batch, bands, size, _ = image.shape
    side = size // patch_size
    image = image.view(batch, bands, side, patch_size, side, patch_size)
    return image.permute(0, 2, 4, 1, 3, 5).reshape(batch, side * side, -1)


def sampling_grid(boxes: Tensor, size: int) -> Tensor:
    """Where `grid_sample` must look for the regions [B, 4] of a tile: [B, S, S, 2], (x, y)."""
    start, extent = boxes[:, :2, None], boxes[:, 2:, None]
    centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    along = torch.where(extent < 0, centres.flip(0), centres)
    position = 2 * (start + extent.abs() * along) - 1
    y = position[:, 0, :, None].expand(-1, -1, size)
    x = position[:, 1, None, :].expand(-1, size, -1)
    return torch.stack([x, y], dim=-1)


class RegionReader(nn.Module):
    """Cuts the regions of one modality out of its tiles and normalises them."""

    shift: Tensor
    scale: Tensor

    def __init__(self, modality: Modality, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.nodata = math.nan if modality.nodata is None else modality.nodata
        self.whole_pixel = modality.nodata_rule == "pixel"
        self.limit = modality.limit
        self.order = list(modality.order)
        shift, scale = modality.normalization()
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)

    def forward(self, grids: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Reads grids of [B, T, Cg, Hg, Wg] in regions [B, T, 4].

        Returns the images and the mask of their nodata values, both [B*T, C, S, S].
        """
        where = sampling_grid(boxes.flatten(0, 1).to(self.shift.dtype), self.image_size)
        tiles = [grid.flatten(0, 1) for grid in grids]
        tiles = [tile if tile.is_floating_point() else tile.float() for tile in tiles]
        read = [
            self._sample(tile, lost, where)
            for tile, lost in zip(tiles, self._lost(tiles), strict=True)
        ]
        values = torch.cat([value for value, _ in read], dim=1)[:, self.order]
        nodata = torch.cat([mask for _, mask in read], dim=1)[:, self.order]
        image = (values - self.shift) * self.scale
        return image.masked_fill(nodata, 0.0), nodata

    def _lost(self, tiles: Sequence[Tensor]) -> list[Tensor]:
        """Returns the mask of what was not measured in each grid [B*T, Cg, Hg, Wg]."""
        never = [~(tile.double().abs() <= self.limit) for tile in tiles]  # NaN too
        lost = [mask | (tile == self.nodata) for tile, mask in zip(tiles, never, strict=True)]
        if not self.whole_pixel:
            return lost
        nowhere = [mask.all(dim=1, keepdim=True) for mask in lost]
        found = []
        for mask, absurd in zip(lost, never, strict=True):
            hole = torch.stack([_nearest(each, mask.shape[2:]) for each in nowhere]).all(dim=0)
            found.append(mask & (hole | absurd))
        return found

    def _sample(self, tile: Tensor, lost: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        # A weight below the rounding of the position is no weight: the pixel is not looked at.
        tolerance = 4 * torch.finfo(where.dtype).eps * max(tile.shape[-2:])
        both = torch.cat([tile.masked_fill(lost, 0.0), lost], dim=1).to(where.dtype)
        both = F.grid_sample(both, where, padding_mode="border", align_corners=False)
        sampled, share = both.chunk(2, dim=1)
        return sampled, share > tolerance


def _nearest(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes [B, C, H, W] to the pixels at the centres of an image of another size."""
    for dim, (own, other) in enumerate(zip(size, mask.shape[2:], strict=True), start=2):
        twice = 2 * torch.arange(own, device=mask.device) + 1  # in halves of a pixel
        mask = mask.index_select(dim, twice * other // (2 * own))
    return mask


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of a sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps x [B, L, D]; mask, bool [B, 1, 1, L], is True for the keys to attend to."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps x [B, L, D]; mask as in `SelfAttention`."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Joint self-attention over the visible tokens of all modalities of one season."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, z: Tensor, valid: Tensor | None) -> Tensor:
        """Encodes z [B, T, M, K, D]; valid [B, T, M] is None if every group is there."""
        batch, seasons, modalities, visible, width = z.shape
        x = z.view(batch * seasons, modalities * visible, width)
        mask = None
        if valid is not None:
            # In a season without any valid group every key stays, so that softmax is defined.
            keys = valid | ~valid.any(dim=2, keepdim=True)
            mask = keys.flatten(0, 1).repeat_interleave(visible, dim=1)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x).view_as(z)


def key_groups(mode: str, seasons: int, modalities: int, window: int | None) -> list[list[int]]:
    """The groups that each group g = t*M + m attends to."""
    groups = [(t, m) for t in range(seasons) for m in range(modalities)]

    def attends(query: tuple[int, int], key: tuple[int, int]) -> bool:
        apart = abs(query[0] - key[0])
        temporal = query[1] == key[1] and apart > 0 and (window is None or apart <= window)
        modal = query[1] != key[1] and apart == 0
        links = {"tm": temporal or modal, "temporal": temporal, "modal": modal, "concat": True}
        return links[mode]

    return [[i for i, key in enumerate(groups) if attends(query, key)] for query in groups]


class CrossAttention(nn.Module):
    """Attention of each group to the tokens of other groups."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, query: Tensor, memory: Tensor, sources: list[list[int]], valid: Tensor | None
    ) -> Tensor:
        """Attends from query to memory, both [B, G, K, D]; sources lists each group's keys.

        A group that is not valid [B, G], or none of whose sources is, attends to nothing: 0.
        """
        q = self._split(self.q(query))
        k, v = (self._split(x) for x in self.kv(memory).chunk(2, dim=-1))
        attended = []
        for g, chosen in enumerate(sources):
            if not chosen:
                attended.append(torch.zeros_like(q[g]))
                continue
            keys = torch.cat([k[i] for i in chosen], dim=2)
            values = torch.cat([v[i] for i in chosen], dim=2)
            if valid is None:
                attended.append(F.scaled_dot_product_attention(q[g], keys, values))
                continue
            present = torch.stack([valid[:, i] for i in chosen], dim=1)
            nothing = ~(valid[:, g] & present.any(dim=1))
            mask = (present | nothing[:, None]).repeat_interleave(k[g].shape[2], dim=1)
            x = F.scaled_dot_product_attention(q[g], keys, values, attn_mask=mask[:, None, None])
            attended.append(x.masked_fill(nothing[:, None, None, None], 0.0))
        return self.proj(torch.stack(attended, dim=1).transpose(2, 3).flatten(3))

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, G, K, D] -> G tensors of [B, H, K, d]."""
        return x.unflatten(3, (self.heads, -1)).transpose(2, 3).unbind(1)


class FusionBlock(nn.Module):
    """Cross-attention between groups, then an MLP; `cascade` goes season by season."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.mode = config.fusion
        self.window = config.fusion_window
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = CrossAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, config.mlp_ratio)
        if self.mode == "cascade":
            self.carry = nn.Linear(2 * width, width)

    def forward(self, z: Tensor, valid: Tensor | None) -> Tensor:
        """Fuses z [B, T, M, K, D]; valid [B, T, M] is None if every group is there."""
        if self.mode == "cascade":
            return self._cascade(z, valid)
        sources = key_groups(self.mode, z.shape[1], z.shape[2], self.window)
        x = z.flatten(1, 2)
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, sources, None if valid is None else valid.flatten(1))
        x = x + self.mlp(self.norm2(x))
        return x.view_as(z)

    def _cascade(self, z: Tensor, valid: Tensor | None) -> Tensor:
        others = key_groups("modal", 1, z.shape[2], None)
        previous = torch.zeros_like(z[:, 0])
        started: Tensor | None = None
        fused = []
        for t in range(z.shape[1]):
            now = z[:, t]
            here = None if valid is None else valid[:, t]
            query = now if t == 0 else self.carry(torch.cat([now, previous], dim=-1))
            if started is not None:
                query = torch.where(started[:, :, None, None], query, now)
            u = query + self.attn(self.norm1(query), self.norm1(now), others, here)
            u = u + self.mlp(self.norm2(u))
            fused.append(u)
            if here is None:
                previous = u
            else:
                previous = torch.where(here[:, :, None, None], u, previous)
                started = here if started is None else started | here
        return torch.stack(fused, dim=1)


class Fusion(nn.Module):
    """The blocks between encoder and decoders."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FusionBlock(config) for _ in range(config.fusion_depth))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, z: Tensor, valid: Tensor | None) -> Tensor:
        """Fuses z [B, T, M, K, D]; valid as in `FusionBlock`."""
        for block in self.blocks:
            z = block(z, valid)
        return self.norm(z)


class Decoder(nn.Module):
    """Predicts all patches of the images of one modality from their visible tokens."""

    def __init__(self, config: ModelConfig, bands: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_heads, config.mlp_ratio)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, bands * config.patch_size**2)

    def forward(self, z: Tensor, ids_restore: Tensor, positions: Tensor) -> Tensor:
        """Decodes z [B, K, D] to patches [B, N, P] in image order."""
        x = self.embed(z)
        hidden = ids_restore.shape[1] - x.shape[1]
        x = torch.cat([x, self.mask_token.expand(x.shape[0], hidden, -1)], dim=1)
        x = torch.gather(x, 1, ids_restore[..., None].expand(-1, -1, x.shape[2])) + positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class DateEmbedding(nn.Module):
    """Embeds the day of the year; a missing date adds nothing."""

    year_starts: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 4))
        epoch = date(1970, 1, 1).toordinal()
        starts = torch.tensor([date(year, 1, 1).toordinal() - epoch for year in range(1900, 2200)])
        self.register_buffer("year_starts", starts, persistent=False)

    def forward(self, dates: Tensor) -> Tensor:
        """Embeds dates [...] in days since 1970-01-01 to [..., D]."""
        angle = 2 * math.pi * self.days_into_year(dates).to(self.weight.dtype) / 365.25
        waves = [angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()]
        embedded = F.linear(torch.stack(waves, dim=-1), self.weight)
        return embedded.masked_fill((dates == MISSING_DATE)[..., None], 0.0)

    def days_into_year(self, dates: Tensor) -> Tensor:
        """Whole days since 1 January of the date's year: day of the year less 1."""
        dates = dates.long()
        year = (torch.searchsorted(self.year_starts, dates, right=True) - 1).clamp(min=0)
        return dates - self.year_starts[year]


def masked_loss(
    pred: Tensor, target: Tensor, weight: Tensor, normalize: NormPix, bands: int
) -> Tensor:
    """Weighted mean of the squared errors of patches: pred, target [B, N, P], weight [B, N]."""
    if normalize:
        parts = target.unflatten(-1, (bands if normalize == "bands" else 1, -1))
        mean = parts.mean(dim=-1, keepdim=True)
        variance = parts.var(dim=-1, keepdim=True, unbiased=True)
        target = ((parts - mean) / (variance + 1e-6).sqrt()).flatten(-2)
    error = (pred - target).square().mean(dim=-1)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)


class ReferenceSeaMo(nn.Module):
    """SeaMo pretraining model in plain PyTorch.

    Args:
        config: The same configuration as the fast model's.
        modalities: The modalities the model knows; a batch may hold any of them.
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[Modality]) -> None:
        super().__init__()
        self.config = config
        width, size = config.width, config.patch_size
        self.bands = bands = {m.name: len(m.bands) for m in modalities}
        self.readers = nn.ModuleDict(
            {m.name: RegionReader(m, config.image_size) for m in modalities}
        )
        self.patch_embed = nn.ModuleDict(
            {name: nn.Conv2d(count, width, size, stride=size) for name, count in bands.items()}
        )
        self.modality_embed = nn.ParameterDict({name: torch.zeros(width) for name in bands})
        self.date_embed = DateEmbedding(width) if config.date_embedding else None
        self.encoder = Encoder(config)
        self.fusion = Fusion(config) if config.fusion != "none" else None
        self.decoders = nn.ModuleDict({name: Decoder(config, c) for name, c in bands.items()})
        table = sin_cos_positions(width, config.grid)
        self.register_buffer("positions", table, persistent=False)
        table = sin_cos_positions(config.decoder_width, config.grid)
        self.register_buffer("decoder_positions", table, persistent=False)
        self.apply(_initialise)

    def forward(
        self, batch: TileBatch, views: Views, fusion: bool = True, counted: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]] | tuple[Tensor, dict[str, Tensor], Tensor]:
        """Returns the loss, a scalar, its summands by modality, and if `counted` their patches [M].

        Raises:
            ValueError: The views leave patches out, while all patches are decoded here.
        """
        ids_shuffle = torch.cat([views.visible, views.hidden], dim=-1).long()
        if ids_shuffle.shape[-1] != self.config.num_patches:
            raise ValueError(
                f"views must hold all {self.config.num_patches} patches, visible or hidden, but "
                f"hold {ids_shuffle.shape[-1]}; draw them with decode_fraction 1"
            )
        ids_restore = ids_shuffle.argsort(dim=-1)
        tokens, targets, weights = [], [], []
        for m, name in enumerate(batch.modalities):
            image, nodata = self.readers[name](batch.bands[name], views.boxes)
            tokens.append(self._embed(name, image, batch.dates[:, :, m]))
            targets.append(patchify(image, self.config.patch_size))
            measured = ~patchify(nodata, self.config.patch_size).any(dim=-1)
            weights.append(measured & batch.valid[:, :, m].reshape(-1, 1))

        x = torch.stack(tokens, dim=2)
        ids_keep = ids_shuffle[..., : views.visible.shape[-1], None]
        z = torch.gather(x, 3, ids_keep.expand(-1, -1, -1, -1, x.shape[-1]))
        valid = None if batch.complete else batch.valid
        z = self.encoder(z, valid)
        if fusion and self.fusion is not None:
            z = self.fusion(z, valid)

        losses, counts = {}, []
        for m, name in enumerate(batch.modalities):
            restore = ids_restore[:, :, m].flatten(0, 1)
            pred = self.decoders[name](z[:, :, m].flatten(0, 1), restore, self.decoder_positions)
            hidden = restore >= z.shape[3]
            weight = (weights[m] & hidden).to(targets[m].dtype)
            counts.append(weight.sum().long())
            normalize = self.config.norm_pix
            losses[name] = masked_loss(pred, targets[m], weight, normalize, self.bands[name])
        total = torch.stack(list(losses.values())).sum()
        return (total, losses, torch.stack(counts)) if counted else (total, losses)

    def _embed(self, name: str, image: Tensor, dates: Tensor) -> Tensor:
        """Embeds all patches of images [B*T, C, S, S] of dates [B, T]: [B, T, N, D]."""
        x = self.patch_embed[name](image).flatten(2).transpose(1, 2) + self.positions
        x = x.unflatten(0, dates.shape) + self.modality_embed[name]
        return x if self.date_embed is None else x + self.date_embed(dates)[:, :, None, :]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.ParameterDict):
        for parameter in module.values():
            nn.init.normal_(parameter, std=0.02)
    elif isinstance(module, Decoder):
        nn.init.normal_(module.mask_token, std=0.02)
    elif isinstance(module, DateEmbedding):
        nn.init.normal_(module.weight, std=0.02)
