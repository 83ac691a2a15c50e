"""Real tiles all the way: packed, pretrained on, and learnt by heart when the views stand still."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.pretrain import main
from tests.factories import make_views

SOURCES = {
    "ssl4eo": ("ssl4eo_s12_v1", None, 64),
    "worldcereal": ("worldcereal_belgium", "worldcereal", 32),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> tuple[ShardSet, int]:
    """A packed source and the image size to train at."""
    folder, mapping, size = SOURCES[request.param]
    pack(open_source(data_dir / folder, mapping=mapping), tmp_path / "shards")
    return ShardSet(tmp_path / "shards"), size


def test_fixed_views_are_learnt_by_heart(source: tuple[ShardSet, int]) -> None:
    shards, size = source
    config = ModelConfig(
        width=128, depth=3, heads=4, image_size=size,
        decoder_width=128, decoder_depth=2, decoder_heads=4,
    )  # fmt: skip
    model = SeaMo(config, shards.modalities)
    names = [modality.name for modality in shards.modalities]
    loader = TileLoader(
        shards, batch_size=len(shards), seed=0, modalities=names, seasons=shards.seasons
    )
    batch = next(iter(loader))
    views = make_views(batch, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    first = last = model(batch, views).total.item()
    for step in range(400):
        if last < 0.2 * first:
            break
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 20)
        loss = model(batch, views).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.item()
    assert last < 0.2 * first


def test_pretraining_runs_on_them(source: tuple[ShardSet, int], tmp_path: Path) -> None:
    shards, size = source
    settings = {
        "data.path": shards.path, "data.batch_size": 4, "model.image_size": size,
        "model.width": 32, "model.depth": 1, "model.heads": 2, "model.decoder_width": 32,
        "model.decoder_depth": 1, "model.decoder_heads": 2, "run.folder": tmp_path / "run",
        "run.steps_per_stage": 2, "run.log_every": 1,
    }  # fmt: skip
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    assert main(["--config", "tiny", *arguments]) == 0
    assert (tmp_path / "run" / "loss.png").is_file()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4
