"""A contact sheet of what a model will be fed: seasons across, modalities down."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seamo_fast import pictures
from seamo_fast.data.packing.sources import Reading, Source
from seamo_fast.data.shards import ShardSet
from seamo_fast.data.shards.band_statistics import BandStatistics
from seamo_fast.data.shards.measured import measured
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import MISSING_DATE, Modality

_INCH: Final = 2.6  # of a tile on the sheet
_DPI: Final = 100
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Shown:
    """One sample of a sheet: stored values of each modality, dates and validity by season."""

    id: str
    bands: dict[str, list[np.ndarray]]
    dates: dict[str, list[date | None]]
    valid: dict[str, list[bool]]


def stored_samples(shards: ShardSet, numbers: Sequence[int]) -> Iterator[Shown]:
    """Yields samples of a shard set.

    Raises:
        DataError: A record is damaged.
        ConfigError: There is no such sample.
    """
    names = [modality.name for modality in shards.modalities]
    for number in numbers:
        if not 0 <= number < len(shards):
            raise ConfigError(f"{shards.path} has the samples 0 to {len(shards) - 1}, not {number}")
        sample = shards.read(number)
        days = [
            [None if day == MISSING_DATE else _EPOCH + timedelta(int(day)) for day in column]
            for column in sample.dates.T
        ]
        yield Shown(
            shards.describe(number).split("(")[-1].rstrip(")"),
            sample.bands,
            dict(zip(names, days, strict=True)),
            dict(zip(names, sample.valid.T.tolist(), strict=True)),
        )


def source_samples(source: Source, most: int) -> Iterator[Shown]:
    """Yields the first samples of a dataset; items that cannot be read are left out, with a line.

    Args:
        source: What to read.
        most: How many samples.
    """
    readings = (each for item in source.items() for each in _readable(source, item))
    for each in islice((each for each in readings if not each.empty), most):
        yield Shown(each.id, each.arrays, each.dates, each.valid)


def _readable(source: Source, item: str) -> Iterator[Reading]:
    """Yields the samples of an item up to one that cannot be read, which is reported."""
    try:
        yield from source.read(item)
    except DataError as error:
        sys.stderr.write(f"{item} is left out: {error}\n")


def composite(modality: Modality, grids: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the bands of `modality.composite` as float32 [H, W, 1 or 3]; nodata is NaN.

    Coarser bands are repeated onto the finest of these grids.

    Args:
        modality: Says which bands each grid holds.
        grids: Of one season, each [Cg, Hg, Wg].
    """
    images = []
    known = measured(modality, grids)
    for name in pictures.shown_bands(modality):
        channel = modality.band_names.index(name)
        for grid, values, there in zip(modality.grids, grids, known, strict=True):
            if channel in grid.bands:
                position = grid.bands.index(channel)
                image = values[position].astype(np.float32)
                image[~there[position]] = np.nan
                images.append(image)
    height, width = np.max([image.shape for image in images], axis=0)
    return pictures.composite([_repeat(image, height, width) for image in images])


def _repeat(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return image[rows[:, None], columns]


def facts(modality: Modality, grids: Sequence[np.ndarray]) -> str:
    """Returns nodata, and the lowest, mean and highest mean of a band, of one season."""
    statistics = BandStatistics(len(modality.bands))
    statistics.add(modality, [grid[None] for grid in grids], np.array([True]))
    pixels = sum(grid.size for grid in grids)
    nodata = 1 - statistics.count.sum() / pixels
    means = statistics.mean[statistics.count > 0]
    if not len(means):
        return "nodata 100 %"
    deviation = np.sqrt(statistics.squares.sum() / statistics.count.sum())
    return (
        f"nodata {100 * nodata:.1f} %, mean {means.min():.4g} … {means.max():.4g}, "
        f"std {deviation:.4g}"
    )


def draw(modalities: Sequence[Modality], samples: Sequence[Shown], title: str) -> Figure:
    """Returns the sheet: for each sample a row a modality, a column a season."""
    seasons = max(len(valid) for sample in samples for valid in sample.valid.values())
    rows = len(samples) * len(modalities)
    figure = Figure(figsize=(_INCH * (seasons + 0.7), (_INCH + 0.55) * rows + 0.5), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows,
        seasons,
        squeeze=False,
        gridspec_kw={"left": 0.7 / (seasons + 0.7), "right": 0.99, "hspace": 0.32, "wspace": 0.06},
    )
    for number, sample in enumerate(samples):
        for m, modality in enumerate(modalities):
            _draw_row(axes[number * len(modalities) + m], modality, sample)
    figure.suptitle(title, fontsize=9)
    return figure


def _draw_row(axes: np.ndarray, modality: Modality, sample: Shown) -> None:
    valid = sample.valid[modality.name]
    images = {
        t: composite(modality, [grid[t] for grid in sample.bands[modality.name]])
        for t, exists in enumerate(valid)
        if exists
    }
    shown = ", ".join(pictures.shown_bands(modality))
    axes[0].set_ylabel(
        f"{sample.id}\n{modality.name} [{modality.unit}] offset {modality.offset:g}\n"
        f"{_wrapped(modality.band_names)}\nshown: {shown}",
        fontsize=6,
    )
    stretch = pictures.limits(modality, list(images.values())) if images else ()
    for t, axis in enumerate(axes):
        axis.set_xticks([])
        axis.set_yticks([])
        if t not in images:
            axis.set_facecolor("0.9")
            axis.text(0.5, 0.5, "missing", ha="center", transform=axis.transAxes, fontsize=8)
            continue
        axis.imshow(pictures.stretched(images[t], *stretch), interpolation="nearest")
        day = sample.dates[modality.name][t]
        axis.set_title(day.isoformat() if day else "date unknown", fontsize=7, pad=2)
        text = facts(modality, [grid[t] for grid in sample.bands[modality.name]])
        axis.set_xlabel(text, fontsize=5, labelpad=2)


def _wrapped(names: Sequence[str]) -> str:
    lines = [names[start : start + 7] for start in range(0, len(names), 7)]
    return "\n".join(" ".join(line) for line in lines)
