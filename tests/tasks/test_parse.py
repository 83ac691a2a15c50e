"""Settings from the command line and from YAML files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from seamo_fast.errors import ConfigError
from seamo_fast.finetune import COMMAND
from seamo_fast.tasks.config import FinetuneConfig


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("data: there\nmethod: full\nepochs: 3\nmodel: base\nlabel_smoothing: 0.2\n")
    expected = FinetuneConfig("there", method="full", epochs=5, model=None, label_smoothing=0.2)
    arguments = ["--config", str(file), "--epochs", "5", "--model=null"]
    assert COMMAND.parse(arguments)[0] == expected
    assert COMMAND.parse(["--data", "here"])[0] == FinetuneConfig("here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("methud: full\n", r"unknown setting 'methud' in .*; the nearest known is 'method'"),
        ("- 1\n", "must hold settings"),
        (": : :\n - [", "is not a YAML file"),
        (None, r"--config .*settings.yaml is not a file"),
    ],
)
def test_files_with_other_contents_are_refused(
    content: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_text(content)
    for arguments in (["--config", str(file)], [f"--config={file}"]):
        with pytest.raises(ConfigError, match=message):
            COMMAND.parse([*arguments, "--data", "x"])


def test_stray_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="stray"):
        COMMAND.parse(["--data", "x", "stray"])


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("epochs", [1], [0]),
        ("batch_size", [1], [0]),
        ("blr", [1e-9], [0, math.nan, math.inf]),
        ("weight_decay", [0], [-1e-9, math.nan, math.inf]),
        ("layer_decay", [1e-9, 1], [0, 1 + 1e-9, math.nan]),
        ("label_smoothing", [0, 1 - 1e-9], [-1e-9, 1, math.nan]),
        ("seed", [0, 2**64 - 1], [-1, 2**64]),
    ],
)
def test_the_bounds_of_every_number(key: str, accepted: list[float], refused: list[float]) -> None:
    for value in accepted:
        assert getattr(FinetuneConfig("here", **{key: value}), key) == value
    for value in refused:
        with pytest.raises(ConfigError, match=rf"^{key} must be .* but got {value}$"):
            FinetuneConfig("here", **{key: value})
