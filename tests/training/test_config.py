from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from seamo_fast.errors import ConfigError
from seamo_fast.model.config import ModelConfig
from seamo_fast.pretrain import COMMAND
from seamo_fast.training.config import (
    DataConfig,
    OptimConfig,
    PretrainConfig,
    RunConfig,
    ScheduleConfig,
    StageConfig,
    StageLength,
    differences,
    to_dict,
    to_yaml,
)
from seamo_fast.training.presets import presets
from seamo_fast.views import ViewConfig


def test_without_arguments_the_demo_preset_is_used() -> None:
    config, dry = COMMAND.parse([])
    assert config == COMMAND.parse(["--config", "demo"])[0]
    assert config.data.path == "demo"
    assert not dry


def test_presets_are_listed_in_one_order_on_every_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.glob
    monkeypatch.setattr(
        Path, "glob", lambda self, pattern: sorted(listed(self, pattern), reverse=True)
    )
    assert list(presets()) == ["base", "demo", "large", "paper", "small", "tiny"]


@pytest.mark.parametrize("name", ["demo", "tiny", "small", "base", "large", "paper"])
def test_every_preset_is_read(name: str) -> None:
    config, _ = COMMAND.parse([f"--config={name}"])
    assert config.run.folder == f"runs/{name}"
    assert name in presets()


def test_sizes_of_the_presets_are_those_of_the_model() -> None:
    from seamo_fast.model.config import PRESETS

    for name, model in PRESETS.items():
        assert COMMAND.parse(["--config", name])[0].model == model
    paper = COMMAND.parse(["--config", "paper"])[0].model
    assert paper == replace(PRESETS["base"], date_embedding=False)


def test_paper_preset_follows_the_published_schedule() -> None:
    schedule = COMMAND.parse(["--config", "paper"])[0].schedule
    assert (schedule.single_season.epochs, schedule.single_season.data_fraction) == (20, 0.25)
    assert (schedule.multi_season.epochs, schedule.multi_season.data_fraction) == (200, 1.0)


def test_later_arguments_override_earlier_ones_and_files() -> None:
    config, dry = COMMAND.parse(
        ["--run.seed", "3", "--config=tiny", "--optim.betas=[0.8,0.9]", "--dry_run"]
    )
    assert config.model.width == 192
    assert config.optim.betas == (0.8, 0.9)
    assert dry


def test_stages_can_be_written_out() -> None:
    stage = '{"name": "first", "epochs": 2, "modalities": ["s1grd"], "seasons": 2}'
    config, _ = COMMAND.parse([f"--schedule.stages=[{stage}]"])
    assert config.schedule.stages == (StageConfig("first", 2, ("s1grd",), 2),)


def test_a_file_may_name_a_part_of_a_stage(tmp_path: Path) -> None:
    file = tmp_path / "part.yaml"
    file.write_text("schedule: {multi_season: {data_fraction: 0.5}}")
    stage = COMMAND.parse(["--config", str(file)])[0].schedule.multi_season
    assert (stage.epochs, stage.data_fraction) == (200, 0.5)


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--data.batchsize=3", "data.batch_size"),
        ("--modle.width=3", "model.width"),
        ("--width=3", "model.width"),
        ("--optim.bler=3", "optim.blr"),
        ("--dryrun", "dry_run"),
    ],
)
def test_an_unknown_key_names_the_nearest(argument: str, nearest: str) -> None:
    key = argument[2:].partition("=")[0]
    with pytest.raises(ConfigError, match=f"unknown setting '{key}'.*'{nearest}'"):
        COMMAND.parse([argument])


def test_an_unknown_key_in_a_file_names_the_nearest_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("schedule:\n  stages:\n  - {name: a, epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"schedule\.stages\.epoch' in .*mine\.yaml.*epochs'"):
        COMMAND.parse(["--config", str(file)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.width", "x"], "model.width"),
        (["--model.width=5"], "model.width 5 must be a multiple of"),
        (["--data.batch_size", "0"], "data.batch_size must be at least 1, but got 0"),
        (["--optim.betas=[0.9,1.5]"], "optim.betas must be in"),
        (["--run.keep=0"], "run.keep must be at least 1"),
        (["--run.seed=-1"], "run.seed must be at least 0 and below 2\\^64, but got -1"),
        (["--run.seed=99999999999999999999"], "run.seed must be at least 0 and below 2"),
        (["--optim.blr=.nan"], "optim.blr must be above 0 and finite, but got nan"),
        (["--schedule.modalities=[a,a]"], r"each once, or null for all, but got \['a', 'a'\]"),
        (["--views.mask_ratio=1.5"], "views.mask_ratio"),
        (["--run.precision", "fp8"], "run.precision"),
        (["--config", "huge"], "neither a preset .*demo.* nor a file"),
        (["surplus"], "surplus"),
        (["--run.seed"], "run.seed"),
    ],
)
def test_an_impossible_setting_is_one_clear_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        COMMAND.parse(arguments)
    assert "\n" not in str(error.value)


TINY, NAN, MOST = 1e-9, math.nan, 2**31 - 1
NO_NUMBERS = (NAN, math.inf, -math.inf)
AT_LEAST_1 = ([1, 2], [0, -1])


@pytest.mark.parametrize(
    ("section", "key", "accepted", "refused"),
    [
        (DataConfig, "batch_size", *AT_LEAST_1),
        (DataConfig, "batch_size", [MOST], [MOST + 1]),
        (DataConfig, "workers", [0, 1000], [-1, 1001]),
        (OptimConfig, "blr", [TINY, 5], [0, -TINY, *NO_NUMBERS]),
        (OptimConfig, "min_lr", [0, TINY], [-TINY, *NO_NUMBERS]),
        (OptimConfig, "warmup_fraction", [0, 1], [-TINY, 1 + TINY, *NO_NUMBERS]),
        (OptimConfig, "weight_decay", [0, 2], [-TINY, *NO_NUMBERS]),
        (OptimConfig, "betas", [(0, 0), (1 - TINY, 0.9)], [(-TINY, 0.9), (0.9, 1), (0.9, NAN)]),
        (OptimConfig, "accumulate", *AT_LEAST_1),
        (OptimConfig, "clip", [None, TINY], [0, -1, *NO_NUMBERS]),
        (StageLength, "epochs", [TINY, MOST], [0, -1, MOST + 1, *NO_NUMBERS]),
        (StageLength, "data_fraction", [TINY, 1], [0, 1 + TINY, *NO_NUMBERS]),
        (partial(StageConfig, "one", 1), "data_fraction", [TINY, 1], [0, 1 + TINY]),
        (partial(StageConfig, "one", 1), "modalities", [None, ("a", "b")], [["a", "a"], []]),
        (partial(StageConfig, "one"), "epochs", [TINY, MOST], [0, math.inf]),
        (ScheduleConfig, "modalities", [None, ("a",)], [["a", "b", "a"], []]),
        (ModelConfig, "mlp_ratio", [1 / 512, 4], [0, -1, 1 / 513, *NO_NUMBERS]),
        (ModelConfig, "fusion_window", [None, 1], [0, -1]),
        (ModelConfig, "heads", [1], [0, -1]),
        (ViewConfig, "mask_ratio", [TINY, 1 - TINY], [0, 1, *NO_NUMBERS]),
        (ViewConfig, "min_overlap", [0, 1], [-TINY, 1 + TINY, *NO_NUMBERS]),
        (ViewConfig, "crop_rate", [(TINY, 1)], [(0, 1), (0.5, 0.4), (0.5, 1.1), (NAN, 1)]),
        (ViewConfig, "decode_fraction", [TINY, 1], [0, 1 + TINY, *NO_NUMBERS]),
        (RunConfig, "seed", [0, 2**64 - 1], [-1, 2**64]),
        (RunConfig, "folder", ["a"], [""]),
        (RunConfig, "checkpoint_every", *AT_LEAST_1),
        (RunConfig, "keep", *AT_LEAST_1),
        (RunConfig, "log_every", *AT_LEAST_1),
        (RunConfig, "max_nonfinite", *AT_LEAST_1),
        (RunConfig, "figure_samples", *AT_LEAST_1),
        (RunConfig, "figures_every", [None, 1], [0, -1]),
        (RunConfig, "probe", [None, "a"], [""]),
        (RunConfig, "probe_every", [None, 1], [0, -1]),
        (RunConfig, "steps_per_stage", [None, 1], [0, -1]),
        (RunConfig, "stall_seconds", [None, TINY, MOST], [0, -1, MOST + 1, *NO_NUMBERS]),
    ],
)
def test_the_bounds_of_every_number(
    section: Callable[..., object], key: str, accepted: list[object], refused: list[object]
) -> None:
    for value in accepted:
        section(**{key: value})
    for value in refused:
        with pytest.raises(ConfigError, match=rf"{key}.* must be .* but got") as error:
            section(**{key: value})
        assert str(error.value).endswith((f"but got {value}", f"but got {value!r}"))


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        COMMAND.parse(["--config", str(file)])


def test_settings_written_to_a_file_are_read_back(
    tmp_path: Path, settings: Callable[..., PretrainConfig]
) -> None:
    config = settings(
        schedule__stages=(StageConfig("one", 1.5, ("optic",), 2, False, 0.5),),
        optim__clip=None,
        run__steps_per_stage=3,
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert COMMAND.parse(["--config", str(file)])[0] == config


def test_differences_name_keys_and_leave_out_what_does_not_matter(
    settings: Callable[..., PretrainConfig],
) -> None:
    old = settings()
    new = replace(
        old,
        optim=OptimConfig(blr=0.2),
        run=replace(old.run, folder="elsewhere", log_every=7, keep=9),
    )
    assert differences(to_dict(old), to_dict(new)) == ["optim.blr: 0.1 there, 0.2 here"]
