from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open

from seamo_fast import checkpoint_files
from seamo_fast.errors import CheckpointError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.model.config import ModelConfig
from seamo_fast.model.weights import model_metadata, read_weights
from seamo_fast.training.recovery import checkpoint, run_folder
from tests.conftest import Shut

RECORD = {"stage": "first", "precision": "fp32"}


def save(folder: Path, step: int, keep: int = 9, size: int = 64) -> Path:
    values = torch.arange(size, dtype=torch.float32) + step
    return checkpoint.save(
        folder,
        step,
        {"weight": values, "bias": values[:2].to(torch.bfloat16)},
        {"weight.exp_avg": values * 2},
        RECORD,
        {"note": "kept"},
        keep,
    )


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "flipped":
        data[len(data) * 2 // 3] ^= 1
    file.write_bytes(data)
    if how == "missing":
        file.unlink()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 120)
    assert path.name == "step_00000120"
    assert sorted(p.name for p in path.iterdir()) == [
        "checkpoint.json", "model.safetensors", "optimizer.safetensors"
    ]  # fmt: skip
    found = checkpoint.load(path)
    assert found.step == 120
    assert found.record["stage"] == "first"
    assert found.record["versions"]["torch"] == torch.__version__
    assert torch.equal(found.model["weight"], torch.arange(64.0) + 120)
    assert found.model["bias"].dtype == torch.bfloat16
    assert torch.equal(found.optimizer["weight.exp_avg"], 2 * (torch.arange(64.0) + 120))


def test_weights_say_which_model_they_belong_to(tmp_path: Path) -> None:
    modalities = [get_modality("s2l2a"), get_modality("s1grd")]
    config = ModelConfig(width=64, heads=2)
    metadata = model_metadata(config, modalities)
    path = checkpoint.save(tmp_path, 1, {"w": torch.zeros(1)}, {}, RECORD, metadata, 1)
    with safe_open(path / "model.safetensors", "pt") as file:
        found = file.metadata()
    assert ModelConfig(**json.loads(found["config"])) == config
    assert [Modality.from_dict(m) for m in json.loads(found["modalities"])] == modalities


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 100_000_000):
        save(tmp_path, step, keep=2)
    assert [p.name for p in checkpoint_files.step_folders(tmp_path)] == [
        "step_00000010",
        "step_100000000",
    ]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_used(
    tmp_path: Path, file: str, how: str
) -> None:
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    damage(bad / file, how)
    with pytest.raises(CheckpointError, match=f"step_00000020 is refused: {file} (has|is)"):
        checkpoint.load(bad)
    refused: list[str] = []
    assert checkpoint_files.newest_good(tmp_path, refused.append) == good
    assert len(refused) == 1
    assert refused[0].endswith("; using step_00000010 instead")


def test_messages_name_the_file_and_the_reason(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    file = path / "model.safetensors"
    size = file.stat().st_size
    damage(file, "flipped")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    assert str(error.value) == (
        f"checkpoint {path} is refused: model.safetensors has been altered (its SHA-256 differs)"
    )
    damage(file, "truncated")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    assert str(error.value) == (
        f"checkpoint {path} is refused: model.safetensors has {size // 2} bytes instead of {size}"
    )


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = save(tmp_path, 7)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="its format is 2, this version reads 1"):
        checkpoint.load(path)


def test_no_checkpoint_is_none_but_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    assert checkpoint_files.newest_good(tmp_path / "absent", pytest.fail) is None
    for step in (1, 2):
        damage(save(tmp_path, step) / "checkpoint.json", "missing")
    with pytest.raises(CheckpointError, match=r"all 2 checkpoints .* are damaged .*resume none"):
        checkpoint_files.newest_good(tmp_path, pytest.fail)


def test_later_checkpoints_are_set_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    checkpoint.set_aside_after(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step_00000001", "step_00000002", "unused_step_00000003"
    ]  # fmt: skip


def test_a_full_disk_leaves_the_earlier_checkpoints(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(256) / "checkpoints"
    save(folder, 1, size=2**13)
    message = r"disk is full: .*step_00000002 needs 0\.5 MiB, 0\.\d MiB are free"
    with pytest.raises(CheckpointError, match=message):
        save(folder, 2, size=2**16)
    assert [path.name for path in folder.iterdir()] == ["step_00000001"]
    assert checkpoint.load(folder / "step_00000001").step == 1


def test_all_is_on_the_disk_before_the_name_appears_and_then_the_name(
    tmp_path: Path, order_on_disk: list[str]
) -> None:
    save(tmp_path / "checkpoints", 7)
    at = order_on_disk.index("rename step_00000007")
    files = {"model.safetensors", "optimizer.safetensors", "checkpoint.json"}
    before = order_on_disk[:at]
    for name in files:
        assert before.index(f"sync .{name}") < before.index(f"rename {name}")
    assert before[-1].startswith("sync .step_00000007.")
    assert order_on_disk[-1] == "sync checkpoints"
    assert order_on_disk.index("sync checkpoints") > at


MOMENTS = [(checkpoint, "_write_record"), (os, "fsync"), (checkpoint, "save_file")]


@pytest.mark.parametrize(("module", "call"), MOMENTS)
def test_any_failed_write_is_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: str
) -> None:
    save(tmp_path, 1)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, call, fail)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize(("module", "call"), MOMENTS)
def test_a_process_killed_while_saving_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    save(tmp_path, 1)
    original: Callable[..., Any] = getattr(module, call)
    monkeypatch.setattr(module, call, die)
    with pytest.raises(Killed):
        save(tmp_path, 2)
    assert [p.name for p in checkpoint_files.step_folders(tmp_path)] == ["step_00000001"]
    monkeypatch.setattr(module, call, original)
    save(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_killed_while_removing_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(folder: Path, **_: Any) -> None:
        (folder / "checkpoint.json").unlink()
        raise Killed

    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", die)
        with pytest.raises(Killed):
            save(tmp_path, 2, keep=1)
    assert [p.name for p in checkpoint_files.step_folders(tmp_path)] == ["step_00000002"]
    checkpoint.set_aside_after(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000002"]


READERS: dict[str, Callable[[Path], object]] = {
    "weights of a run": read_weights,
    "weights of a checkpoint": lambda run: read_weights(run / "checkpoints" / "step_00000001"),
    "a checkpoint": lambda run: checkpoint.load(run / "checkpoints" / "step_00000001"),
    "resume": lambda run: run_folder.find_start(run, "auto", lambda _: None),
    "resume from a run": lambda run: run_folder.find_start(run, str(run), lambda _: None),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name", ["", "/step_00000001", *(f"/step_00000001/{file}" for file in ("model.safetensors",
             "optimizer.safetensors", "checkpoint.json"))]
)  # fmt: skip
def test_what_belongs_to_another_user_is_named(
    tmp_path: Path, shut: Shut, reader: str, name: str
) -> None:
    save(tmp_path / "checkpoints", 1)
    closed = Path(f"{tmp_path}/checkpoints{name}")
    message = rf"{closed}.* cannot be read: Permission denied; make it and its folders readable"
    with shut(closed), pytest.raises(CheckpointError, match=message):
        READERS[reader](tmp_path)


def sign(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edits a record and signs it anew: its digest has no secret."""
    record = json.loads((path / "checkpoint.json").read_text())
    del record["sha256"]
    edit(record)
    record["sha256"] = checkpoint_files.record_digest(record)
    (path / "checkpoint.json").write_text(json.dumps(record))


MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop("format"), "its format is None, this version reads 1"),
        (lambda r: r.update(format=True), "checkpoint.json has format True"),
        (
            lambda r: r.pop("step"),
            "checkpoint.json does not say step: this version did not write it",
        ),
        (lambda r: r.update(step="7"), "checkpoint.json has step '7'"),
        (lambda r: r.update(step=True), "checkpoint.json has step True"),
        (lambda r: r.update(step=-7), "checkpoint.json has step -7"),
        (lambda r: r.update(step=8), "checkpoint.json is that of step 8"),
        (lambda r: r.pop("files"), "checkpoint.json does not say files"),
        (lambda r: r.update(files=[]), r"checkpoint.json has files \[\]"),
        (lambda r: r.update(files={}), "checkpoint.json does not say model.safetensors"),
        (lambda r: r["files"].pop(MODEL_FILE), "does not say model.safetensors"),
        (lambda r: r["files"].pop(OPTIMIZER_FILE), "does not say optimizer.safetensors"),
        (lambda r: r["files"].update({MODEL_FILE: 5}), "has model.safetensors 5"),
        (lambda r: r["files"][MODEL_FILE].pop("sha256"), "does not say sha256"),
        (lambda r: r["files"][MODEL_FILE].update(size=None), "has size None"),
    ],
)
def test_a_record_says_what_is_verified(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    older, path = save(tmp_path, 5), save(tmp_path, 7)
    sign(path, edit)
    with pytest.raises(CheckpointError, match=f"{path} is refused: .*{message}"):
        checkpoint.load(path)
    assert checkpoint_files.newest_good(tmp_path, lambda _: None) == older


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "5", "{}", '{"a": 1, "a": 1, "sha256": ""}', '{"a": NaN, "sha256": ""}', ""],
)
def test_a_record_that_is_no_record(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 7)
    (path / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"is refused: checkpoint.json is damaged"):
        checkpoint.load(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["checkpoint.json", MODEL_FILE, OPTIMIZER_FILE])
def test_a_named_pipe_is_no_part_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 7)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(CheckpointError, match=rf"{name} (is damaged|is missing|cannot be read)"):
        checkpoint.load(path)


@pytest.mark.parametrize("file", [MODEL_FILE, OPTIMIZER_FILE])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([1.0, torch.nan]), "x holds NaN or infinite values; take an earlier"),
        (torch.tensor([1, 2]), "x has dtype I64; expected F32, F16, BF16"),
    ],
)
def test_what_no_run_writes_is_refused_by_name(
    tmp_path: Path, file: str, value: torch.Tensor, message: str
) -> None:
    tensors: list[dict[str, torch.Tensor]] = [{"x": torch.ones(2)}, {"x": torch.ones(2)}]
    tensors[file == OPTIMIZER_FILE]["x"] = value
    path = checkpoint.save(tmp_path, 7, *tensors, RECORD, {}, 9)
    with pytest.raises(CheckpointError, match=rf"{file}: {message}"):
        checkpoint.load(path)
