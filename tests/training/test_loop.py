"""The loop on tiny shards: stages, exact resume, signals, refusals."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seamo_fast import checkpoint_files
from seamo_fast.errors import CheckpointError, ConfigError, DataError, SeaMoError
from seamo_fast.modalities import Modality
from seamo_fast.randomness import generator
from seamo_fast.tiles import TileBatch
from seamo_fast.training import batches, loop
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.recovery import checkpoint
from seamo_fast.training.recovery.run_state import RunState
from seamo_fast.training.reporting.telemetry import Telemetry, read_metrics
from seamo_fast.training.schedule import learning_rate
from seamo_fast.training.step import step_flops
from tests.forkserver import FORK

Settings = Callable[..., PretrainConfig]
pytestmark = pytest.mark.usefixtures("no_figures", "quick_rate")
TOTAL = 11


@pytest.fixture(autouse=True)
def audible(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="seamo_fast")


def metrics(folder: str | Path) -> list[dict[str, Any]]:
    return read_metrics(Path(folder) / "metrics.jsonl")


def losses(folder: str | Path) -> dict[int, tuple[float, float]]:
    lines = metrics(folder)
    found = {line["step"]: (line["loss"], line["grad_norm"]) for line in lines}
    assert len(found) == len(lines), "a step is there twice"
    return found


def step_names(folder: str | Path) -> list[str]:
    return [path.name for path in checkpoint_files.step_folders(Path(folder) / "checkpoints")]


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Calls `act` before the run's step `number` (from 0)."""
    original = loop.Trainer._train_step

    def train_step(self: loop.Trainer, *arguments: Any) -> None:
        if self.state.step == number:
            act()
        original(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "_train_step", train_step)


def test_a_run_goes_through_its_stages(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings()
    loop.pretrain(config)
    lines = metrics(config.run.folder)
    assert [line["step"] for line in lines] == list(range(1, TOTAL + 1))
    assert [line["stage"] for line in lines] == ["single-season"] * 2 + ["multi-season"] * 9
    expected = [learning_rate(i, n, config.optim, 4) for n in (2, 9) for i in range(n)]
    assert [line["lr"] for line in lines] == expected
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss/optic"] + line["loss/radar"])
        assert line["mfu"] > 0
        assert 0 <= line["data_wait"] < 1
    assert lines[-1]["loss/optic"] < lines[0]["loss/optic"]
    assert lines[-1]["seconds_left"] == 0
    assert step_names(config.run.folder) == ["step_00000004", "step_00000008", "step_00000011"]
    assert "finished; look at" in caplog.text


@pytest.mark.parametrize(("mode", "second"), [("tm", "with"), ("none", "without")])
def test_a_run_says_whether_a_stage_has_fusion(
    settings: Settings, caplog: pytest.LogCaptureFixture, mode: str, second: str
) -> None:
    loop.pretrain(settings(model__fusion=mode, run__steps_per_stage=1))
    said = [line for line in caplog.messages if line.startswith("stage ")]
    assert said == [
        "stage single-season: 1 steps, 1 seasons of optic, radar, without fusion",
        f"stage multi-season: 1 steps, 3 seasons of optic, radar, {second} fusion",
    ]


def test_utilisation_is_flops_over_the_measured_rate(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.precision, "matmul_rate", lambda *_: 1e9)
    config = settings(run__steps_per_stage=1)
    loop.pretrain(config)
    shards = batches.open_shards(config.data.path)
    stages = batches.make_plan(config, shards).stages
    for line, stage in zip(metrics(config.run.folder), stages, strict=True):
        flops = step_flops(config, shards, stage)
        assert line["mfu"] == pytest.approx(flops * line["samples_per_second"] / 1e9)
    assert step_flops(config, shards, stages[1]) > 3 * step_flops(config, shards, stages[0])


def test_a_step_draws_no_random_number_from_the_process(settings: Settings) -> None:
    state = RunState(settings(run__steps_per_stage=2), Path(settings().run.folder))
    Path(settings().run.folder).mkdir()
    before = torch.get_rng_state()
    loop.run(state)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_do_not_change_losses(settings: Settings, tmp_path: Path) -> None:
    for workers in (0, 1):
        folder = str(tmp_path / str(workers))
        loop.pretrain(settings(run__folder=folder, data__workers=workers, run__steps_per_stage=2))
    assert losses(tmp_path / "0") == losses(tmp_path / "1")


def run_killed(config: PretrainConfig, where: str, count: int) -> None:
    """Runs, and kills its process before its step, or in its checkpoint, of this number."""
    torch.set_num_threads(1)
    places = {"step": (loop.Trainer, "_train_step"), "save": (checkpoint, "_write_record")}
    target, name = places[where]
    original, calls = getattr(target, name), []

    def fatal(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(target, name, fatal)
    setattr(loop.Figures, "write", lambda *_: None)  # noqa: B010
    loop.pretrain(config)


@pytest.mark.parametrize(("where", "count"), [("step", None), ("save", 2)])
def test_a_killed_run_resumes_with_identical_losses(
    settings: Settings, tmp_path: Path, where: str, count: int | None
) -> None:
    # another step each time
    count = count or int(generator(time.time_ns(), "kill").integers(6, TOTAL))
    whole, killed = settings(run__folder=str(tmp_path / "whole")), settings(run__checkpoint_every=3)
    loop.pretrain(whole)
    process = FORK.Process(target=run_killed, args=(killed, where, count))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    assert max(losses(killed.run.folder)) < TOTAL
    loop.pretrain(killed)
    assert losses(killed.run.folder) == losses(whole.run.folder)
    assert not list((Path(killed.run.folder) / "checkpoints").glob(".*"))


def interrupt() -> None:
    raise KeyboardInterrupt


def test_the_resumed_run_has_the_same_weights(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = settings(run__folder=str(tmp_path / "whole")), settings()
    loop.pretrain(whole)
    with monkeypatch.context() as patch:
        before_step(patch, 6, interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.pretrain(cut)
    loop.pretrain(cut)
    first, second = (
        checkpoint.load(Path(c.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")
        for c in (whole, cut)
    )
    for state, other in ((first.model, second.model), (first.optimizer, second.optimizer)):
        assert state.keys() == other.keys()
        assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
) -> None:
    whole, stopped = settings(run__folder=str(tmp_path / "whole")), settings()
    loop.pretrain(whole)
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: os.kill(os.getpid(), number))
        assert loop.pretrain(stopped) is number
    assert signal.getsignal(number) is handler
    assert step_names(stopped.run.folder)[-1] == "step_00000006"
    assert f"stopped by {number.name} after step 6 of {TOTAL}" in caplog.text
    loop.pretrain(stopped)
    assert losses(stopped.run.folder) == losses(whole.run.folder)


def test_torchrun_does_not_restart_what_was_asked_to_stop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert loop.pretrain(config) is signal.SIGTERM
    with monkeypatch.context() as patch:
        patch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert loop.pretrain(config) is signal.SIGTERM
        assert max(losses(config.run.folder)) == 6
    assert loop.pretrain(config) is None  # the command, given again
    assert max(losses(config.run.folder)) == TOTAL
    assert not list(Path(config.run.folder).glob(".stopped"))


def test_broken_metrics_do_not_keep_a_run_from_resuming(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings()
    with monkeypatch.context() as patch:
        before_step(patch, 6, interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.pretrain(config)
    file = Path(config.run.folder) / "metrics.jsonl"
    text = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([text[0], bytes(9), *text[2:5], b'{"step": 6, "lo']))
    loop.pretrain(config)
    assert list(losses(config.run.folder)) == [1, 3, 4, *range(5, TOTAL + 1)]
    said = [line for line in caplog.messages if "broken lines" in line]
    assert len(said) == 1
    assert "2 broken lines are removed, the first is line 2" in said[0]


def test_a_signal_during_the_log_line_saves_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(run__checkpoint_every=1000)
    report = Telemetry.report

    def interrupted(self: Telemetry, metrics: dict[str, Any], *shown: str) -> None:
        report(self, metrics, *shown)
        if metrics["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Telemetry, "report", interrupted)
    loop.pretrain(config)
    assert "stopped by SIGTERM after step 5" in caplog.text
    assert step_names(config.run.folder)[-1] == "step_00000005"


def test_a_damaged_checkpoint_is_skipped(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings()
    loop.pretrain(config)
    reference = losses(config.run.folder)
    folder = Path(config.run.folder) / "checkpoints"
    file = folder / f"step_{TOTAL:08d}" / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size // 2)
    caplog.clear()
    loop.pretrain(config)
    assert f"model.safetensors has {size // 2} bytes instead of {size}" in caplog.text
    assert "resuming at step 8" in caplog.text
    assert losses(config.run.folder) == reference
    assert (folder / f"unused_step_{TOTAL:08d}").is_dir()
    for path in checkpoint_files.step_folders(folder):
        (path / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="all 3 checkpoints"):
        loop.pretrain(config)


def test_metrics_are_on_the_disk_before_their_checkpoint(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    file = Path(config.run.folder) / "metrics.jsonl"
    fsync, save, synced = os.fsync, checkpoint.save, [0]

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
            synced.append(metrics(config.run.folder)[-1]["step"])

    def check(folder: Path, step: int, *rest: Any) -> Path:
        assert step in synced
        return save(folder, step, *rest)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(checkpoint, "save", check)
    loop.pretrain(config)
    assert synced[1:] == [2, 4, 8, TOTAL]


def test_figures_that_a_kill_prevented_are_drawn_at_the_next_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, drawn = settings(), []

    def write(self: loop.Figures, model: Any, stage: Any, step: int, dtype: Any) -> None:
        drawn.append((stage.name, step))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        target = Path(config.run.folder) / "reconstructions" / f"step_{step:08d}.png"
        target.parent.mkdir(exist_ok=True)
        target.touch()

    monkeypatch.setattr(loop.Figures, "write", write)
    with pytest.raises(KeyboardInterrupt):
        loop.pretrain(config)
    assert drawn == [("single-season", 2), ("multi-season", TOTAL)]
    for _ in range(2):
        loop.pretrain(config)
        assert drawn[2:] == [("multi-season", TOTAL)]


def test_damaged_records_are_counted_over_all_starts(
    settings: Settings, shard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shard_folder, damaged)
    array = next(damaged.glob("shard-00000/radar*.npy"))
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)
    config = settings(data__path=str(damaged))
    before_step(monkeypatch, 10, interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.pretrain(config)
    records = RunState(config, Path(config.run.folder)).bad_records
    assert ["record 7 (place-7) fails the checksum" in each for each in records] == [True]


def test_a_finished_run_says_so(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    config = settings(run__steps_per_stage=1)
    loop.pretrain(config)
    loop.pretrain(config)
    assert "is finished already, at step 2" in caplog.text
    assert len(metrics(config.run.folder)) == 2


def test_a_run_folder_of_another_config_is_refused(settings: Settings) -> None:
    loop.pretrain(settings(run__steps_per_stage=1))
    message = r"optim\.blr: 0\.1 there, 0\.2 here; run\.seed: 0 there, 1 here"
    with pytest.raises(ConfigError, match=message):
        loop.pretrain(settings(run__steps_per_stage=1, optim__blr=0.2, run__seed=1))
    loop.pretrain(settings(run__steps_per_stage=1, run__log_every=5, data__workers=1))


def test_a_refused_start_from_elsewhere_leaves_the_folder_alone(
    settings: Settings, tmp_path: Path
) -> None:
    here = settings(run__steps_per_stage=1)
    there = settings(run__steps_per_stage=1, optim__blr=0.2, run__folder=str(tmp_path / "there"))
    loop.pretrain(here)
    loop.pretrain(there)
    before = sorted(Path(here.run.folder).rglob("*"))
    with pytest.raises(ConfigError, match="belongs to a run of another configuration"):
        loop.pretrain(settings(run__steps_per_stage=1, run__resume=there.run.folder))
    assert sorted(Path(here.run.folder).rglob("*")) == before


def test_other_statistics_are_refused_and_another_place_is_not(
    settings: Settings, shard_folder: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(shard_folder, moved)
    config = settings(run__steps_per_stage=1)
    loop.pretrain(config)
    loop.pretrain(settings(run__steps_per_stage=1, data__path=str(moved)))
    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["modalities"][0]["mean"][0] += 1000
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"shards\.modalities\.optic\.mean"):
        loop.pretrain(settings(run__steps_per_stage=1, data__path=str(moved)))


def test_nothing_but_damaged_records_ends_the_run(
    settings: Settings, shard_folder: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(shard_folder, spoilt)
    for array in spoilt.rglob("*.npy"):
        data = bytearray(array.read_bytes())
        data[128:] = bytes(byte ^ 1 for byte in data[128:])
        array.write_bytes(data)
    with pytest.raises(DataError, match=r"all 6 samples are damaged, the last one: .*checksum"):
        loop.pretrain(settings(data__path=str(spoilt)))


def test_starting_over_keeps_the_earlier_run(settings: Settings) -> None:
    config = settings(run__steps_per_stage=1)
    loop.pretrain(config)
    loop.pretrain(settings(run__steps_per_stage=1, run__seed=1, run__resume="none"))
    folder = Path(config.run.folder)
    assert step_names(folder) == step_names(folder / "previous-1") != []
    assert losses(folder) != losses(folder / "previous-1")


def test_a_run_can_resume_from_a_checkpoint_of_another_folder(
    settings: Settings, tmp_path: Path
) -> None:
    config = settings()
    loop.pretrain(config)
    start = Path(config.run.folder) / "checkpoints" / "step_00000008"
    loop.pretrain(settings(run__folder=str(tmp_path / "resumed"), run__resume=str(start)))
    expected = {step: found for step, found in losses(config.run.folder).items() if step > 8}
    assert losses(tmp_path / "resumed") == expected
    with pytest.raises(CheckpointError, match="neither auto, none, a checkpoint nor a run"):
        loop.pretrain(settings(run__resume=str(tmp_path / "nothing")))


def spoil(numbers: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills the radar images of some of the run's batches with huge values, which overflow."""
    original, calls = batches.draw_views, []

    def draw(config: PretrainConfig, batch: TileBatch, stage: int) -> Any:
        if len(calls) in numbers:
            batch.bands["radar"][0].fill_(3e38)
        calls.append(0)
        return original(config, batch, stage)

    monkeypatch.setattr(batches, "draw_views", draw)
    monkeypatch.setattr(Modality, "limit", 3e38)  # else they were not measured


def test_steps_without_finite_gradient_are_skipped_and_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil({4, 5}, monkeypatch)
    config = settings(run__max_nonfinite=3, data__workers=0)  # batches are counted as drawn
    loop.pretrain(config)
    lines = metrics(config.run.folder)
    assert [line["loss"] is None for line in lines] == [step in (4, 5) for step in range(TOTAL)]
    assert [line["skipped"] for line in lines] == [0] * 4 + [1] + [2] * 6
    newest = checkpoint.load(Path(config.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")
    assert all(tensor.isfinite().all() for tensor in newest.model.values())


def test_a_run_without_finite_gradients_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil({5, 6, 7, 8}, monkeypatch)
    config = settings(run__max_nonfinite=3, data__workers=0)  # batches are counted as drawn
    message = r"3 steps in a row had no finite gradient, up to step 8 \(its samples: \["
    with pytest.raises(SeaMoError, match=message):
        loop.pretrain(config)
    assert step_names(config.run.folder)[-1] == "step_00000004"


@pytest.mark.parametrize("how", ["regional", pytest.param("full", marks=pytest.mark.slow)])
def test_the_compiled_model_gives_the_same_losses(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # inductor takes minutes for what this test is about: no graph break, no other number
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: compile_module(self, backend="aot_eager", **options),
    )
    plain = settings(run__folder=str(tmp_path / "plain"), run__steps_per_stage=1)
    compiled = settings(run__compile=how, run__steps_per_stage=1)
    for config in (plain, compiled):
        loop.pretrain(config)
    for step, expected in losses(plain.run.folder).items():
        assert losses(compiled.run.folder)[step] == pytest.approx(expected, rel=1e-4)
