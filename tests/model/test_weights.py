"""Weights of strangers: what the file says of itself is compared with its tensors, then built."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast import ModelConfig, SeaMoBackbone
from seamo_fast.errors import CheckpointError, ConfigError
from seamo_fast.modalities import Modality, get_modality
from seamo_fast.model.backbone import seamo_vit_tiny
from seamo_fast.model.config import PRESETS, FusionMode
from seamo_fast.model.seamo import SeaMo
from seamo_fast.model.weights import model_metadata, parameter_shapes, read_weights
from tests.factories import RGB, S1, S2
from tests.tools import memory_below

CONFIG = ModelConfig(32, 2, 2, image_size=32, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def model() -> SeaMo:
    return SeaMo(CONFIG, [get_modality("s2l2a"), get_modality("s1grd")])


class Stranger:
    """A weights file of which a part is changed."""

    def __init__(self, model: SeaMo, path: Path) -> None:
        self.path = path
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.metadata = model_metadata(model.config, model.modalities)

    def say(self, key: str, edit: Callable[[Any], object]) -> None:
        value = json.loads(self.metadata[key])
        self.metadata[key] = json.dumps(edit(value) or value)

    def refusal(self, load: Callable[[Path], object] = SeaMoBackbone.from_checkpoint) -> str:
        save_file(self.state, self.path, self.metadata)
        with memory_below(2**24), pytest.raises(CheckpointError) as error:
            load(self.path)
        message = str(error.value)
        assert str(self.path) in message
        assert message.isprintable()
        assert len(message) < 2000
        return message.replace(str(self.path), "FILE")


@pytest.fixture
def stranger(model: SeaMo, tmp_path: Path) -> Stranger:
    return Stranger(model, tmp_path / "model.safetensors")


@pytest.mark.parametrize("fusion", ["tm", "cascade", "concat", "temporal", "modal", "none"])
@pytest.mark.parametrize("size", [*PRESETS, "small and odd"])
def test_the_shapes_of_a_config_are_those_of_the_model(size: str, fusion: FusionMode) -> None:
    odd = replace(CONFIG, mlp_ratio=2.7, patch_size=4, fusion_depth=2, date_embedding=False)
    config = replace(PRESETS.get(size, odd), fusion=fusion)
    config = replace(config, depth=min(config.depth, 2))
    modalities: list[Modality] = [S2, S1, RGB]
    with torch.device("meta"):
        built = {
            name: tuple(value.shape)
            for name, value in SeaMo(config, modalities).state_dict().items()
        }
    assert parameter_shapes(config, modalities, modalities) == built
    of_backbone = {name for name in built if not name.startswith("decoders.")}
    assert parameter_shapes(config, modalities, []).keys() == of_backbone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"width": 65536, "heads": 4},
            r"patch_embed.s2l2a.weight must be [65536, 12, 8, 8], but is [32",
        ),
        ({"width": 1_000_000}, "model.width must be at most 65536, but got 1000000"),
        ({"depth": 1024}, "encoder has 1024 blocks there, but the file holds 2"),
        ({"depth": 20_000}, "model.depth must be at most 1024"),
        ({"fusion_depth": 900}, "fusion has 900 blocks there, but the file holds 1"),
        ({"fusion_depth": 10**6}, "model.fusion_depth must be at most 1024"),
        ({"decoder_depth": 900}, "decoders.s2l2a has 900 blocks there, but the file holds 1"),
        ({"decoder_width": 65536}, "decoders.s2l2a.mask_token must be [65536], but is [16]"),
        ({"mlp_ratio": 1000}, "mlp.fc1.weight must be [32000, 32], but is [128, 32]"),
        ({"mlp_ratio": 1e300}, "model.mlp_ratio must be at most 1024"),
        ({"mlp_ratio": -1.0}, "model.mlp_ratio must be above 0"),
        ({"mlp_ratio": float("inf")}, "it has Infinity in place of a number"),
        ({"mlp_ratio": float("nan")}, "it has NaN in place of a number"),
        ({"mlp_ratio": "4"}, "model.mlp_ratio must be float or int, but got '4'"),
        ({"image_size": 160_000}, "model.image_size must be at most 32768"),
        (
            {"image_size": 32768},
            "image_size 32768 makes 16777216 patches of 8 pixels; at most 65536",
        ),
        (
            {"patch_size": 16},
            "patch_embed.s2l2a.weight must be [32, 12, 16, 16], but is [32, 12, 8",
        ),
        ({"width": 32.0}, "model.width must be int, but got 32.0"),
        ({"heads": True}, "model.heads must be int, but got True"),
        ({"depth": None}, "model.depth must be int, but got None"),
        ({"date_embedding": 1}, "model.date_embedding must be bool, but got 1"),
        ({"date_embedding": False}, "1 unknown (date_embed.weight)"),
        ({"fusion": ["tm"]}, "model.fusion must be one of"),
        (
            {"fusion": "cascade"},
            "2 missing (fusion.blocks.0.carry.bias, fusion.blocks.0.carry.weight)",
        ),
        ({"fusion_window": -1}, "model.fusion_window must be at least 1 or null, but got -1"),
        ({"fusion_window": 1.5}, "model.fusion_window must be int or NoneType, but got 1.5"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"x" * 10**6: 1}, "unexpected keyword argument 'xxxx"),
    ],
)
def test_a_config_that_is_not_that_of_the_tensors(
    stranger: Stranger, change: dict[str, Any], message: str
) -> None:
    stranger.say("config", lambda config: config.update(change))
    assert message in stranger.refusal()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m[0].update(std=[float("nan")] * 12), "it has NaN in place of a number"),
        (lambda m: m[0].update(mean=[1e39] * 12), "1e+39, of its mean, scale or 1 / std"),
        (lambda m: m[0].update(std=[1e-300] * 12), "1e+300, of its mean, scale or 1 / std"),
        (lambda m: m[0].update(std=[-1.0] * 12), "standard deviation of 0 or less"),
        (lambda m: m[0].update(mean=[True] * 12), "mean must be finite numbers, but got True"),
        (lambda m: m[0].update(mean=None), "'s2l2a' has no statistics"),
        (lambda m: m[0].update(bands=[{"name": f"A{n}", "gsd": 10} for n in range(9999)]),
         "'s2l2a' has 9999 bands; expected at most 1024"),
        (lambda m: m[0]["bands"].pop() and m[0].update(mean=[0.0] * 11, std=[1.0] * 11),
         "patch_embed.s2l2a.weight must be [32, 11, 8, 8], but is [32, 12, 8, 8]"),
        (lambda m: m.append(m[0]), "a modality is named twice"),
        (lambda m: m * 99, "198 modalities; expected at most 64"),
        (lambda m: m.append({**m[0], "name": "extra"}), "missing (modality_embed.extra, patch_"),
        (lambda m: m.pop() and None, "(decoders.s1grd."),
        (lambda m: {"a": 1}, "modality 'a' is not described as expected"),
        (lambda m: 7, "TypeError"),
        (lambda m: m[0].update(name="s2l2a\n" + "x" * 10**6), "missing (modality_embed.s2l2a x"),
    ],
)  # fmt: skip
def test_modalities_that_are_not_those_of_the_tensors(
    stranger: Stranger, edit: Callable[[Any], object], message: str
) -> None:
    stranger.say("modalities", edit)
    assert message in stranger.refusal()


@pytest.mark.parametrize("key", ["config", "modalities"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "it is nested too deep"),
        ('{"width": 32, "width": 64}', "it has the key 'width' twice"),
        ("", "Expecting value"),
        (None, "KeyError"),
    ],
)
def test_metadata_that_is_no_json(
    stranger: Stranger, key: str, text: str | None, message: str
) -> None:
    del stranger.metadata[key]
    if text is not None:
        stranger.metadata[key] = text
    assert message in stranger.refusal()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["encoder.norm.bias", "modality_embed.s1grd", "decoders.s2l2a.mask_token"]
)
def test_values_that_are_not_finite_are_refused_by_name(
    stranger: Stranger, name: str, dtype: torch.dtype, value: float
) -> None:
    stranger.state[name] = stranger.state[name].to(dtype)
    stranger.state[name][-1] = value
    assert stranger.refusal() == (
        f"FILE: {name} holds NaN or infinite values; take an earlier checkpoint"
    )


def test_large_values_whose_sum_overflows_are_finite(stranger: Stranger) -> None:
    stranger.state["encoder.norm.bias"][:] = 3e38
    save_file(stranger.state, stranger.path, stranger.metadata)
    loaded = SeaMoBackbone.from_checkpoint(stranger.path)
    assert torch.equal(loaded.encoder.norm.bias, stranger.state["encoder.norm.bias"])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float64, "F64"), (torch.int8, "I8"), (torch.int64, "I64"), (torch.bool, "BOOL")],
)
def test_dtypes_that_no_model_has_are_refused_by_name(
    stranger: Stranger, dtype: torch.dtype, name: str
) -> None:
    stranger.state["encoder.norm.bias"] = stranger.state["encoder.norm.bias"].to(dtype)
    assert stranger.refusal() == (
        f"FILE: encoder.norm.bias has dtype {name}; expected F32, F16, BF16"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_loaded(stranger: Stranger, dtype: torch.dtype) -> None:
    halves = {name: value.to(dtype) for name, value in stranger.state.items()}
    save_file(halves, stranger.path, stranger.metadata)
    loaded = SeaMoBackbone.from_checkpoint(stranger.path).state_dict()
    assert all(torch.equal(value, halves[name].float()) for name, value in loaded.items())


@pytest.mark.timeout(10)
def test_pipes_and_pickles_are_not_opened(stranger: Stranger, tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        read_weights(pickled)
    pipe = tmp_path / "pipe" / "model.safetensors"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    for path in (pipe, pipe.parent):
        with pytest.raises(CheckpointError, match="holds no weights"):
            read_weights(path)


def test_a_door_checks_once_and_draws_as_before(stranger: Stranger) -> None:
    """What is compared draws no random number: seeded runs stay what they were."""
    save_file(stranger.state, stranger.path, stranger.metadata)
    torch.manual_seed(5)
    weights = read_weights(stranger.path)
    weights.check_fit()
    first = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(first, torch.rand(1))


def test_the_size_is_compared_before_the_fit(stranger: Stranger) -> None:
    stranger.say("config", lambda config: config.update(depth=1024))
    assert "'tiny' has width 192" in stranger.refusal(seamo_vit_tiny)


def test_a_scene_of_any_size_may_still_be_asked_for(stranger: Stranger) -> None:
    stranger.say("config", lambda config: config.update(image_size=2048))
    save_file(stranger.state, stranger.path, stranger.metadata)
    assert SeaMoBackbone.from_checkpoint(stranger.path).config.num_patches == 2**16


@pytest.mark.parametrize("name", ["keys", "training", "get", "a.b", ""])
def test_names_that_parts_of_a_model_cannot_have(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no modality can be named '{name}'"):
        SeaMo(CONFIG, [replace(S1, name=name)])


def test_tensors_are_compared_in_part_too(stranger: Stranger) -> None:
    """Modalities that are not wanted are no way around."""
    stranger.state["decoders.s2l2a.head.weight"] = torch.zeros(2, 2)

    def load(path: Path) -> Tensor:
        return SeaMoBackbone.from_checkpoint(path, ["s1grd"])  # type: ignore[return-value]

    assert "decoders.s2l2a.head.weight must be [768, 16], but is [2, 2]" in stranger.refusal(load)
