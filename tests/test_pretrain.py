"""The command `python -m seamo_fast.pretrain`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.model.seamo import SeaMo
from seamo_fast.pretrain import COMMAND, main
from seamo_fast.training import batches, dry_run, model_setup
from seamo_fast.training.step import step_flops
from tests.kernels.backends import forget
from tests.training.distributed.worker import before_step

TINY = """\
data: {{path: {shards}, batch_size: 2}}
model: {{width: 32, depth: 1, heads: 2, image_size: 16, patch_size: 4,
         decoder_width: 16, decoder_depth: 1, decoder_heads: 2}}
schedule: {{single_season: {{epochs: 1}}, multi_season: {{epochs: 1}}}}
run: {{folder: {folder}, steps_per_stage: 1, device: cpu, precision: fp32, figure_samples: 1}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file of settings for a run of two steps."""
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.format(shards=shards, folder=tmp_path / "run"))
    return file


def test_a_run_leaves_everything_a_person_needs(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seamo_fast.pretrain", "--config", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "single-season  1/2  loss" in done.stdout
    assert "multi-season  2/2  loss" in done.stdout
    for key in ("s2l2a", "s1grd", "samples/s", "MFU", "wait", "GiB"):
        assert key in done.stdout.splitlines()[-2]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "loss.png", "reconstructions"
    }  # fmt: skip


def test_the_saved_configuration_repeats_the_run(config: Path, tmp_path: Path) -> None:
    assert main(["--config", str(config)]) == 0
    again = tmp_path / "again"
    saved = tmp_path / "run" / "config.yaml"
    assert main(["--config", str(saved), f"--run.folder={again}"]) == 0
    first, second = (
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", again)
    )
    assert first == second
    assert len(first) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lr=3"], "error: unknown setting 'optim.lr'; the nearest known is 'optim.blr'"),
        (["--data.path=/nowhere"], "error: shard folder /nowhere does not exist"),
        (["--schedule.modalities=[s2]"], "error: stage 'single-season' wants modality 's2'"),
        (["--model.image_size=20", "--model.patch_size=8"], "must be a multiple of"),
        (["--run.device=cuda:77"], "error: run.device 'cuda:77' cannot be used here"),
        (["--run.folder=/proc/run"], "error: run.folder /proc/run cannot be written"),
        (["--run.resume=/nowhere"], "error: --run.resume /nowhere is neither"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_two(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--config", str(config), *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_full_disk_is_one_line(
    config: Path, small_disk: Callable[[int], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(64)
    assert main(["--config", str(config), f"--run.folder={disk / 'run'}"]) == 2
    shown = capfd.readouterr().err
    assert "error: the disk is full: checkpoint" in shown
    assert "Traceback" not in shown
    assert list((disk / "run" / "checkpoints").iterdir()) == []


def test_print_config_prints_what_can_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--config", "small", "--run.seed=5", "--print_config"])
    assert done.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert (
        COMMAND.parse(["--config", str(file)])[0]
        == COMMAND.parse(["--config", "small", "--run.seed=5"])[0]
    )


def test_a_dry_run_of_a_batch_beyond_memory_still_tells(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(config), "--dry_run", "--data.batch_size=100000000"]) == 0
    assert "of 100000000 of" in capsys.readouterr().out


def test_an_interrupt_before_the_first_step_is_one_line(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "open_shards", interrupted)
    assert main(["--config", str(config)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_by_a_signal_ends_with_its_status(
    config: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 0, lambda: os.kill(os.getpid(), number))
        assert main(["--config", str(config)]) == status
    with monkeypatch.context() as patch:  # after its last step there is nothing left to stop
        before_step(patch, 1, lambda: os.kill(os.getpid(), number))
        assert main(["--config", str(config)]) == 0
    assert main(["--config", str(config)]) == 0


def test_what_follows_a_stopped_run_does_not_begin(config: Path, tmp_path: Path) -> None:
    long = "--run.steps_per_stage=100000 --schedule.single_season.epochs=300000 --run.log_every=1"
    command = f"{sys.executable} -m seamo_fast.pretrain --config {config} {long}"
    with subprocess.Popen(
        ["bash", "-c", f"{command} && echo finetune; echo status $?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    ) as shell:
        assert shell.stdout is not None
        next(line for line in shell.stdout if "  3/" in line)
        lock = tmp_path / "run" / ".lock"
        os.kill(int(lock.read_text()), signal.SIGINT)
        said = shell.stdout.read().splitlines()
    assert said[-1] == "status 130"
    assert "stopped by SIGINT after step" in said[-2]


def test_a_dry_run_tells_what_a_run_takes(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(config), "--dry_run"]) == 0
    told = capsys.readouterr().out
    settings, _ = COMMAND.parse(["--config", str(config)])
    shards = batches.open_shards(settings.data.path)
    plan = batches.make_plan(settings, shards)
    model = model_setup.make_model(settings, shards, plan)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"model: {parameters / 1e6:.2f} M parameters" in told
    for stage in plan.stages:
        flops = 2 * step_flops(settings, shards, stage) / 1e9
        samples = batches.make_loader(settings, shards, stage).samples
        assert f"stage {stage.name}: 1 steps of 2 of {samples} samples" in told
        assert f"{flops:.2f} GFLOP a step" in told
    assert told.count("samples read") == 2
    assert "image_size: 16" in told
    assert not (tmp_path / "run").exists()


def test_a_dry_run_finds_damaged_data(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (array,) = tmp_path.glob("cache/*/shard-00000/s1grd_10m.npy")
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)
    assert main(["--config", str(config), "--data.batch_size=4", "--dry_run"]) == 0
    assert "damaged records: 1" in capsys.readouterr().out
    (array.parent.parent / "manifest.json").unlink()
    assert main(["--config", str(config), "--dry_run"]) == 2


def saved_bytes(model: SeaMo, arguments: tuple[object, ...]) -> int:
    """Counts what a forward pass keeps for the backward pass, parameters aside."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(*arguments)
    return sum(kept.values())


@pytest.fixture(params=["auto", "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SEAMO_FAST_KERNELS", request.param)
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("size", ["demo", "tiny"])
def test_the_memory_estimate_is_near_what_is_kept(config: Path, size: str) -> None:
    path = COMMAND.parse(["--config", str(config)])[0].data.path
    settings, _ = COMMAND.parse(["--config", size, f"--data.path={path}", "--data.batch_size=2"])
    shards = batches.open_shards(path)
    plan = batches.make_plan(settings, shards)
    model = model_setup.make_model(settings, shards, plan)
    stage = plan.stages[-1]
    batch = next(iter(batches.make_loader(settings, shards, stage)))
    views = batches.draw_views(settings, batch, stage.number)
    cpu = torch.device("cpu")
    guess = 2 * dry_run.activation_bytes(settings, stage, cpu, torch.float32)
    assert guess == pytest.approx(saved_bytes(model, (batch, views)), rel=0.3)
