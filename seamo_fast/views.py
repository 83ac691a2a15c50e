"""What of each tile is seen: the region of every season, and the visible and hidden patches.

`sample` is a pure function of the seed, the stage, and each sample's number and epoch; batching,
workers and resuming cannot change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from seamo_fast.errors import ConfigError, expect
from seamo_fast.randomness import generator

RegionMode = Literal["partial", "same", "disjoint"]
MaskMode = Literal["independent", "shared"]


@dataclass(frozen=True)
class ViewConfig:
    """How regions and masks are drawn.

    Attributes:
        mode: `partial` draws a region of its own for every season, `same` one for all seasons,
            `disjoint` regions without any overlap (each in its own cell of a square grid, and
            `crop_rate` counts within the cell).
        crop_rate: Least and greatest share of the tile's area that a region covers.
        min_overlap: Least overlap of any two seasons' regions in mode `partial`: area of the
            intersection over the area of the smaller region.
        flip: Flip each season's region along either axis with probability 1/2.
        mask_ratio: Share of the patches that is hidden.
        mask: `independent` hides other patches in every group, `shared` the same in all.
        decode_fraction: Share of the hidden patches, drawn at random, that is decoded and counted
            in the loss. Below 1 a step is cheaper; SeaMo and MAE decode all of them.
    """

    mode: RegionMode = "partial"
    crop_rate: tuple[float, float] = (0.5, 1.0)
    min_overlap: float = 0.3
    flip: bool = True
    mask_ratio: float = 0.75
    mask: MaskMode = "independent"
    decode_fraction: float = 1.0

    def __post_init__(self) -> None:
        for field, value, known in (
            ("mode", self.mode, get_args(RegionMode)),
            ("mask", self.mask, get_args(MaskMode)),
        ):
            expect(value in known, f"views.{field}", f"one of {', '.join(known)}", value)
        rate, share = self.crop_rate, self.decode_fraction
        pair = "(low, high) with 0 < low <= high <= 1"
        expect(0 < rate[0] <= rate[1] <= 1, "views.crop_rate", pair, rate)
        expect(0 <= self.min_overlap <= 1, "views.min_overlap", "in [0, 1]", self.min_overlap)
        expect(0 < self.mask_ratio < 1, "views.mask_ratio", "in (0, 1)", self.mask_ratio)
        expect(0 < share <= 1, "views.decode_fraction", "in (0, 1]", share)

    def num_visible(self, num_patches: int) -> int:
        """Returns K, the visible patches of an image of N.

        Raises:
            ConfigError: The ratio leaves no visible or no hidden patch.
        """
        visible = round(num_patches * (1 - self.mask_ratio))
        if not 0 < visible < num_patches:
            raise ConfigError(
                f"views.mask_ratio {self.mask_ratio} leaves {visible} of {num_patches} patches "
                "visible; at least one must be visible and one hidden"
            )
        return visible

    def num_decoded(self, num_patches: int) -> int:
        """Returns how many of an image's hidden patches are decoded, at least one."""
        hidden = num_patches - self.num_visible(num_patches)
        return max(1, round(hidden * self.decode_fraction))


@dataclass
class Views:
    """The views of a batch.

    Attributes:
        boxes: float32 [B, T, 4], each season's region as (top, left, height, width), fractions of
            the tile. It covers top to top + |height|; a negative extent flips that axis.
        visible: int32 [B, T, M, K], the numbers of the visible patches, ascending, row by row on
            the grid of the region.
        hidden: int32 [B, T, M, N - K], the numbers of the others, ascending (a random share of
            them if `decode_fraction` is below 1).
    """

    boxes: Tensor
    visible: Tensor
    hidden: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Views:
        """Returns the views with every tensor on `device`."""
        return Views(
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            visible=self.visible.to(device, non_blocking=non_blocking),
            hidden=self.hidden.to(device, non_blocking=non_blocking),
        )

    def split(self, parts: int) -> list[Views]:
        """Returns contiguous parts of B / parts samples each; `parts` must divide B."""
        pieces = (self.boxes.chunk(parts), self.visible.chunk(parts), self.hidden.chunk(parts))
        return [Views(*piece) for piece in zip(*pieces, strict=True)]


def sample(
    ids: Tensor | Sequence[int],
    epochs: Tensor | Sequence[int],
    *,
    seed: int,
    stage: int,
    seasons: int,
    modalities: int,
    num_patches: int,
    config: ViewConfig,
) -> Views:
    """Draws the views of a batch.

    Args:
        ids: [B], sample numbers.
        epochs: [B], how often each sample has been drawn before.
        seed: The run's seed.
        stage: Number of the training stage; stages see different views.
        seasons: T.
        modalities: M.
        num_patches: N, patches of an image.
        config: How to draw.

    Returns:
        Views on the CPU.
    """
    visible = config.num_visible(num_patches)
    decoded = config.num_decoded(num_patches)
    numbers, drawn = np.asarray(ids).tolist(), np.asarray(epochs).tolist()
    boxes = np.empty((len(numbers), seasons, 4), np.float32)
    masks = np.empty((len(numbers), seasons, modalities, num_patches), np.int32)
    for row, (number, epoch) in enumerate(zip(numbers, drawn, strict=True)):
        rng = generator(seed, "views", stage, epoch, number)
        boxes[row] = _regions(rng, seasons, config)
        masks[row] = _patch_order(rng, masks.shape[1:], config)
    order = torch.from_numpy(masks)
    return Views(
        boxes=torch.from_numpy(boxes),
        visible=order[..., :visible].sort(-1).values,
        hidden=order[..., visible : visible + decoded].sort(-1).values,
    )


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the intersection of boxes [..., 4] over the area of the smaller, float64 [...]."""
    shared = np.ones(np.broadcast_shapes(first.shape[:-1], second.shape[:-1]))
    for axis in (0, 1):
        low = np.maximum(first[..., axis], second[..., axis])
        high = np.minimum(
            first[..., axis] + np.abs(first[..., axis + 2]),
            second[..., axis] + np.abs(second[..., axis + 2]),
        )
        shared = shared * np.clip(high - low, 0, None)
    smaller = np.minimum(
        np.abs(first[..., 2] * first[..., 3]), np.abs(second[..., 2] * second[..., 3])
    )
    return shared / smaller


def _regions(rng: np.random.Generator, seasons: int, config: ViewConfig) -> np.ndarray:
    count = 1 if config.mode == "same" else seasons
    side = np.sqrt(rng.uniform(*config.crop_rate, size=count))
    corner = rng.random((count, 2)) * (1 - side[:, None])
    if config.mode == "partial":
        corner = _draw_together(corner, side, config.min_overlap)
    if config.mode == "disjoint":
        cells = math.ceil(math.sqrt(seasons))
        cell = rng.permutation(cells**2)[:count]
        corner = (np.stack([cell // cells, cell % cells], axis=1) + corner) / cells
        side = side / cells
    sign = rng.choice([-1.0, 1.0], size=(count, 2)) if config.flip else np.ones((count, 2))
    return np.concatenate([corner, sign * side[:, None]], axis=1)


def _draw_together(corner: np.ndarray, side: np.ndarray, least: float) -> np.ndarray:
    """Moves regions [T, 2] towards the tile's centre as far as any two need to overlap by `least`.

    Overlap never falls when centres approach, and concentric squares overlap fully, so bisection
    finds the greatest share of the drawn displacement that keeps the promise.
    """
    centred = (1 - side[:, None]) / 2
    first, second = np.triu_indices(len(side), 1)

    def enough(share: float) -> bool:
        boxes = np.column_stack([centred + share * (corner - centred), side, side])
        return bool((overlap(boxes[first], boxes[second]) >= least + 1e-6).all())

    if least == 0 or enough(1.0):
        return corner
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return centred + low * (corner - centred)


def _patch_order(
    rng: np.random.Generator, shape: tuple[int, ...], config: ViewConfig
) -> np.ndarray:
    drawn = (1, 1, shape[-1]) if config.mask == "shared" else shape
    return rng.random(drawn).argsort(-1)
