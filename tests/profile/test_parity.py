"""`python -m seamo_fast.profile parity`."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seamo_fast import views
from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.model import SeaMo
from seamo_fast.profile import parity, variant
from seamo_fast.profile.__main__ import main
from seamo_fast.profile.config import PARITY, ParityConfig
from seamo_fast.profile.parity import judge, smoothed, variants
from seamo_fast.profile.variant import train
from seamo_fast.reference import ReferenceSeaMo
from tests.forkserver import FORK

STEPS = 10


def by_hand(config: ParityConfig, plain: bool) -> list[float]:
    """The losses of an ordinary loop that shares nothing with the project's but the models."""
    shards = ShardSet(config.data.path)
    torch.manual_seed(config.run.seed)
    model: Any = SeaMo(config.model, shards.modalities)
    if plain:
        reference = ReferenceSeaMo(config.model, shards.modalities)
        reference.load_state_dict(model.state_dict())
        model = reference
    matrices = [
        p for n, p in model.named_parameters() if p.ndim > 1 and not n.startswith("date_embed")
    ]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    names = [modality.name for modality in shards.modalities]
    loader = TileLoader(
        shards, batch_size=2, seed=config.run.seed, modalities=names, seasons=shards.seasons
    )
    losses = []
    for number, batch in zip(range(STEPS), loader, strict=False):
        seen = views.sample(
            batch.ids, batch.epochs, seed=config.run.seed, stage=0, seasons=2, modalities=2,
            num_patches=16, config=config.views,
        )  # fmt: skip
        peak = 0.1 * 2 / 256
        rate = peak if number == 0 else peak * (1 + math.cos(math.pi * (number - 1) / 9)) / 2
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.zero_grad()
        loss = model(batch, seen)[0]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        losses.append(loss.item())
    return losses


def column(path: Path, name: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["reference", "fast"])
def test_a_variant_trains_as_by_hand(config: Path, tmp_path: Path, name: str) -> None:
    settings = PARITY.parse(["--config", str(config), f"--parity.steps={STEPS}", "--run.seed=3"])[0]
    train(settings, name, tmp_path / "losses.csv")
    found = column(tmp_path / "losses.csv", "loss")
    assert found == pytest.approx(by_hand(settings, name == "reference"), rel=1e-5)
    assert found[-1] < found[0]


def forked(command: list[str], *, env: dict[str, str], stdout: Any, **_: Any) -> Any:
    """Runs a variant as `subprocess.run` does, in a process that need not import torch."""
    assert command[:3] == [sys.executable, "-m", "seamo_fast.profile.variant"]
    process = FORK.Process(target=run_variant, args=(command[3:], env, stdout.name))
    process.start()
    process.join(240)
    return subprocess.CompletedProcess(command, process.exitcode)


def run_variant(arguments: list[str], env: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(1)
    with Path(log).open("a") as sys.stdout:
        variant.main(arguments)


def test_all_variants_are_compared(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(parity.subprocess, "run", forked)
    options = [f"--parity.steps={STEPS}", "--parity.seeds=2", "--parity.compiled=false"]
    where = f"--parity.folder={tmp_path}"
    assert main(["parity", "--config", str(config), where, "--parity.jobs=2", *options]) == 0
    assert "verdict: same" in capsys.readouterr().out
    curves = tmp_path / "curves.csv"
    assert column(curves, "step") == list(range(1, STEPS + 1))
    reference = column(curves, "reference")
    settings = PARITY.parse(["--config", str(config)])[0]
    assert reference == pytest.approx(by_hand(settings, plain=True), rel=1e-5)
    assert column(curves, "fast") == pytest.approx(reference, rel=1e-4)
    assert column(curves, "fast, seed 1") != pytest.approx(reference, rel=1e-3)
    found = json.loads((tmp_path / "parity.json").read_text())
    difference = np.abs(np.array(column(curves, "fast")) / np.array(reference) - 1)
    assert found["variants"]["fast"]["first"] == pytest.approx(difference.max())
    assert set(found["variants"]) == {"reference-ops", "fast"}
    assert found["verdict"] == "same"
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_compiled_variant_trains_alike(config: Path, tmp_path: Path) -> None:
    where, options = f"--parity.folder={tmp_path}", ["--parity.steps=4", "--parity.seeds=2"]
    assert main(["parity", "--config", str(config), where, *options]) == 0
    reference = column(tmp_path / "curves.csv", "reference")
    compiled = column(tmp_path / "curves.csv", "compiled")
    assert compiled == pytest.approx(reference, rel=1e-4)
    assert set(json.loads((tmp_path / "parity.json").read_text())["variants"]) == {
        "reference-ops", "fast", "compiled"
    }  # fmt: skip


def test_a_variant_that_fails_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("SEAMO_FAST_KERNELS", "abacus")
    monkeypatch.setattr("seamo_fast.profile.parity.variants", lambda c: variants(c)[2:3])
    where = f"--parity.folder={tmp_path}"
    assert main(["parity", "--config", str(config), where, "--parity.steps=1"]) == 2
    shown = capsys.readouterr().err
    assert "error: variant 'fast' ended with exit status 1 (" in shown
    assert "SEAMO_FAST_KERNELS must be one of" in shown
    assert f"its output is in {tmp_path}/losses/fast.log" in shown
    assert shown.count("\n") == 1


def test_every_variant_differs_from_the_fast_one_in_one_thing(config: Path) -> None:
    settings = PARITY.parse(["--config", str(config), "--run.seed=5"])[0]
    found = [(v.name, v.seed, v.settings, dict(v.environment)) for v in variants(settings)]
    assert found == [
        ("reference", 5, (), {}),
        ("reference-ops", 5, (), {"SEAMO_FAST_KERNELS": "reference"}),
        ("fast", 5, (), {}),
        ("compiled", 5, ("--run.compile=regional",), {}),
        ("fast, seed 6", 6, (), {}),
        ("fast, seed 7", 7, (), {}),
    ]


def made_curves() -> dict[str, np.ndarray]:
    """Curves of 500 steps whose seeds are 2 % apart."""
    curve = 1 + 1 / np.arange(1, 501)
    return {
        "reference": curve,
        "reference-ops": curve * 1.00002,
        "fast": curve * 1.00005,
        "compiled": curve.copy(),
        "fast, seed 1": curve * 1.02005,
    }


def empty(curves: dict[str, np.ndarray], step: int) -> None:
    """A step that has no target has no loss in any variant."""
    for curve in curves.values():
        curve[step] = 0.0


def bend(curves: dict[str, np.ndarray], name: str, first: int, factor: float) -> None:
    curves[name] = np.where(np.arange(500) < first, curves[name], curves[name] * factor)


def test_curves_within_the_spread_of_the_seeds_are_the_same() -> None:
    found = judge(made_curves())
    assert found["verdict"] == "same"
    assert found["window"] == 10
    assert found["spread_of_seeds"] == pytest.approx(0.02 / 1.01005, rel=1e-3)
    assert found["variants"]["fast"] == pytest.approx(
        {"first": 5e-5, "smoothed": 5e-5, "end": 5e-5}
    )
    assert found["fast_to_reference_ops_first"] == pytest.approx(3e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("spoil", "apart"),
    [
        (lambda c: bend(c, "compiled", 300, 1.03), ["compiled"]),
        (lambda c: bend(c, "compiled", 300, 1.01), []),
        (lambda c: bend(c, "fast", 100, 1.0001), ["fast from reference-ops"]),
        (lambda c: bend(c, "fast", 200, 1.0001), []),
        (lambda c: bend(c, "reference-ops", 499, float("nan")), ["reference-ops"]),
        (lambda c: empty(c, 7), []),
    ],
)
def test_a_curve_that_parts_is_named(
    spoil: Callable[[dict[str, np.ndarray]], None], apart: list[str]
) -> None:
    curves = made_curves()
    spoil(curves)
    found = judge(curves)
    assert found["apart"] == apart
    assert found["verdict"] == ("different" if apart else "same")


def test_smoothing_is_a_moving_mean() -> None:
    curve = np.arange(100.0) ** 2
    assert smoothed(curve).tolist() == pytest.approx(
        [(a * a + (a + 1) ** 2) / 2 for a in range(99)]
    )
