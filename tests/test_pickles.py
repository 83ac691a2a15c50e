"""Pickles in the place of weights, arrays and databases: refused, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast import SeaMoBackbone, finetune, pretrain
from seamo_fast.data import ShardSet
from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.data.packing.sources import open_source
from seamo_fast.errors import SeaMoError
from tests.data.packing.published import stored_bands, times_of, write_group
from tests.eurosat import make_eurosat


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def pickled(mark: Path) -> bytes:
    return pickle.dumps({"model": Trap(mark)})


def saved_by_torch(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Trap(mark)}, buffer)
    return buffer.getvalue()


def saved_by_numpy(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(mark)], object), allow_pickle=True)
    return buffer.getvalue()


MAKERS = [pickled, saved_by_torch, saved_by_numpy]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_trap_works(mark: Path) -> None:
    pickle.loads(pickled(mark))
    assert mark.exists()


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.pth"])
def test_weights(tmp_path: Path, mark: Path, name: str, maker: Callable[[Path], bytes]) -> None:
    (tmp_path / name).write_bytes(maker(mark))
    with pytest.raises(SeaMoError, match=f"{name} is damaged or no safetensors file"):
        SeaMoBackbone.from_checkpoint(tmp_path / name)
    assert not mark.exists()


def test_weights_of_finetuning(
    tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_eurosat(tmp_path / "data", "eurosat_rgb", 4)
    (tmp_path / "model.pt").write_bytes(saved_by_torch(mark))
    assert finetune.main(["--data", str(tmp_path / "data"),
                          "--checkpoint", str(tmp_path / "model.pt")]) == 2  # fmt: skip
    assert "model.pt is damaged or no safetensors file" in capsys.readouterr().err
    assert not mark.exists()


def test_a_checkpoint_to_resume_from(
    tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/checkpoint.json").write_bytes(pickled(mark))
    line = ["--data.path", str(shards), "--run.folder", str(tmp_path / "run"),
            "--run.resume", str(tmp_path / "old")]  # fmt: skip
    assert pretrain.main(line) == 2
    assert "checkpoint.json is damaged" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("maker", MAKERS)
def test_arrays_of_shards(tmp_path: Path, mark: Path, maker: Callable[[Path], bytes]) -> None:
    shards = demo_shards(tmp_path / "cache", samples=4, size=24, seasons=2)
    copy = shutil.copytree(shards, tmp_path / "shards")
    next(copy.rglob("*.npy")).write_bytes(maker(mark))
    with pytest.raises(SeaMoError, match=r"\.npy (is not a \.npy file|holds object)"):
        ShardSet(copy)
    assert not mark.exists()


@pytest.mark.parametrize("change", ["object dtype", "pickle filter"])
def test_zarr(tmp_path: Path, mark: Path, change: str) -> None:
    folder = tmp_path / "source/train/S2L2A"
    folder.mkdir(parents=True)
    path = folder / "a.zarr.zip"
    times = np.stack([times_of("2020-01-01", 4)])
    write_group(path, "s2l2a", stored_bands("s2l2a", 1, (1, 4)), times, ["0000001"])
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    import json

    array = json.loads(members["bands/.zarray"])
    array.update({"dtype": "|O"} if change == "object dtype" else {"filters": [{"id": "pickle"}]})
    members["bands/.zarray"] = json.dumps(array).encode()
    for name in members:
        if name.startswith("bands/0"):
            members[name] = pickled(mark)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(SeaMoError, match=r"a\.zarr\.zip"):
        open_source(tmp_path / "source")
    assert not mark.exists()
