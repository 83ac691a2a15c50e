"""Settings of finetuning from the command line and from YAML files."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from seamo_fast.errors import ConfigError
from seamo_fast.finetune import COMMAND
from seamo_fast.tasks.finetuning.config import FREE_KEYS, FinetuneConfig


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("data: there\nmethod: full\nepochs: 3\nmodel: base\nlabel_smoothing: 0.2\n")
    expected = FinetuneConfig(data="there", method="full", epochs=5, label_smoothing=0.2)
    arguments = ["--config", str(file), "--epochs", "5", "--model=null"]
    assert COMMAND.parse(arguments)[0] == expected
    assert COMMAND.parse(["--data", "here"])[0] == FinetuneConfig(data="here")
    assert COMMAND.parse([])[0].data == "demo"


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


BOUNDS: dict[str, tuple[list[Any], list[Any]]] = {
    **dict.fromkeys(
        (
            "epochs",
            "batch_size",
            "accumulate",
            "lora_rank",
            "lora_alpha",
            "seeds",
            "checkpoint_every",
        ),
        ([1], [0]),
    ),
    **dict.fromkeys(("log_every", "max_nonfinite"), ([1], [0])),
    **dict.fromkeys(("size", "patience", "shots"), ([1, None], [0])),
    "blr": ([1e-9], [0, math.nan, math.inf]),
    "warmup_fraction": ([0, 1], [-1e-9, 1 + 1e-9, math.nan]),
    "weight_decay": ([0], [-1e-9, math.nan, math.inf]),
    "layer_decay": ([1e-9, 1], [0, 1 + 1e-9, math.nan]),
    "clip": ([1e-9, None], [0, math.nan, math.inf]),
    "drop_path": ([0, 1 - 1e-9], [-1e-9, 1, math.nan]),
    "focal_gamma": ([0], [-1e-9, math.nan, math.inf]),
    "label_smoothing": ([0, 1 - 1e-9, None], [-1e-9, 1, math.nan]),
    "mixup": ([0, 2], [-1e-9, math.nan, math.inf]),
    "cutmix": ([0, 2], [-1e-9, math.nan, math.inf]),
    "train_fraction": ([1e-9, 1], [0, 1 + 1e-9, math.nan]),
    "bootstrap": ([100], [99]),
    "workers": ([0, 1000], [-1, 1001]),
    "seed": ([0, 2**64 - 1], [-1, 2**64]),
    "data": (["a"], [""]),
    "output": (["a", None], [""]),
}


@pytest.mark.parametrize("key", BOUNDS)
def test_the_bounds_of_every_number(key: str) -> None:
    accepted, refused = BOUNDS[key]
    for value in accepted:
        assert getattr(FinetuneConfig(**{key: value}), key) == value
    for value in refused:
        with pytest.raises(ConfigError, match=rf"^{key} must be .* but got {value!r}$"):
            FinetuneConfig(**{key: value})


def test_the_linear_method_has_no_other_head() -> None:
    assert FinetuneConfig(method="linear", head="linear").head == "linear"
    with pytest.raises(ConfigError, match="method linear has no head fpn; give --method frozen"):
        FinetuneConfig(method="linear", head="fpn")


def test_every_seed_of_several_is_a_seed() -> None:
    with pytest.raises(ConfigError, match=r"seed \+ seeds - 1 must be"):
        FinetuneConfig(seed=2**64 - 2, seeds=3)


def test_every_setting_has_its_line_of_help() -> None:
    text = FinetuneConfig.__doc__ or ""
    own = [each.name for each in fields(FinetuneConfig)][5:]
    assert [name for name in own if f"        {name}: " not in text] == []
    assert {each.name for each in fields(FinetuneConfig)} >= FREE_KEYS
