"""Small random models' inputs: modalities, batches of tiles, and views of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from seamo_fast.modalities import MISSING_DATE, Modality, get_modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.randomness import generator
from seamo_fast.tiles import TileBatch
from seamo_fast.views import ViewConfig, Views, sample

S2 = get_modality("s2l2a")
S1 = get_modality("s1grd")
RGB = get_modality("rgb").with_statistics((110.0, 105.0, 95.0), (45.0, 40.0, 38.0), "test")
MODALITIES = (S2, S1, RGB)
STORED = {
    "dn": torch.uint16,
    "db": torch.float32,
    "reflectance": torch.float32,
    "uint8": torch.uint8,
}
HOLE = 0.25

Group = tuple[int, int, int]


def make_batch(
    modalities: Sequence[Modality] = (S2, S1),
    *,
    batch: int = 2,
    seasons: int = 2,
    size: int = 48,
    dtype: torch.dtype | None = None,
    missing: Collection[Group] = (),
    undated: Collection[Group] = (),
    holes: Collection[Group] = (),
    seed: int = 0,
) -> TileBatch:
    """Makes tiles of noise with each band's mean and standard deviation.

    Args:
        modalities: What the tiles show, in the order of the M axis.
        batch: B.
        seasons: T.
        size: Pixels along a side of the finest grid of all; coarser grids have fewer.
        dtype: Of the stored values; None: what is usual for the modality's unit.
        missing: Groups (b, t, m) that do not exist: zeros without a date.
        undated: Groups whose date is unknown.
        holes: Groups with a square of nodata in the first band of every grid, in all bands if the
            modality's rule is "pixel"; and a NaN if in dB.
        seed: Of the noise and the dates.
    """
    rng = generator(seed, "test batch")
    finest = min(grid.gsd for modality in modalities for grid in modality.grids)
    bands: dict[str, list[Tensor]] = {}
    for m, modality in enumerate(modalities):
        bands[modality.name] = []
        corners = {group: rng.random(2) * (1 - HOLE) for group in holes if group[2] == m}
        for grid in modality.grids:
            side = round(size * finest / grid.gsd)
            values = _noise(rng, modality, grid.bands, (batch, seasons, side))
            for group, corner in corners.items():
                _cut_hole(values[group[:2]], corner, modality)
            for b, t, _ in (group for group in missing if group[2] == m):
                values[b, t] = 0
            bands[modality.name].append(_store(values, dtype or STORED[modality.unit]))
    valid = torch.ones(batch, seasons, len(modalities), dtype=torch.bool)
    days = rng.integers(17_000, 19_000, size=tuple(valid.shape)).astype(np.int32)
    dates = torch.from_numpy(days)
    for group in missing:
        valid[group] = False
    for group in (*missing, *undated):
        dates[group] = MISSING_DATE
    return TileBatch(
        modalities=tuple(modality.name for modality in modalities),
        bands=bands,
        valid=valid,
        dates=dates,
        ids=torch.arange(batch) + 10 * seed,
        epochs=torch.zeros(batch, dtype=torch.int64),
        complete=not missing,
    )


def make_views(
    batch: TileBatch, config: ModelConfig, views: ViewConfig | None = None, *, seed: int = 0
) -> Views:
    """Draws views of a batch for a model."""
    return sample(
        batch.ids,
        batch.epochs,
        seed=seed,
        stage=0,
        seasons=batch.seasons,
        modalities=len(batch.modalities),
        num_patches=config.num_patches,
        config=views or ViewConfig(),
    )


def whole_tiles(batch: TileBatch, views: Views) -> Views:
    """Returns the views with every region replaced by the whole tile."""
    box = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return Views(box.expand(batch.batch_size, batch.seasons, 4), views.visible, views.hidden)


def _noise(
    rng: np.random.Generator, modality: Modality, channels: tuple[int, ...], sizes: Sequence[int]
) -> np.ndarray:
    if modality.mean is None or modality.std is None:
        raise ValueError(f"modality {modality.name!r} has no statistics to make tiles from")
    batch, seasons, side = sizes
    mean = np.array([modality.mean[c] for c in channels])[:, None, None]
    std = np.array([modality.std[c] for c in channels])[:, None, None]
    values = mean + std * rng.standard_normal((batch, seasons, len(channels), side, side))
    return (
        values
        if modality.unit == "db"
        else values.clip(1, 255 if modality.unit == "uint8" else 20_000)
    )


def _cut_hole(tile: np.ndarray, corner: np.ndarray, modality: Modality) -> None:
    """Cuts a hole into a grid [Cg, H, W]; the corner is in shares of the side."""
    side = max(1, round(HOLE * tile.shape[-1]))
    top, left = np.round(corner * tile.shape[-1]).astype(int)
    cut = tile if modality.nodata_rule == "pixel" else tile[:1]
    if modality.nodata is not None:
        cut[:, top : top + side, left : left + side] = modality.nodata
    if modality.unit == "db":
        tile[0, -1, -1] = np.nan


def _store(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(values)
    if not dtype.is_floating_point:
        tensor = tensor.round().to(torch.int64)
    return tensor.to(dtype)
