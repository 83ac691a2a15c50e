"""Settings from the command line and from YAML files."""

from __future__ import annotations

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
