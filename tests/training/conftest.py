"""Tiny shards, and settings of runs that take a second on them."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast.data import ShardWriter
from seamo_fast.modalities import Band, Modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.training.config import (
    DataConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    ScheduleConfig,
    StageLength,
)

OPTIC = Modality(
    "optic",
    (Band("A", 10), Band("B", 20), Band("C", 10)),
    "dn",
    nodata=0,
    composite=("A", "B", "C"),
)
RADAR = Modality("radar", (Band("VV", 10), Band("VH", 10)), "db", composite=("VV", "VH"))
SAMPLES, SEASONS, SIZE = 12, 3, 24


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve places of three seasons; of every third place the second optical image is missing."""
    return write_shards(tmp_path_factory.mktemp("training") / "shards")


@pytest.fixture(scope="session")
def uneven_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and the optical images of every fourth place are half empty."""
    return write_shards(tmp_path_factory.mktemp("training") / "uneven", empty=4)


def write_shards(
    folder: Path, empty: int | None = None, radar_of: Container[int] = range(SAMPLES)
) -> Path:
    writer = ShardWriter(folder, (OPTIC, RADAR), SEASONS, source="made", shard_size=8)
    for number in range(SAMPLES):
        rng = np.random.default_rng(number)
        smooth = rng.normal(size=(SEASONS, 1, 4, 4)).repeat(SIZE // 4, 2).repeat(SIZE // 4, 3)
        optic = (3000 + 500 * smooth + 50 * rng.normal(size=(SEASONS, 2, SIZE, SIZE))).clip(1)
        coarse = (2000 + 300 * smooth[..., ::2, ::2]).clip(1)
        radar = (-12 + 3 * smooth + rng.normal(size=(SEASONS, 2, SIZE, SIZE))).astype(np.float32)
        if empty is not None and number % empty == 0:
            optic[..., : SIZE // 2] = OPTIC.nodata
            coarse[..., : SIZE // 4] = OPTIC.nodata
        days: list[date | None] = [date(2021, 2, 1) + timedelta(90 * t) for t in range(SEASONS)]
        seen = [not (number % 3 == 0 and t == 1) for t in range(SEASONS)]
        writer.add(
            f"place-{number}",
            {"optic": [optic.astype(np.uint16), coarse.astype(np.uint16)], "radar": [radar]},
            {"optic": [d if s else None for d, s in zip(days, seen, strict=True)], "radar": days},
            {"optic": seen, "radar": [number in radar_of] * SEASONS},
        )
    writer.finish()
    return folder


@pytest.fixture
def settings(shard_folder: Path, tmp_path: Path) -> Callable[..., PretrainConfig]:
    """Returns a function that makes the settings of a tiny run: two stages of 2 and 9 steps.

    Its arguments replace fields, as "section__field".
    """

    def make(**changes: Any) -> PretrainConfig:
        config = PretrainConfig(
            data=DataConfig(str(shard_folder), batch_size=4),
            model=ModelConfig(
                width=32,
                depth=1,
                heads=2,
                image_size=16,
                patch_size=4,
                decoder_width=16,
                decoder_depth=1,
                decoder_heads=2,
            ),
            optim=OptimConfig(blr=0.1),
            schedule=ScheduleConfig(
                single_season=StageLength(1, 0.5), multi_season=StageLength(3, 1.0)
            ),
            run=RunConfig(
                str(tmp_path / "run"),
                precision="fp32",
                device="cpu",
                checkpoint_every=4,
                log_every=1,
                figure_samples=1,
                tensorboard=False,
            ),
        )
        for key, value in changes.items():
            section, field = key.split("__")
            config = replace(
                config, **{section: replace(getattr(config, section), **{field: value})}
            )
        return config

    return make


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs draw nothing, which takes longer than their training."""
    monkeypatch.setattr("seamo_fast.training.reporting.figures.Figures.write", lambda *_: None)


@pytest.fixture
def quick_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the time for measuring matrix products down."""
    from seamo_fast.training import precision

    measure = precision.matmul_rate
    monkeypatch.setattr(precision, "matmul_rate", lambda *given: measure(*given, budget=0.0))
