"""Features that need no training, which pretrained ones must beat.

Sizes: B items, T seasons, C bands of all modalities together, p side of a patch, V values an item
or patch, D width of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.features.extractors import Draw, Extractor
from seamo_fast.tasks.features.inputs import Inputs

PERCENTILES: Final = (5, 25, 50, 75, 95)
_PCA_ITEMS: Final = 2000
_PCA_PATCHES_AN_ITEM: Final = 10
_PCA_VALUES: Final = 2**27  # of all drawn items, in memory at once
_PCA_SIDE: Final = 64


class PixelFeatures(Extractor):
    """What all baselines share: normalised pixels, NaN where a value was not measured.

    Args:
        modalities: The dataset's, with statistics.
        task: See `Extractor`.
        patch: See `Extractor`.
    """

    def __init__(self, modalities: Sequence[Modality], task: Task, patch: int) -> None:
        super().__init__(task, patch)
        self.modalities = tuple(
            modality.on_one_grid(modality.grids[0].gsd) for modality in modalities
        )

    @property
    def key(self) -> dict[str, Any]:
        """See `Extractor`."""
        return {
            "baseline": type(self).__name__,
            "modalities": [modality.to_dict() for modality in self.modalities],
            "task": self.task,
            "patch": self.patch if self.dense else None,
        }

    def pixels(self, inputs: Inputs) -> Tensor:
        """Returns normalised values [B, T * C, H, W]."""
        found = []
        for m, modality in enumerate(self.modalities):
            stored = inputs.images[modality.name]
            known = torch.from_numpy(measured(modality, [stored.numpy()])[0].copy())
            known &= inputs.valid[:, :, m, None, None, None]
            shift, scale = (torch.tensor(each)[:, None, None] for each in modality.normalization())
            found.append(torch.where(known, (stored.float() - shift) * scale, torch.nan))
        return torch.cat(found, dim=2).flatten(1, 2)

    def patches(self, pixels: Tensor) -> Tensor:
        """Returns [B, h, w, T * C, p * p] of [B, T * C, h * p, w * p]."""
        p = self.patch
        cut = pixels.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # [B, TC, h, p, w, p]
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(4)


class BandStatisticsFeatures(PixelFeatures):
    """Mean, standard deviation and percentiles of the measured pixels of each band and season."""

    def _features(self, inputs: Inputs) -> Tensor:
        pixels = self.pixels(inputs)
        if self.dense:
            return summaries(self.patches(pixels)).flatten(3).permute(0, 3, 1, 2).contiguous()
        return summaries(pixels.flatten(2)).flatten(1)


def summaries(values: Tensor) -> Tensor:
    """Returns mean, standard deviation and `PERCENTILES` of [..., n] as [..., 7].

    NaN does not count; of values that are all NaN they are 0. Percentiles are interpolated
    linearly, as numpy's.
    """
    ordered = values.sort(dim=-1).values  # NaN comes last
    there = ~ordered.isnan()
    ordered = torch.where(there, ordered, 0)
    count = there.sum(dim=-1, keepdim=True)
    mean = ordered.sum(dim=-1, keepdim=True) / count.clamp(min=1)
    away = torch.where(there, ordered - mean, 0)
    std = (away.square().sum(dim=-1, keepdim=True) / count.clamp(min=1)).sqrt()
    share = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    at = share * (count - 1).clamp(min=0)
    low = at.floor().long()
    high = (low + 1).minimum((count - 1).clamp(min=0))
    below, above = ordered.gather(-1, low), ordered.gather(-1, high)
    return torch.cat([mean, std, below + (above - below) * (at - low).float()], dim=-1)


class PixelPca(PixelFeatures):
    """Projections of raw pixels onto their principal components, fitted on training items.

    Values that were not measured are 0, the mean of their band. Images are averaged or stretched
    to 64 pixels a side, patches are taken as they are.

    Args:
        modalities: See `PixelFeatures`.
        task: See `Extractor`.
        patch: See `Extractor`.
        components: Most components; no more than 2,000 drawn items, or 10 patches of each, give.
    """

    def __init__(
        self, modalities: Sequence[Modality], task: Task, patch: int, components: int
    ) -> None:
        super().__init__(modalities, task, patch)
        self.components = components
        self._mean = torch.empty(0)
        self._axes = torch.empty(0)

    @property
    def key(self) -> dict[str, Any]:
        """See `Extractor`."""
        return {**super().key, "components": self.components}

    def prepare(self, draw: Draw) -> None:
        """Finds the components; see `Extractor`."""
        (one,) = self._rows(draw, 1)
        items = max(2, min(_PCA_ITEMS, _PCA_VALUES // one.numel()))
        rows = torch.cat(list(self._rows(draw, items)))
        self._mean, self._axes = principal_axes(rows, self.components)

    def _rows(self, draw: Draw, items: int) -> Iterator[Tensor]:
        """Yields [n, V] of so many drawn items: an item a row, or some of its patches."""
        for inputs in draw(items):
            views = [self._values(each) for each in self.views(inputs.padded(self.patch))]
            values = torch.cat(views)
            if self.dense:
                step = max(1, values.shape[1] * values.shape[2] // _PCA_PATCHES_AN_ITEM)
                values = values.flatten(1, 2)[:, ::step].flatten(0, 1)
            yield values

    def _features(self, inputs: Inputs) -> Tensor:
        values = self._values(inputs)
        if values.shape[-1] != len(self._mean):
            raise DataError(
                f"items differ in their dates: {values.shape[-1]} values here, {len(self._mean)} "
                "before; leave the baseline pca out (--baselines '[random]')"
            )
        found = (values - self._mean) @ self._axes
        return found.permute(0, 3, 1, 2).contiguous() if self.dense else found

    def _values(self, inputs: Inputs) -> Tensor:
        """Returns [B, V], or [B, h, w, V] of masks."""
        pixels = self.pixels(inputs).nan_to_num(0)
        if self.dense:
            return self.patches(pixels).flatten(3)
        return F.adaptive_avg_pool2d(pixels, _PCA_SIDE).flatten(1)


def principal_axes(rows: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Returns the mean [V] of rows [n, V] and at most so many principal axes [V, D].

    Of fewer rows than values the products of rows are decomposed, else their covariance: the
    smaller matrix.
    """
    mean = rows.mean(dim=0)
    centred = rows - mean
    n, V = centred.shape
    components = max(1, min(components, n - 1, V))
    if n < V:
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        axes = centred.T @ vectors[:, -components:].flip(1)
    else:
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        axes = vectors[:, -components:].flip(1)
    return mean, axes / axes.norm(dim=0).clamp(min=1e-12)
