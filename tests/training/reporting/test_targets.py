"""A modality without targets is named when a run starts, once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardWriter
from seamo_fast.errors import DataError
from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.dry_run import dry_run
from seamo_fast.training.reporting import figures, targets
from seamo_fast.training.reporting.targets import without_targets
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.training.conftest import OPTIC, RADAR, SAMPLES, SEASONS, SIZE

Settings = Callable[..., PretrainConfig]
MEASURED = replace(RADAR, mean=(-12.0, -18.0), std=(3.0, 3.0), release="made")
LINE = (
    "radar has no target, and so no loss: {} in the first 32 samples; leave it out, or see "
    "'What is missing' in docs/data.md"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Returns a function that writes shards whose radar lacks something."""

    def write(lacks: str) -> str:
        folder = tmp_path / lacks
        optic = replace(OPTIC, mean=(3000.0,) * 3, std=(500.0,) * 3, release="made")
        writer = ShardWriter(folder, (optic, MEASURED), SEASONS, source="made", shard_size=8)
        for number in range(SAMPLES):
            rng = np.random.default_rng(number)
            fine = rng.integers(1, 5000, (SEASONS, 2, SIZE, SIZE)).astype(np.uint16)
            coarse = rng.integers(1, 5000, (SEASONS, 1, SIZE // 2, SIZE // 2)).astype(np.uint16)
            radar = rng.normal(-12, 3, (SEASONS, 2, SIZE, SIZE)).astype(np.float32)
            if lacks in ("pixels", "all pixels"):
                radar[..., ::2, ::2] = np.nan
            if lacks == "all pixels":
                fine[..., ::2, ::2] = OPTIC.nodata
            seen = "pixels" in lacks or (lacks == "most" and number == 5)
            writer.add(
                f"place-{number}",
                {"optic": [fine, coarse], "radar": [radar]},
                {"optic": [None] * SEASONS, "radar": [None] * SEASONS},
                {"optic": [lacks != "all groups"] * SEASONS, "radar": [seen] * SEASONS},
            )
        writer.finish()
        return str(folder)

    return write


REASONS = {
    "groups": "no group is valid",
    "pixels": "every hidden patch has pixels that are not measured",
}


@pytest.mark.usefixtures("no_figures", "quick_rate")
@pytest.mark.parametrize("lacks", list(REASONS))
def test_a_run_says_so_once(
    settings: Settings,
    write: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    lacks: str,
) -> None:
    caplog.set_level(logging.INFO, logger="seamo_fast")
    config = settings(data__path=write(lacks), run__steps_per_stage=2)
    loop.pretrain(config)
    said = [line for line in caplog.messages if "no target" in line]
    assert said == [LINE.format(REASONS[lacks])]
    stages = [number for number, line in enumerate(caplog.messages) if line.startswith("stage ")]
    assert caplog.messages.index(said[0]) == stages[-1] + 1  # before the first step
    assert dry_run(config).count(said[0]) == 1


def losses_of(config: PretrainConfig, key: str = "loss/radar") -> list[float | None]:
    return [line[key] for line in read_metrics(Path(config.run.folder) / "metrics.jsonl")]


@pytest.mark.usefixtures("quick_rate")
@pytest.mark.parametrize("lacks", list(REASONS))
def test_what_has_no_target_has_no_figure(
    settings: Settings,
    write: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lacks: str,
) -> None:
    caplog.set_level(logging.INFO, logger="seamo_fast")
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        figures,
        "save_figure",
        lambda figure, _: drawn.append([line.get_label() for line in figure.axes[0].lines]),
    )
    config = settings(data__path=write(lacks), run__steps_per_stage=2)
    loop.pretrain(config)
    assert losses_of(config) == [None] * 4
    assert losses_of(config, "loss") == losses_of(config, "loss/optic")
    lines = [line for line in caplog.messages if "  lr " in line]
    assert len(lines) == 4
    assert not [line for line in lines if "radar" in line]
    curves = [labels for labels in drawn if "optic" in labels]
    assert curves
    assert not [labels for labels in curves if "radar" in labels]


@pytest.mark.usefixtures("no_figures", "quick_rate")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_modality_that_is_rare_counts_where_it_is(
    settings: Settings, write: Callable[[str], str], tmp_path: Path, accumulate: int
) -> None:
    path, found = write("most"), {}
    for every in (1, 6):
        config = settings(
            data__path=path,
            data__batch_size=2,
            optim__blr=1e-9,
            optim__accumulate=accumulate,
            run__folder=str(tmp_path / str(every)),
            run__log_every=every,
            run__checkpoint_every=6,
            run__steps_per_stage=6,
            schedule__kind="direct",
        )
        loop.pretrain(config)
        found[every] = losses_of(config)
    once = [loss for loss in found[1] if loss is not None]
    assert len(once) == 1 < len(found[1]) == 6
    assert found[6] == once


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ("all groups", "(optic: no group is valid; radar: no group is valid)"),
        (
            "all pixels",
            "(optic: every hidden patch has pixels that are not measured; radar: every hidden "
            "patch has pixels that are not measured)",
        ),
    ],
)
def test_a_run_with_nothing_to_predict_is_refused_before_its_first_step(
    settings: Settings, write: Callable[[str], str], lacks: str, reason: str
) -> None:
    config = settings(data__path=write(lacks))
    message = re.escape(f"has nothing to predict in any sample {reason}; look at it with")
    for start in (loop.pretrain, dry_run):
        with pytest.raises(DataError, match=message):
            start(config)
    assert not (Path(config.run.folder) / "metrics.jsonl").exists()


def test_the_first_target_is_looked_for_in_all_samples(
    settings: Settings, write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_BATCHES", 1)
    monkeypatch.setattr(targets, "_SAMPLES", 2)
    config = settings(data__path=write("most"), schedule__modalities=("radar",))
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    assert without_targets(config, shards, plan) == []


def test_nothing_is_said_where_some_sample_has_a_target(
    settings: Settings, write: Callable[[str], str]
) -> None:
    for config in (settings(), settings(data__path=write("most"))):
        shards = batches.open_shards(config.data.path)
        assert without_targets(config, shards, batches.make_plan(config, shards)) == []
