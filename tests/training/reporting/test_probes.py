"""Probes of a run change nothing of it, use no test data, and are not repeated."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch

from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.errors import ConfigError
from seamo_fast.model.weights import Weights
from seamo_fast.pretrain import main
from seamo_fast.tasks.datasets.open import within_training
from seamo_fast.tasks.datasets.reading.base import LabelledDataset
from seamo_fast.tasks.evaluation.in_loop import RunProbe
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.recovery import checkpoint
from seamo_fast.training.reporting import figures, probes
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.forkserver import FORK
from tests.tasks.evaluation.toys import toy
from tests.training.distributed.worker import act_compile, run_ranks

Settings = Callable[..., PretrainConfig]
pytestmark = pytest.mark.usefixtures("quick_rate")
TOTAL = 11
MEASURED = ("_per_second", "mfu", "wait", "time", "seconds", "gib", "probe/")


def open_toy(config: PretrainConfig) -> RunProbe:
    """The folder of a run's toy follows from the name of its task."""
    folder = Path(config.run.folder)
    opened = toy(folder / "toy", config.run.probe)  # type: ignore[arg-type]
    return RunProbe(opened, folder / "probe", torch.device("cpu"), torch.float32)


def fake(calls: list[int]) -> probes.OpenProbe:
    """A probe that notes that it was called."""

    def measure(weights: Weights) -> dict[str, float]:
        calls.append(len(weights.state))
        torch.rand(3)
        return {"knn": 0.25, "linear": float("nan")}

    return lambda config: measure


def metrics(config: PretrainConfig) -> list[dict[str, Any]]:
    return read_metrics(Path(config.run.folder) / "metrics.jsonl")


def own(config: PretrainConfig) -> list[dict[str, Any]]:
    """What the lines say of training itself."""
    return [
        {key: value for key, value in line.items() if not any(word in key for word in MEASURED)}
        for line in metrics(config)
        if line["step"]
    ]


def probed(config: PretrainConfig) -> list[int]:
    return [line["step"] for line in metrics(config) if "probe/knn" in line]


def saved(config: PretrainConfig) -> dict[str, bytes]:
    found = checkpoint.load(Path(config.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")
    parts: Iterable[tuple[str, torch.Tensor]] = [*found.model.items(), *found.optimizer.items()]
    return {name: tensor.numpy().tobytes() for name, tensor in parts}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("task", "how"),
    [
        ("classes", {}),
        ("mask", {"run__precision": "bf16"}),
        ("classes", {"run__compile": "regional"}),
    ],
)
def test_a_probe_leaves_the_run_as_it_was(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    how: dict[str, Any],
) -> None:
    if how.get("run__compile"):
        act_compile(monkeypatch, 0)
    plain = settings(run__folder=str(tmp_path / "plain"), **how)
    config = settings(run__probe=task, run__probe_every=3, **how)
    loop.pretrain(plain)
    before = torch.get_rng_state()
    loop.pretrain(config, open_toy)
    assert torch.equal(torch.get_rng_state(), before)
    assert own(config) == own(plain)
    assert saved(config) == saved(plain)
    assert probed(config) == [0, 2, 3, 6, 9, TOTAL]
    for line in metrics(config):
        assert all(0 <= line[key] <= 1 for key in line if key.startswith("probe/"))
    kept = [path.name for path in (Path(config.run.folder) / "probe").glob("*/*")]
    assert sorted(kept) == ["labels", "statistics.json"]


@pytest.mark.usefixtures("no_figures")
def test_the_test_part_is_never_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    original = LabelledDataset.read
    monkeypatch.setattr(LabelledDataset, "read", lambda self, n: read.add(n) or original(self, n))
    config = settings(run__probe="classes")
    loop.pretrain(config, open_toy)
    opened = toy(Path(config.run.folder) / "toy", "classes")
    assert read == {*opened.split.train, *opened.split.val}
    train, val, test = within_training(opened).split
    assert sorted(train + val) == opened.split.train
    assert len(val) == 3
    assert test == opened.split.val


def run_killed(config: PretrainConfig, count: int) -> None:
    torch.set_num_threads(1)
    original, calls = Extractor.__call__, []

    def fatal(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    Extractor.__call__ = fatal  # type: ignore[method-assign]
    loop.Figures.write = lambda *_: None  # type: ignore[method-assign]
    loop.pretrain(config, open_toy)


@pytest.mark.usefixtures("no_figures")
def test_a_run_killed_in_a_probe_resumes(settings: Settings, tmp_path: Path) -> None:
    changes = {"run__probe": "classes", "run__probe_every": 3, "run__checkpoint_every": 5}
    whole, killed = settings(**changes, run__folder=str(tmp_path / "whole")), settings(**changes)
    loop.pretrain(whole, open_toy)
    process = FORK.Process(target=run_killed, args=(killed, 11))  # three parts a probe
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    assert probed(killed) == [0, 2, 3]
    loop.pretrain(killed, open_toy)
    assert own(killed) == own(whole)
    assert saved(killed) == saved(whole)
    found, expected = (
        [(line["step"], line["probe/knn"], line["probe/linear"]) for line in metrics(config)
         if "probe/knn" in line]
        for config in (killed, whole)
    )  # fmt: skip
    assert found == expected


@pytest.mark.usefixtures("no_figures")
def test_what_is_measured_is_not_measured_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="seamo_fast")
    calls: list[int] = []
    config = settings(run__probe="any")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_train_stage", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.pretrain(config, fake(calls))
    assert len(calls) == 1
    loop.pretrain(config, fake(calls))
    assert len(calls) == 3
    assert probed(config) == [0, 2, TOTAL]
    assert not any("probe/linear" in line for line in metrics(config))  # NaN is no JSON
    assert "step 0: probe (knn 0.2500)" in caplog.text
    assert sum("  probe (knn 0.2500)  lr" in line for line in caplog.messages) == 2
    loop.pretrain(config, fake(calls))
    assert len(calls) == 3


@pytest.mark.usefixtures("no_figures")
def test_a_run_can_begin_and_cease_to_probe_when_it_resumes(settings: Settings) -> None:
    config = settings(run__probe="any", run__probe_every=1)
    calls: list[int] = []
    loop.pretrain(settings())
    forget_the_end(config)
    loop.pretrain(config, fake(calls))
    assert probed(config) == [9, 10, 11]
    assert len(calls) == 4  # and one before the first step, as the run had none
    forget_the_end(config)
    loop.pretrain(settings())
    assert probed(config) == []  # steps 9 to 11 are there again, without
    assert len(own(config)) == TOTAL


def forget_the_end(config: PretrainConfig) -> None:
    shutil.rmtree(Path(config.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")


def test_a_probe_needs_what_opens_it(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"run\.probe 'any' needs `open_probe`"):
        loop.pretrain(settings(run__probe="any"))


def act_open(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Lets a rank's run have a probe, and other ranks than 0 none that can be called."""
    original = loop.pretrain

    def refuse(config: PretrainConfig) -> probes.Measure:
        raise AssertionError("rank 0 alone measures")

    chosen = refuse if rank else open_toy
    patch.setattr(loop, "pretrain", lambda config: original(config, chosen))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.usefixtures("no_figures")
def test_two_ranks_find_what_one_does(settings: Settings, tmp_path: Path, strategy: str) -> None:
    changes: dict[str, Any] = {"run__probe": "classes", "run__steps_per_stage": 2}
    one = settings(**changes, run__folder=str(tmp_path / "one"))
    two = settings(**changes, distributed__strategy=strategy)
    loop.pretrain(one, open_toy)
    assert run_ranks(two, 2, act_open) == [None, None]
    assert probed(one) == probed(two) == [0, 2, 4]
    assert metrics(one)[0]["probe/linear"] == metrics(two)[0]["probe/linear"]


def test_probes_have_a_panel_below_the_losses(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"step": 0, "probe/knn": 0.5, "probe/linear": 0.6},
        {"step": 1, "loss/radar": 1.0},
        {"step": 2, "loss/radar": 0.5, "probe/knn": 0.7, "probe/linear": 0.8},
        {"step": 3, "loss/radar": 0.5, "probe/knn": "damaged"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    config = settings()
    plan = batches.make_plan(config, batches.open_shards(config.data.path))
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    figures.draw_losses(tmp_path, plan)
    upper, lower = drawn[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in lower.lines} == {
        "knn": [[0, 0.5], [2, 0.7]],
        "linear": [[0, 0.6], [2, 0.8]],
    }
    curves = {line.get_label(): line.get_xydata().tolist() for line in upper.lines}
    assert curves["radar"] == [[1, 1.0], [2, 0.5]]
    assert "knn" not in curves


def write_images(root: Path) -> Path:
    for number in range(24):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        path.write_bytes(imagecodecs.png_encode(image))
    return root


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("nowhere", "error: nowhere is no folder"),
        ("empty", "error: empty looks like no known dataset"),
        ("images", "knows none of the bands"),
    ],
)
def test_a_dataset_that_cannot_be_used_ends_the_run_before_its_first_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    probe: str,
    message: str,
) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    write_images(tmp_path / "data" / "images")
    (tmp_path / "data" / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    arguments = ["--config=tiny", f"--data.path={shards}", f"--run.folder={tmp_path / 'run'}"]
    arguments += ["--model.width=48", "--model.depth=1", "--model.image_size=32"]
    arguments += ["--model.patch_size=16", "--data.batch_size=2", "--run.device=cpu"]
    arguments += ["--schedule.modalities=[s1grd]"]  # radar has no band near to a colour
    assert main([*arguments, f"--run.probe={probe}"]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    if probe != "images":
        assert main([*arguments, f"--run.probe={probe}", "--dry_run"]) == 2
