"""Whether a run has something to predict, and in every modality."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import torch

from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.modalities import Modality
from seamo_fast.model.embedding import PatchEmbed
from seamo_fast.tiles import TileBatch
from seamo_fast.training.batches import draw_views
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.schedule import Plan, Stage
from seamo_fast.views import Views

_SAMPLES: Final = 8  # of a batch
_BATCHES: Final = 4


def without_targets(config: PretrainConfig, shards: ShardSet, plan: Plan) -> list[str]:
    """Returns a line for each modality of which the first samples of no stage have a target.

    Where a modality has targets, eight samples show it; else 32 of each stage are read, and where
    no modality has any, all of them.

    Raises:
        DataError: No modality has a target in any sample, or a record is damaged and
            `data.on_bad` is "stop".
    """
    modalities = {modality.name: modality for modality in shards.modalities}
    reasons: dict[str, str] = {}
    found: set[str] = set()
    for stage in plan.stages:
        if found.issuperset(stage.modalities):
            continue
        for number, batch in enumerate(_epoch(config, shards, stage), 1):
            views = draw_views(config, batch, stage.number)
            for m, name in enumerate(batch.modalities):
                if name not in found:
                    reason = _why_none(config, modalities[name], batch, views, m)
                    reasons[name] = reason or reasons.get(name, "")
                    found.update([] if reason else [name])
            if found.issuperset(stage.modalities) or (found and number >= _BATCHES):
                break
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise DataError(
            f"{shards.path} has nothing to predict in any sample ({why}); look at it with "
            "`python -m seamo_fast.stats`, and at 'What is missing' in docs/data.md"
        )
    return [
        f"{name} has no target, and so no loss: {reason} in the first {_SAMPLES * _BATCHES} "
        "samples; leave it out, or see 'What is missing' in docs/data.md"
        for name, reason in reasons.items()
        if name not in found
    ]


def _epoch(config: PretrainConfig, shards: ShardSet, stage: Stage) -> Iterator[TileBatch]:
    """Yields each sample of a stage once, whatever rank this is."""
    loader = TileLoader(
        shards,
        batch_size=_SAMPLES,
        seed=config.run.seed,
        modalities=stage.modalities,
        seasons=stage.seasons,
        fraction=stage.data_fraction,
        on_bad=config.data.on_bad,
        verify=config.data.verify,
    )
    return islice(loader, -(-loader.samples // _SAMPLES))


def _why_none(
    config: PretrainConfig, modality: Modality, batch: TileBatch, views: Views, m: int
) -> str:
    """Returns why no hidden patch of a batch is a target of a modality, empty if one is."""
    if not batch.valid[:, :, m].any():
        return "no group is valid"
    with torch.device("meta"):  # no weight is needed
        embed = PatchEmbed(modality, config.model.patch_size, 1)
    embed.shift, embed.scale = map(torch.tensor, modality.normalization())
    hidden, size = views.hidden[:, :, m], config.model.image_size
    grids = batch.bands[modality.name]
    _, measured = embed.gather(grids, views.boxes, hidden, size, torch.float32)
    if (measured & batch.valid[:, :, m, None]).any():
        return ""
    return "every hidden patch has pixels that are not measured"
