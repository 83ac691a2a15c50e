"""Augmentation of training windows: orientation, mixup and cutmix.

Everything random is drawn from a generator that belongs to the seed, epoch, item and window, so it
depends neither on threads and ranks nor on what was done before.

Sizes: B items, T seasons, M modalities, C bands, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import ConfigError, expect
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.reading.base import DENSE, Task

Orientations = Literal["none", "flips", "turns"]


def orientation(rng: np.random.Generator, kind: Orientations, square: bool) -> int:
    """Returns one of the orientations that `oriented` knows, each as likely.

    Args:
        rng: Of the window; one number is drawn.
        kind: "flips" for flips in both axes, "turns" for quarter turns too, "none" for as it is.
        square: Whether the window is; others are not turned by a quarter.
    """
    drawn = int(rng.integers(8))
    return drawn & {"none": 0, "flips": 3, "turns": 7 if square else 3}[kind]


def oriented(image: Tensor, code: int) -> Tensor:
    """Returns an image or mask [..., H, W] transposed (4), then flipped in rows (2), columns (1).

    The eight codes are the symmetries of a square: flips, turns and their products.
    """
    image = image.mT if code & 4 else image
    axes = [axis for axis, bit in ((-2, 2), (-1, 1)) if code & bit]
    return image.flip(axes) if axes else image


class Mixing:
    """Mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019) of windows in pairs.

    The share that a window keeps of itself is drawn from Beta(a, a). Where both are asked for, each
    window has one of them, as likely. A group that either window lacks is lacking in the mix, and
    so is a pixel of mixup that either lacks (NaN); a pair without a common group is not mixed.

    Attributes:
        active: Whether anything is mixed.

    Args:
        task: What is predicted.
        modalities: The dataset's, with statistics.
        mixup: a of mixup, 0 for none.
        cutmix: a of cutmix, 0 for none.

    Raises:
        ConfigError: Pixels have labels, or a is negative.
    """

    def __init__(
        self, task: Task, modalities: Sequence[Modality], mixup: float = 0, cutmix: float = 0
    ) -> None:
        for key, a in (("mixup", mixup), ("cutmix", cutmix)):
            expect(0 <= a < np.inf, key, "at least 0 and finite", a)
            if a and task in DENSE:
                raise ConfigError(
                    f"{key} mixes labels of whole images, but pixels have labels here; leave "
                    f"--{key} out"
                )
        self.active = bool(mixup or cutmix)
        self._strength = {"mixup": mixup, "cutmix": cutmix}
        self._kinds = [kind for kind, a in self._strength.items() if a]
        self._modalities = {each.name: each.on_one_grid(each.bands[0].gsd) for each in modalities}

    def __call__(
        self,
        images: Mapping[str, Tensor],
        valid: Tensor,
        target: Tensor,
        partners: Sequence[int],
        generators: Sequence[np.random.Generator],
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Returns mixed images (float32), valid and target.

        Args:
            images: [B, T, C, H, W] of each modality, float32.
            valid: bool [B, T, M].
            target: float32 [B, K].
            partners: For each row the one it is mixed with; itself where it has none.
            generators: For each row.
        """
        found = {name: image.clone() for name, image in images.items()}
        valid_found, target_found = valid.clone(), target.clone()
        for row, (other, rng) in enumerate(zip(partners, generators, strict=True)):
            common = valid[row] & valid[other]
            if other == row or not common.any():
                continue
            kind = self._kinds[int(rng.integers(len(self._kinds)))]
            share = float(rng.beta(self._strength[kind], self._strength[kind]))
            height, width = next(iter(images.values())).shape[-2:]
            box = _box(rng, height, width, 1 - share)
            if kind == "cutmix":
                share = 1 - (box[0].stop - box[0].start) * (box[1].stop - box[1].start) / (
                    height * width
                )
            for name, image in images.items():
                if kind == "cutmix":
                    found[name][row][..., box[0], box[1]] = image[other][..., box[0], box[1]]
                else:
                    found[name][row] = self._blend(name, image[row], image[other], share)
            valid_found[row] = common
            target_found[row] = share * target[row] + (1 - share) * target[other]
        return found, valid_found, target_found

    def _blend(self, name: str, own: Tensor, other: Tensor, share: float) -> Tensor:
        """Returns share * own + (1 - share) * other of [T, C, H, W], NaN where either lacks."""
        pair = torch.stack([own, other])
        known = torch.from_numpy(measured(self._modalities[name], [pair.numpy()])[0].all(axis=0))
        return torch.where(known, share * own + (1 - share) * other, torch.nan)


def _box(rng: np.random.Generator, height: int, width: int, area: float) -> tuple[slice, slice]:
    """Returns rows and columns of a box around a uniform centre, cut at the edges of the image."""
    sides = []
    for length in (height, width):
        half = length * area**0.5 / 2
        centre = rng.uniform(0, length)
        low, high = max(0, round(centre - half)), min(length, round(centre + half))
        sides.append(slice(low, high))
    return sides[0], sides[1]
