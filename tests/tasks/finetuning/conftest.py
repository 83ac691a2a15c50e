"""Small labelled data on the disk, small weights, and settings of runs that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.finetuning import run as whole
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit import start
from tests.eurosat import make_eurosat
from tests.tasks.evaluation.toys import write_checkpoint, write_mask_folder

Settings = Callable[..., FinetuneConfig]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one block for Sentinel-2 and RGB."""
    return write_checkpoint(tmp_path_factory.mktemp("small") / "model.safetensors")


@pytest.fixture(scope="session")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of three classes: 18 train, 6 validate, 6 test."""
    return make_eurosat(tmp_path_factory.mktemp("eurosat") / "rgb", "eurosat_rgb")


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two classes, 44 x 50: 4 train, 2 validate, 2 test."""
    return write_mask_folder(tmp_path_factory.mktemp("masks") / "masks")


@pytest.fixture
def drawn() -> None:
    """Lets runs draw their pictures, which takes longer than their training."""


@pytest.fixture
def settings(
    eurosat: Path,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Settings:
    """Returns a function that makes the settings of a run: two epochs of three steps."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(whole, "draw", lambda *_: None)

    def make(**changes: Any) -> FinetuneConfig:
        given: dict[str, Any] = {
            "data": str(eurosat),
            "checkpoint": str(small),
            "method": "full",
            "output": str(tmp_path / "out"),
            "epochs": 2,
            "batch_size": 6,
            "bootstrap": 100,
            "device": "cpu",
            "precision": "fp32",
            "tensorboard": False,
            "log_every": 1,
        }
        return FinetuneConfig(**given | changes)

    return make


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[Opened], None]:
    """Returns a function whose argument every run opens, whatever its settings name."""

    def use(opened: Opened) -> None:
        monkeypatch.setattr(start, "open_dataset", lambda *_: opened)

    return use
