"""Whether a run has something to predict in every modality."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Final

import torch

from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.modalities import Modality
from seamo_fast.model.embedding import PatchEmbed
from seamo_fast.tiles import TileBatch
from seamo_fast.training.batches import draw_views, make_loader
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.distributed import ranks
from seamo_fast.training.schedule import Plan
from seamo_fast.views import Views

_SAMPLES: Final = 8  # of a batch
_BATCHES: Final = 4


def without_targets(config: PretrainConfig, shards: ShardSet, plan: Plan) -> list[str]:
    """Returns a line for each modality of which the first samples of no stage have a target.

    Where a modality has targets, eight samples show it; else 32 of each stage are read.

    Raises:
        DataError: A record is damaged, and `data.on_bad` is "stop".
    """
    data = replace(config.data, batch_size=_SAMPLES * ranks.world(), loader="torch", workers=0)
    few = replace(config, data=data)
    modalities = {modality.name: modality for modality in shards.modalities}
    reasons: dict[str, str] = {}
    found: set[str] = set()
    for stage in plan.stages:
        if found.issuperset(stage.modalities):
            continue
        for batch in islice(make_loader(few, shards, stage), _BATCHES):
            views = draw_views(config, batch, stage.number)
            for m, name in enumerate(batch.modalities):
                if name not in found:
                    reason = _why_none(config, modalities[name], batch, views, m)
                    reasons[name] = reason or reasons.get(name, "")
                    found.update([] if reason else [name])
            if found.issuperset(stage.modalities):
                break
    return [
        f"{name} has no target, so its loss will be 0: {reason} in the first "
        f"{_SAMPLES * _BATCHES} samples; leave it out, or see 'What is missing' in docs/data.md"
        for name, reason in reasons.items()
        if name not in found
    ]


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
