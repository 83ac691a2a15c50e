"""Several ranks on one machine, against one process with the same global batch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from seamo_fast import checkpoint_files
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality
from seamo_fast.training import batches, loop, model_setup
from seamo_fast.training.config import PretrainConfig, StageLength, to_yaml
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import checkpoint
from seamo_fast.training.recovery.run_state import RunState
from seamo_fast.training.reporting.telemetry import read_metrics
from tests.training.conftest import write_shards
from tests.training.distributed.worker import act_compile, before_step, run_ranks, terminate

Settings = Callable[..., PretrainConfig]
pytestmark = pytest.mark.usefixtures("no_figures", "quick_rate")
TOTAL = 11


@pytest.fixture
def uneven(settings: Settings, uneven_shards: Path, tmp_path: Path) -> Settings:
    """Settings as ever, on shards whose samples have different numbers of measured patches."""

    def make(folder: str = "run", **changes: Any) -> PretrainConfig:
        place = {"data__path": str(uneven_shards), "run__folder": str(tmp_path / folder)}
        return settings(**{**place, **changes})

    return make


def lines(config: PretrainConfig) -> list[dict[str, Any]]:
    return read_metrics(Path(config.run.folder) / "metrics.jsonl")


def check_same_losses(config: PretrainConfig, expected: PretrainConfig, rel: float = 1e-5) -> None:
    found, wanted = lines(config), lines(expected)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for key in ("loss", "loss/optic", "loss/radar", "grad_norm"):
        values = [line[key] for line in found]
        assert values == pytest.approx([line[key] for line in wanted], rel=rel), key


def step_names(config: PretrainConfig) -> list[str]:
    folder = Path(config.run.folder) / "checkpoints"
    return [path.name for path in checkpoint_files.step_folders(folder)]


WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp, two micro-batches": {"optim__accumulate": 2, "run__recompute": "blocks"},
    "fsdp": {"distributed__strategy": "fsdp"},
    "fsdp, two micro-batches": {
        "distributed__strategy": "fsdp",
        "distributed__reshard_after_forward": False,
        "optim__accumulate": 2,
        "run__recompute": "blocks",
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_give_the_losses_of_one(uneven: Settings, way: str) -> None:
    one, two = uneven("one"), uneven("two", **WAYS[way])
    loop.pretrain(one)
    assert run_ranks(two, 2) == [None, None]
    check_same_losses(two, one)
    assert lines(two)[-1]["samples_per_second"] > 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_modality_that_one_rank_lacks_counts_where_it_is(
    settings: Settings, tmp_path: Path, strategy: str
) -> None:
    shards = write_shards(tmp_path / "shards", radar_of={5})
    found = {}
    for every, world in ((1, 1), (1, 2), (6, 2)):
        config = settings(
            data__path=str(shards),
            optim__blr=1e-9,
            distributed__strategy=strategy,
            run__folder=str(tmp_path / f"{every}-{world}"),
            run__log_every=every,
            run__checkpoint_every=6,
            run__steps_per_stage=6,
            schedule__kind="direct",
        )
        assert run_ranks(config, world) == [None] * world
        found[every, world] = [line["loss/radar"] for line in lines(config)]
    seen = [loss is not None for loss in found[1, 1]]
    assert 1 <= sum(seen) < 6 == len(seen)
    assert [loss is not None for loss in found[1, 2]] == seen
    once = [loss for loss in found[1, 1] if loss is not None]
    assert found[6, 2] == pytest.approx([sum(once) / len(once)], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_give_the_losses_of_one_over_fifty_steps(uneven: Settings, way: str) -> None:
    long = {"schedule__multi_season": StageLength(16, 1.0), "optim__blr": 0.02}
    one, two = uneven("one", **long), uneven("two", **long, **WAYS[way])
    loop.pretrain(one)
    assert run_ranks(two, 2) == [None, None]
    assert len(lines(one)) == 50
    check_same_losses(two, one)


def test_parts_of_a_batch_have_different_counts(uneven: Settings) -> None:
    # else the tests above would pass with plain averages
    config = uneven()
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    model = model_setup.make_model(config, shards, plan)
    loader = batches.make_loader(config, shards, plan.stages[1])
    batch, views = next(batches.with_views(config, loader, 1))
    counts = [model.count(*part) for part in zip(batch.split(2), views.split(2), strict=True)]
    assert counts[0][0] != counts[1][0]
    assert torch.equal(counts[0] + counts[1], model.count(batch, views))
    found = model.reconstruct(batch, views)
    assert model.count(batch, views).tolist() == [int(r.valid.sum()) for r in found.values()]


def test_micro_batches_and_recomputation_do_not_change_the_step(uneven: Settings) -> None:
    whole = uneven("whole")
    parts = uneven("parts", optim__accumulate=4, run__recompute="blocks")
    for config in (whole, parts):
        loop.pretrain(config)
    check_same_losses(parts, whole)


def test_recomputation_keeps_less_and_changes_no_bit(uneven: Settings) -> None:
    config = uneven()
    shards = batches.open_shards(config.data.path)
    plan = batches.make_plan(config, shards)
    batch, views = next(
        batches.with_views(config, batches.make_loader(config, shards, plan.stages[1]), 1)
    )
    results = []
    for how in ("none", "blocks"):
        model = model_setup.make_model(config, shards, plan)
        names = list(model.state_dict())
        model_setup.recompute_blocks(model, how)
        assert list(model.state_dict()) == names
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: (kept.append(t.numel()), t)[1], lambda t: t
        ):
            loss = model(batch, views).total
        loss.backward()
        results.append((sum(kept), [p.grad for p in model.parameters()]))
    assert results[1][0] < results[0][0] / 2
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def act_terminate(step: int, rank: int, patch: pytest.MonkeyPatch, here: int) -> None:
    if here == rank:
        before_step(patch, step, terminate)


def test_checkpoints_move_between_ranks_and_strategies(uneven: Settings) -> None:
    whole = uneven("whole")
    loop.pretrain(whole)
    # a signal to one rank stops all of them after the same step
    for world, step, changes in (
        (1, 2, {}),
        (2, 4, WAYS["fsdp, two micro-batches"]),
        (4, 7, WAYS["ddp"]),
        (4, 9, WAYS["fsdp"]),
    ):
        config = uneven("moved", **changes)
        act = partial(act_terminate, step, world - 1)
        assert run_ranks(config, world, act) == [None] * world
        assert step_names(config)[-1] == f"step_{step + 1:08d}"
        record = checkpoint_files.verify(
            Path(config.run.folder) / "checkpoints" / f"step_{step + 1:08d}"
        )
        assert record["ranks"] == world
    moved = uneven("moved")
    loop.pretrain(moved)
    check_same_losses(moved, whole)
    ends = [
        checkpoint.load(Path(c.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")
        for c in (whole, moved)
    ]
    for part in ("model", "optimizer"):
        first, second = (getattr(end, part) for end in ends)
        assert first.keys() == second.keys()
        assert [t.shape for t in first.values()] == [second[name].shape for name in first]


KILLED = """
import os, signal, sys
import pytest, torch
torch.set_num_threads(1)
from seamo_fast.training import loop, precision
from seamo_fast.pretrain import COMMAND
from tests.training.distributed.worker import before_step
precision.matmul_rate = lambda *_: 1e9
loop.Figures.write = lambda *_: None
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    before_step(pytest.MonkeyPatch(), 6, lambda: os.kill(os.getpid(), signal.SIGKILL))
loop.pretrain(COMMAND.parse(["--config", sys.argv[1]])[0])
"""


def test_torchrun_restarts_a_killed_rank_and_the_run_resumes(
    uneven: Settings, tmp_path: Path
) -> None:
    # it resumes, although the settings say to start over
    killed, one = uneven("killed", run__resume="none"), uneven("one")
    script, file = tmp_path / "killed.py", tmp_path / "config.yaml"
    script.write_text(KILLED)
    file.write_text(to_yaml(killed))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               "--max-restarts=1", str(script), str(file)]  # fmt: skip
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[3])])
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    loop.pretrain(one)
    check_same_losses(killed, one)


def act_fail(patch: pytest.MonkeyPatch, here: int) -> None:
    def broken(*_: Any) -> Any:
        raise DataError("shard 3 is gone")
        yield

    if here == 1:
        patch.setattr(batches, "ahead", broken)


def test_an_error_on_one_rank_ends_all(uneven: Settings) -> None:
    first, second = run_ranks(uneven(), 2, act_fail)
    assert first == "SeaMoError: rank 1 has failed; its message says why"
    assert second == "DataError: shard 3 is gone"


def act_full_disk(patch: pytest.MonkeyPatch, here: int) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if here == 0:
        patch.setattr(checkpoint, "replacing", fail)


def test_a_full_disk_ends_all_ranks(uneven: Settings) -> None:
    first, second = run_ranks(uneven(), 2, act_full_disk)
    assert first is not None
    assert first.startswith("CheckpointError: the disk is full: checkpoint")
    assert second == "SeaMoError: rank 0 has failed; its message says why"


def act_spoil(patch: pytest.MonkeyPatch, here: int) -> None:
    original, calls = batches.draw_views, []

    def draw(config: PretrainConfig, batch: Any, stage: int) -> Any:
        if here == 1 and len(calls) in (4, 5):
            batch.bands["radar"][0].fill_(3e38)
        calls.append(0)
        return original(config, batch, stage)

    patch.setattr(batches, "draw_views", draw)
    patch.setattr(Modality, "limit", 3e38)  # else such values were not measured


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all(
    uneven: Settings, strategy: str
) -> None:
    config = uneven(data__workers=0, distributed__strategy=strategy)
    assert run_ranks(config, 2, act_spoil) == [None, None]
    assert [line["skipped"] for line in lines(config)] == [0] * 4 + [1] + [2] * 6
    assert [line["loss"] is None for line in lines(config)] == [n in (4, 5) for n in range(TOTAL)]
    newest = checkpoint.load(Path(config.run.folder) / "checkpoints" / f"step_{TOTAL:08d}")
    assert all(tensor.isfinite().all() for tensor in newest.model.values())


def test_damaged_records_are_counted_over_ranks(
    uneven: Settings, uneven_shards: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(uneven_shards, spoilt)
    array = next(iter(sorted(spoilt.rglob("*.npy"))))
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)
    one, two = (uneven(name, data__path=str(spoilt)) for name in ("one", "two"))
    loop.pretrain(one)
    assert run_ranks(two, 2) == [None, None]
    assert lines(one)[-1]["bad_records"] == lines(two)[-1]["bad_records"] == 1
    check_same_losses(two, one)


def test_ranks_with_other_settings_are_refused(uneven: Settings) -> None:
    first, second = run_ranks([uneven(), uneven(run__seed=1)], 2)
    assert first == "SeaMoError: rank 1 has failed; its message says why"
    assert second is not None
    assert second.startswith("ConfigError: rank 1 differs from rank 0 (run.seed: 0 there, 1 here)")


def test_a_batch_that_ranks_cannot_share_is_refused(
    uneven: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"optim\.accumulate = 1 x 3 = 3, but got 4"):
        loop.pretrain(uneven(optim__accumulate=3))
    monkeypatch.setattr(ranks, "world", lambda: 3)
    with pytest.raises(ConfigError, match=r"multiple of ranks x optim\.accumulate = 3 x 1 = 3"):
        ranks.check_batch(4, 1)


def test_one_gpu_for_all_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="each rank takes the GPU of its own number"):
        loop.precision.choose_device("cuda:0")
    assert loop.precision.choose_device("cpu").type == "cpu"


def test_figures_and_compiled_blocks_of_a_sharded_model(uneven: Settings) -> None:
    short = {"schedule__kind": "direct", "run__steps_per_stage": 2, "run__figures_every": 1}
    one = uneven("one", **short)
    config = uneven("two", **short, **WAYS["fsdp, two micro-batches"], run__compile="regional")
    loop.pretrain(one)
    assert run_ranks(config, 2, act_compile, draw=True) == [None, None]
    check_same_losses(config, one, rel=1e-4)
    figures = sorted((Path(config.run.folder) / "reconstructions").iterdir())
    assert [path.name for path in figures] == ["step_00000001.png", "step_00000002.png"]


def test_bfloat16_shards_stay_near_bfloat16_replicas(uneven: Settings) -> None:
    changes: dict[str, Any] = {"run__precision": "bf16", "run__steps_per_stage": 3}
    one = uneven("one", **changes)
    two = uneven("two", **changes, distributed__strategy="fsdp")
    loop.pretrain(one)
    assert run_ranks(two, 2) == [None, None]
    check_same_losses(two, one, rel=2e-2)
    newest = checkpoint.load(Path(two.run.folder) / "checkpoints" / step_names(two)[-1])
    assert {tensor.dtype for tensor in newest.model.values()} == {torch.float32}


def test_training_continues_while_a_checkpoint_is_written(
    uneven: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, slow = uneven("whole"), uneven("slow")
    loop.pretrain(whole)
    state = RunState(slow, Path(slow.run.folder))
    Path(slow.run.folder).mkdir()
    original, steps = checkpoint.save_file, []

    def save_file(*arguments: Any) -> None:
        while state.step == 4:
            time.sleep(0.01)
        steps.append(state.step)
        original(*arguments)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    loop.run(state)
    assert steps[2] > 4  # two files of step 2, then those of step 4
    first, second = (
        checkpoint.load(Path(config.run.folder) / "checkpoints" / "step_00000004")
        for config in (whole, slow)
    )
    for part in ("model", "optimizer"):
        state, other = getattr(first, part), getattr(second, part)
        assert all(torch.equal(state[name], other[name]) for name in state)


def test_a_failed_write_is_raised_by_the_next_call(tmp_path: Path) -> None:
    tensors = {"w": torch.zeros(3)}
    arguments = (tensors, tensors, {}, {}, 2)
    with checkpoint.Writer() as writer:
        writer.save(tmp_path, 1, *arguments)
        writer.wait()
        (tmp_path / "file").write_text("in the way")
        for call in (writer.wait, partial(writer.save, tmp_path, 3, *arguments)):
            writer.save(tmp_path / "file" / "folder", 2, *arguments)
            with pytest.raises(checkpoint.CheckpointError, match="could not be written"):
                call()
            writer.check()
    assert [path.name for path in checkpoint_files.step_folders(tmp_path)] == ["step_00000001"]


def test_one_process_has_no_process_group(uneven: Settings) -> None:
    with ranks.process_group("cpu"):
        assert not torch.distributed.is_initialized()
        model = torch.nn.Linear(2, 2)
        assert sharding.replicate(model, False) is model
    assert (ranks.world(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    assert json.dumps(ranks.totals({"a": 1.5, "b": None})) == '{"a": 1.5, "b": null}'


HERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "-1"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "one", **HERE},
        {"WORLD_SIZE": "2", "RANK": "2", **HERE},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", **HERE, "MASTER_PORT": "99999999"},
    ],
)
def test_ranks_that_nothing_started_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    message = r"^the environment does not describe ranks \(.*\); start them with torchrun"
    with pytest.raises(ConfigError, match=message), ranks.process_group("cpu"):
        pass
